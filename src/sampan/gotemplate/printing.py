"""How Go's fmt package writes values: Sprint, Sprintln, Sprintf and %q (https://pkg.go.dev/fmt)."""

from __future__ import annotations

from sampan.gotemplate.values import MISSING, Duration, Map, Method, Nil, Object, Slice, Time, items_sorted, type_name
from sampan.oci import duration
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WIDEST = 1_000_000
"""What fmt takes as a width; what is more is a bad one."""
_ESCAPES = {"\a": "\\a", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v", "\\": "\\\\"}


def quote(text: str, mark: str = '"', ascii_only: bool = False) -> str:
    """%q: between quotes, and what cannot be printed escaped (strconv.Quote)."""
    return mark + "".join(_quoted(c, mark, ascii_only) for c in text) + mark


def _quoted(character: str, mark: str, ascii_only: bool) -> str:
    if character == mark:
        return "\\" + mark
    if character in _ESCAPES:
        return _ESCAPES[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if character.isprintable() and (code < 0x80 or not ascii_only):
        return character
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def float_text(value: float, plain: range = range(-4, 6), precision: int | None = None, verb: str = "g") -> str:
    """A float64: the shortest text that is read back as the same; an exponent if it is not one of `plain`."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    if precision is not None:
        return f"{value:.{precision}{verb}}"
    digits, _, exponent = f"{value!r}".lower().partition("e") if "e" in repr(value) else _scientific(value)
    if int(exponent or 0) not in plain:
        sign = "-" if int(exponent) < 0 else "+"
        return f"{digits.removesuffix('.0')}e{sign}{abs(int(exponent)):02d}"
    return f"{value:.{max(0, len(digits.lstrip('-').replace('.', '')) - 1 - int(exponent or 0))}f}"


def _scientific(value: float) -> tuple[str, str, str]:
    """The shortest digits as d.ddd and the exponent."""
    sign = "-" if value < 0 or str(value).startswith("-") else ""
    whole, _, fraction = repr(abs(value)).partition(".")
    fraction = "" if fraction == "0" else fraction
    digits = (whole + fraction).lstrip("0")
    if not digits:
        return sign + "0", "e", "0"
    exponent = len(whole) - 1 if whole != "0" else -(len(fraction) - len(fraction.lstrip("0")) + 1)
    digits = digits.rstrip("0") or "0"
    return sign + digits[0] + ("." + digits[1:] if digits[1:] else ""), "e", str(exponent)


def time_text(text: str) -> str:
    """A time.Time of an RFC 3339 text: "2026-01-02 03:04:05.6 +0000 UTC"."""
    date, _, clock = text.partition("T")
    if clock.endswith("Z"):
        body, zone = clock[:-1], "+0000 UTC"
    else:
        cut = max(clock.rfind("+"), clock.rfind("-"))
        if cut < 0:
            return text
        zone = clock[cut:].replace(":", "")
        body, zone = clock[:cut], f"{zone} {zone}"
    whole, _, fraction = body.partition(".")
    fraction = fraction.rstrip("0")
    return f"{date} {whole}{'.' + fraction if fraction else ''} {zone}"


class Spec(Struct):
    """One %... of a format: its flags, width and precision (-1: none), and the verb."""

    flags: str = ""
    width: int = -1
    precision: int = -1
    verb: str = "v"


_PLAIN = Spec()


def text_of(value: object) -> str:
    """%v."""
    return _format(value, _PLAIN, 0)


def sprint(values: Sequence[object]) -> str:
    """Sprint: a space between two operands of which neither is a text."""
    parts: list[str] = []
    for i, value in enumerate(values):
        if i and not isinstance(value, str) and not isinstance(values[i - 1], str):
            parts.append(" ")
        parts.append(text_of(value))
    return "".join(parts)


def sprintln(values: Sequence[object]) -> str:
    return " ".join(text_of(value) for value in values) + "\n"


def sprintf(format: str, values: Sequence[object]) -> str:
    """Sprintf; what does not fit is told in the text, as Go does."""
    return _Formatter(format, values).run()


class _Formatter:
    def __init__(self, format: str, values: Sequence[object]) -> None:
        self._format = format
        self._values = values
        self._at = 0
        self._used = 0
        self._reordered = False
        self._bad_index = False

    def run(self) -> str:
        parts: list[str] = []
        format = self._format
        while self._at < len(format):
            found = format.find("%", self._at)
            if found < 0:
                parts.append(format[self._at :])
                break
            parts.append(format[self._at : found])
            self._at = found + 1
            parts.append(self._one())
        if not self._reordered and self._used < len(self._values):
            extra = ", ".join(_with_type(value) for value in self._values[self._used :])
            parts.append(f"%!(EXTRA {extra})")
        return "".join(parts)

    def _one(self) -> str:
        flags, problems = "", ""
        self._bad_index = False
        while self._peek() in tuple("+-# 0"):
            flags += self._peek()
            self._at += 1
        self._index()
        width, bad = self._number()
        if bad:
            problems += "%!(BADWIDTH)"
        elif width < -1:
            width, flags = -width, flags + "-"
        precision = -1
        if self._peek() == ".":
            self._at += 1
            self._index()
            precision, bad = self._number(absent=0)
            if bad:
                problems += "%!(BADPREC)"
        self._index()
        verb = self._peek()
        if not verb:
            return problems + "%!(NOVERB)"
        self._at += 1
        if verb == "%":
            return problems + "%"
        if self._bad_index:
            return f"{problems}%!{verb}(BADINDEX)"
        if self._used >= len(self._values):
            return f"{problems}%!{verb}(MISSING)"
        value = self._values[self._used]
        self._used += 1
        return problems + _format(value, Spec(flags, width, max(precision, -1), verb), 0)

    def _peek(self) -> str:
        return self._format[self._at : self._at + 1]

    def _index(self) -> None:
        """[n]: which operand is next."""
        if self._peek() != "[":
            return
        self._reordered = True
        close = self._format.find("]", self._at)
        digits = self._format[self._at + 1 : close] if close >= 0 else ""
        self._at = close + 1 if close >= 0 else self._at + 1
        if digits.isascii() and digits.isdigit() and len(digits) < 9 and 0 < int(digits) <= len(self._values):
            self._used = int(digits) - 1
        else:
            self._bad_index = True

    def _number(self, absent: int = -1) -> tuple[int, bool]:
        """A width or a precision: digits, or * for the next operand; and whether it is a bad one."""
        if self._peek() == "*":
            self._at += 1
            value = self._values[self._used] if self._used < len(self._values) else None
            self._used += 1
            if not isinstance(value, int) or isinstance(value, bool) or abs(value) > WIDEST:
                return absent, True
            return value, False
        begin = self._at
        while self._peek() in tuple("0123456789"):
            self._at += 1
        digits = self._format[begin : self._at]
        if not digits:
            return absent, False
        return (absent, True) if len(digits) > 7 or int(digits) > WIDEST else (int(digits), False)


def _with_type(value: object) -> str:
    return "<nil>" if value is None or value is MISSING else f"{type_name(value)}={text_of(value)}"


def _format(value: object, spec: Spec, depth: int) -> str:
    if spec.verb == "T":
        return _padded("<nil>" if value is None or value is MISSING else type_name(value), spec)
    if value is None or value is MISSING:
        return _padded("<nil>", spec) if spec.verb == "v" else f"%!{spec.verb}(<nil>)"
    if isinstance(value, Nil):
        return _nil(value, spec)
    if isinstance(value, Duration) and spec.verb in "vs":
        return _padded(duration.shown(value), spec)
    if isinstance(value, Time) and spec.verb in "vs":
        return _padded(time_text(value), spec)
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(value, spec, depth)
    return f"%!{spec.verb}({type(value).__name__})"


def _nil(value: Nil, spec: Spec) -> str:
    if value.is_pointer:
        return _padded("<nil>", spec) if spec.verb == "v" else f"%!{spec.verb}({value.type}=<nil>)"
    return "[]" if value.type.startswith("[") else "map[]"


def _bad(value: object, spec: Spec) -> str:
    return f"%!{spec.verb}({_with_type(value)})"


def _padded(text: str, spec: Spec, zeros: bool = False) -> str:
    if spec.width <= len(text):
        return text
    if "-" in spec.flags:
        return text.ljust(spec.width)
    if "0" in spec.flags and zeros:
        sign = text[:1] if text[:1] in ("+", "-", " ") else ""
        return sign + text[len(sign) :].rjust(spec.width - len(sign), "0")
    return text.rjust(spec.width)


def _bool(value: bool, spec: Spec, _depth: int) -> str:
    return _padded(str(value).lower(), spec) if spec.verb in "vt" else _bad(value, spec)


def _signed(digits: str, negative: bool, spec: Spec) -> str:
    return ("-" if negative else "+" if "+" in spec.flags else " " if " " in spec.flags else "") + digits


_BASES = {"v": "d", "d": "d", "b": "b", "o": "o", "O": "o", "x": "x", "X": "X"}
_PREFIXES = {"b": "0b", "o": "0", "x": "0x", "X": "0X"}


def _int(value: int, spec: Spec, _depth: int) -> str:
    if spec.verb in _BASES:
        digits = f"{abs(int(value)):{_BASES[spec.verb]}}"
        if spec.precision > len(digits):
            digits = digits.rjust(spec.precision, "0")
        prefix = "0o" if spec.verb == "O" else _PREFIXES.get(spec.verb, "") if "#" in spec.flags else ""
        return _padded(_signed(prefix + digits, value < 0, spec), spec, zeros=spec.precision < 0)
    if spec.verb in "cqU":
        character = chr(value) if 0 <= value < 0x110000 and not 0xD800 <= value < 0xE000 else "�"
        if spec.verb == "U":
            return _padded(f"U+{value:04X}" + (f" '{character}'" if "#" in spec.flags else ""), spec)
        return _padded(character if spec.verb == "c" else quote(character, "'", "+" in spec.flags), spec)
    return _bad(value, spec)


def _float(value: float, spec: Spec, _depth: int) -> str:
    verb, precision = spec.verb, spec.precision if spec.precision >= 0 else None
    if verb in "vgG":
        text = float_text(value) if precision is None else _general(value, precision)
    elif verb in "eEfF":
        text = float_text(value, precision=6 if precision is None else precision, verb=verb)
    else:
        return _bad(value, spec)
    text = text.upper() if verb in "GE" else text
    negative = text.startswith("-")
    return _padded(_signed(text.lstrip("+-"), negative, spec), spec, zeros=True)


def _general(value: float, precision: int) -> str:
    return f"{value:.{precision or 1}g}"


def _str(value: str, spec: Spec, _depth: int) -> str:
    text = str(value)
    if spec.precision >= 0 and spec.verb in "vsqxX":
        text = text[: spec.precision]
    if spec.verb == "q" or (spec.verb == "v" and "#" in spec.flags):
        if "#" in spec.flags and spec.verb == "q" and "`" not in text and text.isprintable():
            return _padded(f"`{text}`", spec)
        return _padded(quote(text, ascii_only="+" in spec.flags), spec)
    if spec.verb in "vs":
        return _padded(text, spec, zeros=True)
    if spec.verb in "xX":
        data = text.encode("utf-8", "surrogateescape")
        digits = data.hex(" ") if " " in spec.flags and data else data.hex()
        digits = ("0x" if "#" in spec.flags and data else "") + digits
        return _padded(digits.upper() if spec.verb == "X" else digits, spec)
    return _bad(value, spec)


def _slice(value: Sequence[object], spec: Spec, depth: int) -> str:
    return "[" + " ".join(_format(element, spec, depth + 1) for element in value) + "]"


def _map(value: dict[object, object], spec: Spec, depth: int) -> str:
    pairs = (f"{_format(k, spec, depth + 1)}:{_format(v, spec, depth + 1)}" for k, v in items_sorted(value))
    return "map[" + " ".join(pairs) + "]"


def _object(value: Object, spec: Spec, depth: int) -> str:
    named = "+" in spec.flags and spec.verb == "v"
    fields = ((name, field) for name, field in value.fields.items() if not isinstance(field, Method))
    parts = (f"{name}:" * named + _format(field, spec, depth + 1) for name, field in fields)
    return "{" + " ".join(parts) + "}"


_WRITERS: tuple[tuple[type | tuple[type, ...], Callable[..., str]], ...] = (
    (bool, _bool),
    (int, _int),
    (float, _float),
    (str, _str),
    ((dict, Map), _map),
    ((list, tuple, Slice), _slice),
    (Object, _object),
)
