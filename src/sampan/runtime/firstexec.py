"""A program of 500 bytes that executes the interpreter from read-only mounts: one start of an interpreter for an OCI command, and not two.

What enters a container must have been executed from a read-only mount (`sealed`), and to make one takes two system calls that no shell
has. An interpreter that makes them and then executes itself again would take 10 ms for it; this takes 0.3. The script of `sampan-oci` executes it,
if it is there, in the place of the interpreter:

    FILE DIRECTORY NAME LIBRARY ARGV...     execute NAME of DIRECTORY as ARGV; LIBRARY has its libpython, or is ""

Nothing hangs on it. Whether the interpreter was so executed is asked of the kernel (`sealed.is_sealed`); where it was not, because this
file or the privilege is missing, stage1 is spawned.
"""

from __future__ import annotations

import os

from sampan.kernel import files

FILE = "/run/sampan-oci-exec.1"
"""Of this boot; the number is that of the arguments."""

MACHINE = "x86_64"

LISTING = """
start:
  48 89 e3                      | mov %rsp, %rbx                       # argc, argv[], 0, envp[], 0 (execve(2))
  4c 8d 7b 28                   | lea 40(%rbx), %r15                   # what is executed has argv[4] on for its argv
  48 8b 0b                      | mov (%rbx), %rcx
  4c 8d 74 cb 10                | lea 16(%rbx,%rcx,8), %r14            # and our envp
  48 83 f9 05                   | cmp $5, %rcx
  0f 82 ce 00 00 00             | jb gone
  48 8b 73 10                   | mov 16(%rbx), %rsi                   # argv[1], the interpreter's directory
  ba 01 00 08 00                | mov $0x80001, %edx                   # OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC
  e8 cc 00 00 00                | call mounted
  0f 88 aa 00 00 00             | js plain
  89 c5                         | mov %eax, %ebp
  48 8b 73 20                   | mov 32(%rbx), %rsi                   # argv[3], the directory of its libpython
  80 3e 00                      | cmpb $0, (%rsi)                      # "": it has none
  0f 84 85 00 00 00             | je sealed
  ba 01 00 00 00                | mov $1, %edx                         # OPEN_TREE_CLONE: it outlives the execve, for the loader
  e8 ad 00 00 00                | call mounted
  0f 88 8b 00 00 00             | js plain
  83 f8 64                      | cmp $100, %eax                       # room for two digits
  0f 83 82 00 00 00             | jae plain
  31 d2                         | xor %edx, %edx
  b9 0a 00 00 00                | mov $10, %ecx
  f7 f1                         | div %ecx
  85 c0                         | test %eax, %eax
  75 07                         | jnz digits
  89 d0                         | mov %edx, %eax
  ba ff ff ff ff                | mov $-1, %edx                        # one digit, then "/"
digits:
  83 c0 30                      | add $48, %eax
  83 c2 30                      | add $48, %edx
  6a 00                         | push $0
  48 b9 6c 66 2f 66 64 2f 4e 4e | movabs $0x4e4e2f64662f666c, %rcx     # "lf/fd/NN"
  51                            | push %rcx
  88 44 24 06                   | mov %al, 6(%rsp)
  88 54 24 07                   | mov %dl, 7(%rsp)
  48 b9 2f 70 72 6f 63 2f 73 65 | movabs $0x65732f636f72702f, %rcx     # "/proc/se"
  51                            | push %rcx
  48 b9 52 59 5f 50 41 54 48 3d | movabs $0x3d485441505f5952, %rcx     # "RY_PATH="
  51                            | push %rcx
  48 b9 4c 44 5f 4c 49 42 52 41 | movabs $0x415242494c5f444c, %rcx     # "LD_LIBRA"
  51                            | push %rcx
  48 8b 0b                      | mov (%rbx), %rcx
  48 83 e9 03                   | sub $3, %rcx                         # argv[4] on and the null behind it go one place down:
  48 8d 73 28                   | lea 40(%rbx), %rsi
  48 8d 7b 20                   | lea 32(%rbx), %rdi
  49 89 ff                      | mov %rdi, %r15
  f3 48 a5                      | rep movsq
  49 83 ee 08                   | sub $8, %r14                         # the place that gets free is the one before envp
  49 89 26                      | mov %rsp, (%r14)
sealed:
  89 ef                         | mov %ebp, %edi
  48 8b 73 18                   | mov 24(%rbx), %rsi                   # argv[2], its name there
  4c 89 fa                      | mov %r15, %rdx
  4d 89 f2                      | mov %r14, %r10
  45 31 c0                      | xor %r8d, %r8d
  b8 42 01 00 00                | mov $322, %eax                       # execveat
  0f 05                         | syscall
plain:
  49 8b 3f                      | mov (%r15), %rdi                     # it did not work: from its own file, then
  4c 89 fe                      | mov %r15, %rsi
  4c 89 f2                      | mov %r14, %rdx
  b8 3b 00 00 00                | mov $59, %eax                        # execve
  0f 05                         | syscall
gone:
  bf 7f 00 00 00                | mov $127, %edi
  b8 e7 00 00 00                | mov $231, %eax                       # exit_group
  0f 05                         | syscall
mounted:  # a detached read-only mount of the directory rsi: its descriptor in eax, or an error, negative
  bf 9c ff ff ff                | mov $-100, %edi                      # AT_FDCWD
  b8 ac 01 00 00                | mov $428, %eax                       # open_tree
  0f 05                         | syscall
  85 c0                         | test %eax, %eax
  78 30                         | js back
  6a 00                         | push $0
  6a 00                         | push $0
  6a 00                         | push $0
  6a 01                         | push $1                              # struct mount_attr: attr_set is MOUNT_ATTR_RDONLY
  89 c7                         | mov %eax, %edi
  48 8d 74 24 08                | lea 8(%rsp), %rsi                    # ""
  ba 00 10 00 00                | mov $0x1000, %edx                    # AT_EMPTY_PATH
  49 89 e2                      | mov %rsp, %r10
  41 b8 20 00 00 00             | mov $32, %r8d
  b8 ba 01 00 00                | mov $442, %eax                       # mount_setattr
  0f 05                         | syscall
  48 83 c4 20                   | add $32, %rsp
  85 c0                         | test %eax, %eax
  78 04                         | js back
  89 f8                         | mov %edi, %eax
  85 c0                         | test %eax, %eax
back:
  c3                            | ret
"""
"""Each instruction's bytes, and what they are for an assembler (a test has it assembled)."""

_BASE = 0x400000
_HEADERS = 64 + 2 * 56


def program() -> bytes:
    """The file: an ELF header, one segment that is read and executed, a stack that is not executed, the code (elf(5))."""
    code = bytes.fromhex("".join(line.partition("|")[0] for line in LISTING.splitlines() if "|" in line))
    size = _HEADERS + len(code)
    words = (
        (b"\x7fELF\x02\x01\x01".ljust(16, b"\0"), 16),
        *((2, 2), (62, 2), (1, 4), (_BASE + _HEADERS, 8), (64, 8), (0, 8), (0, 4), (64, 2), (56, 2), (2, 2)),
        *((0, 2), (0, 2), (0, 2)),
        *((1, 4), (5, 4), (0, 8), (_BASE, 8), (_BASE, 8), (size, 8), (size, 8), (0x1000, 8)),
        *((0x6474E551, 4), (6, 4), (0, 8), (0, 8), (0, 8), (0, 8), (0, 8), (16, 8)),
    )
    head = b"".join(value if isinstance(value, bytes) else value.to_bytes(length, "little") for value, length in words)
    return head + code


def put() -> None:
    """Put it into its place if it can run here and is not there. Raises nothing: what cannot be had is not needed."""
    if os.uname().machine != MACHINE or os.path.exists(FILE):
        return
    try:
        # Not every shell sees by [ -x ] that a file cannot be executed there.
        if not os.statvfs(os.path.dirname(FILE)).f_flag & os.ST_NOEXEC:
            files.write_atomic(FILE, program(), mode=0o755, sync=False)
    except OSError:
        pass
