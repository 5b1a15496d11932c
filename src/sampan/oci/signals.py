"""Signal names and numbers, as `--stop-signal` and `kill -s` take them (signal(7), the generic numbers of Linux).

A table of our own: the standard library's `signal` imports `enum`, 4 ms on every start.
"""

from __future__ import annotations

from sampan.errors import InvalidParameter

NUMBERS = {
    "HUP": 1, "INT": 2, "QUIT": 3, "ILL": 4, "TRAP": 5, "ABRT": 6, "IOT": 6, "BUS": 7, "FPE": 8, "KILL": 9, "USR1": 10,
    "SEGV": 11, "USR2": 12, "PIPE": 13, "ALRM": 14, "TERM": 15, "STKFLT": 16, "CHLD": 17, "CLD": 17, "CONT": 18,
    "STOP": 19, "TSTP": 20, "TTIN": 21, "TTOU": 22, "URG": 23, "XCPU": 24, "XFSZ": 25, "VTALRM": 26, "PROF": 27,
    "WINCH": 28, "IO": 29, "POLL": 29, "PWR": 30, "SYS": 31, "RTMIN": 34, "RTMAX": 64,
}  # fmt: skip

SIGTERM, SIGKILL = 15, 9
LAST = 64


def parse(text: str) -> int:
    """The number of "TERM", "SIGTERM", "sigterm", "15" or "RTMIN+3".

    Raises InvalidParameter in Docker's words for what is no signal (0 is none here: it would kill nothing).
    """
    word = text.upper().removeprefix("SIG")
    is_number = word.isascii() and word.isdigit()
    number = int(word) if is_number else NUMBERS.get(word) or _real_time(word)
    if not 1 <= number <= LAST:
        raise InvalidParameter(f"invalid signal: {text}")
    return number


def _real_time(word: str) -> int:
    """RTMIN+n and RTMAX-n; 0 for anything else. 32 and 33 belong to the C library."""
    for base, sign in (("RTMIN+", 1), ("RTMAX-", -1)):
        offset = word.removeprefix(base)
        if offset != word and offset.isascii() and offset.isdigit():
            number = NUMBERS[base[:-1]] + sign * int(offset)
            return number if NUMBERS["RTMIN"] <= number <= NUMBERS["RTMAX"] else 0
    return 0
