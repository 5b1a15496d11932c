"""JSON without the cost of `json`: the C half of that package alone. Its Python half imports `re`, and that a dozen more.

Together they are 12 ms of every command and half a MiB of every shim. What is read and written is the same, but for
NaN and Infinity, which JSON does not have and which are refused here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPACE = " \t\n\r"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON value")


def _refuse_object(value: object) -> object:
    raise TypeError(f"a {type(value).__name__} is no JSON value")


class _Context:
    """What the C scanner asks of its decoder."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)
    memo: dict[str, str] = {}  # noqa: RUF012


if TYPE_CHECKING:

    def _scan(text: str, position: int) -> tuple[Any, int]: ...
    def _encode(value: Any, level: int) -> tuple[str, ...]: ...

else:
    import _json

    _scan = _json.make_scanner(_Context())
    _encode = _json.make_encoder(
        None, _refuse_object, _json.encode_basestring_ascii, None, ":", ",", False, False, False
    )


def dumps(value: Any) -> bytes:
    """A JSON document on one line, ASCII only: text that is not UTF-8 (surrogate escapes) survives.

    Raises ValueError and TypeError for what JSON cannot say.
    """
    return text(value).encode("ascii")


def text(value: Any) -> str:
    """The same as text, which has no line feed in it."""
    return "".join(_encode(value, 0))


def loads(data: bytes | str) -> Any:
    """The value of a JSON document, UTF-8 if it comes as bytes. Raises ValueError for anything else, or nested too deep."""
    document = data if isinstance(data, str) else data.decode("utf-8")
    value, end = leading(document)
    if document[end:].strip(_SPACE):
        raise ValueError(f"something follows the JSON value at character {end}")
    return value


def leading(text: str) -> tuple[Any, int]:
    """The JSON value that a text begins with, and where it ends. Raises ValueError."""
    begin = len(text) - len(text.lstrip(_SPACE))
    try:
        return _scan(text, begin)
    except StopIteration as e:
        raise ValueError(f"no JSON value at character {e.value}") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    except (ImportError, SystemError):
        # The scanner looks for json.decoder to build its error, which a sealed process cannot import; 3.11 then
        # forgets to say so, and the call itself complains.
        raise ValueError("not a JSON document") from None
