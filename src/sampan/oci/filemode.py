"""Permissions as `COPY --chmod` takes them: octal, or chmod(1)'s letters ("u=rwX,go+r")."""

from __future__ import annotations

from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_SHIFTS = {"u": 6, "g": 3, "o": 0}
_SET_ID = {"u": 0o4000, "g": 0o2000, "o": 0}
_BITS = {"r": 4, "w": 2, "x": 1}
_ALL_EXECUTE = 0o111


def parse(text: str) -> Callable[[int, bool], int]:
    """What makes a new mode of a file's mode and of whether it is a directory. Raises `InvalidParameter`."""
    if text.isascii() and text.isdigit():
        if any(digit in "89" for digit in text) or int(text, 8) > 0o7777:
            raise _wrong(text)
        mode = int(text, 8)
        return lambda _mode, _is_directory: mode
    clauses = [_clause(clause, text) for clause in text.split(",")]

    def changed(mode: int, is_directory: bool) -> int:
        for change in clauses:
            mode = change(mode, is_directory)
        return mode

    return changed


def _clause(clause: str, text: str) -> Callable[[int, bool], int]:
    at = next((i for i, c in enumerate(clause) if c in "+-="), -1)
    who, letters = clause[:at] or "a", clause[at + 1 :]
    if at < 0 or not set(who) <= set("ugoa") or not set(letters) <= set("rwxXst"):
        raise _wrong(text)
    classes = "ugo" if "a" in who else who
    operator = clause[at]

    def changed(mode: int, is_directory: bool) -> int:
        bits, mask = _bits(classes, letters, is_directory or bool(mode & _ALL_EXECUTE))
        if operator == "+":
            return mode | bits
        return mode & ~bits if operator == "-" else mode & ~mask | bits

    return changed


def _bits(classes: str, letters: str, may_execute: bool) -> tuple[int, int]:
    """The bits that the letters mean for these classes, and all that `=` clears."""
    bits = mask = 0
    for name in classes:
        shift = _SHIFTS[name]
        mask |= 7 << shift | _SET_ID[name]
        bits |= sum(_BITS[letter] << shift for letter in set(letters) if letter in _BITS)
        if "X" in letters and may_execute:
            bits |= 1 << shift
        if "s" in letters:
            bits |= _SET_ID[name]
    if "t" in letters:
        bits |= 0o1000
    return bits, mask


def _wrong(text: str) -> InvalidParameter:
    return InvalidParameter(f"invalid chmod parameter: '{text}': it is neither octal nor of the form u=rwx,go+r")
