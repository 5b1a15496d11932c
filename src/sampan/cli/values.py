"""What the texts of flags mean: numbers, sizes, processors, streams, variables, labels.

Each function raises ValueError or InvalidParameter with the text that Docker has; some of these are those of Go's own library.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TRUE = frozenset(("1", "t", "T", "true", "TRUE", "True"))
_FALSE = frozenset(("0", "f", "F", "false", "FALSE", "False"))
_LARGEST = (1 << 63) - 1


def boolean(text: str) -> bool:
    """The spellings that Go's ParseBool takes."""
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def integer(text: str) -> int:
    """A whole number of 64 bits: decimal, or 0x, 0o, 0b, 0 for another base, as Go's ParseInt with base 0."""
    digits = text.lstrip("+-")
    octal = len(digits) > 1 and digits[0] == "0" and digits[1] in "01234567_"
    try:
        if len(text) - len(digits) > 1 or text != text.strip() or not text.isascii():
            raise ValueError
        value = int(text, 8 if octal else 0)
    except ValueError:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
    if not -_LARGEST - 1 <= value <= _LARGEST:
        raise ValueError(f'strconv.ParseInt: parsing "{text}": value out of range')
    return value


def duration(text: str) -> int:
    """Nanoseconds of "1m30s", "500ms"."""
    from sampan.oci import duration  # in here: most verbs have no such flag

    return duration.parse(text)


def size(text: str) -> int:
    """Bytes: "256m", "1.5GiB", "64 kb", "1024"; units of 1024."""
    from sampan.engine.options import parse_size  # in here: most verbs have no such flag

    return _in_range(text, parse_size(text))


def size_or_unlimited(text: str) -> int:
    """Bytes, or -1 for no limit."""
    from sampan.engine.options import parse_swap

    return _in_range(text, parse_swap(text))


def nano_cpus(text: str) -> int:
    """Processors in billionths: "0.5", "1e1", "1/2"."""
    from sampan.engine.options import parse_cpus

    return _in_range(text, parse_cpus(text))


def _in_range(text: str, value: int) -> int:
    if not -_LARGEST - 1 <= value <= _LARGEST:
        raise ValueError(f"invalid size: '{text}'")
    return value


def stream(text: str) -> str:
    """The name of a standard stream, in lower case."""
    name = text.lower()
    if name not in ("stdin", "stdout", "stderr"):
        raise ValueError("valid streams are STDIN, STDOUT and STDERR")
    return name


def variable(text: str) -> str:
    """NAME=VALUE; a NAME alone takes the caller's value, and stays alone if there is none (it unsets the image's)."""
    name, equals, _ = text.partition("=")
    if not name:
        raise ValueError(f"invalid environment variable: {text}")
    if not equals and name in os.environ:
        return f"{name}={os.environ[name]}"
    return text


def label(text: str) -> str:
    """NAME=VALUE or NAME."""
    if not text.partition("=")[0]:
        raise ValueError(f"invalid label '{text}': empty name")
    return text


def filter(text: str) -> str:
    """name=value, the name in lower case; nothing at all is no filter."""
    name, equals, value = text.partition("=")
    if text and not equals:
        raise ValueError("bad format of filter (expected name=value)")
    return f"{name.strip().lower()}={value.strip()}" if text else ""


def by_name(words: list[str]) -> dict[str, list[str]]:
    """What the uses of --filter said: the values of each filter."""
    found: dict[str, list[str]] = {}
    for word in words:
        if word:
            name, _, value = word.partition("=")
            found.setdefault(name, []).append(value)
    return found


def weight(text: str) -> int:
    """A number of 16 bits, as Go's ParseUint."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if len(text) > 5 or int(text) >= 1 << 16:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


# What few command lines have is imported for those.


def ulimit(text: str) -> dict[str, Any]:
    """NAME=SOFT[:HARD]."""
    from sampan.oci.rlimits import parse

    return parse(text)


def sysctl(text: str) -> str:
    """NAME=VALUE."""
    from sampan.oci.sysctls import parse

    return parse(text)


def device_rule(text: str) -> str:
    """KIND MAJOR:MINOR ACCESS."""
    from sampan.oci.devices import check_rule

    return check_rule(text)


def bytes_rate(text: str) -> dict[str, Any]:
    """DISK:BYTES a second."""
    from sampan.engine.options import parse_size
    from sampan.oci.devices import parse_bytes_rate

    return parse_bytes_rate(text, parse_size)


def operations_rate(text: str) -> dict[str, Any]:
    """DISK:OPERATIONS a second."""
    from sampan.oci.devices import parse_operations_rate

    return parse_operations_rate(text)


def disk_weight(text: str) -> dict[str, Any]:
    """DISK:WEIGHT."""
    from sampan.oci.devices import parse_weight

    return parse_weight(text)


def address(text: str) -> str:
    """An IPv4 or IPv6 address."""
    from sampan.oci.hosts import check_address

    return check_address(text)


def domain(text: str) -> str:
    """A domain to search names in; "." for none."""
    from sampan.oci.hosts import check_domain

    return check_domain(text)


def host(text: str) -> str:
    """NAME:ADDRESS or NAME=ADDRESS, as the API has it: with a colon."""
    from sampan.oci.hosts import parse_host

    return parse_host(text)
