"""The keys that detach from a container: as text, as bytes, and looked for in what is typed."""

from __future__ import annotations

from sampan.errors import InvalidParameter

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"

_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


def parse_detach_keys(text: str) -> bytes:
    """The bytes of "ctrl-x,a": letters, ctrl- and one of a-z @ [ \\ ] ^ _, or DEL, between commas.

    Empty means the default. Raises InvalidParameter.
    """
    return bytes(_key(word, text) for word in (text or DEFAULT_DETACH_KEYS).split(","))


def _key(word: str, text: str) -> int:
    if len(word) == 1 and word.isascii():
        return ord(word)
    if word == "DEL":
        return 127
    letter = word.removeprefix("ctrl-")
    if len(letter) != 1 or letter == word or letter not in _CONTROL:
        raise InvalidParameter(f"invalid detach keys ({text}): unknown key '{word}'")
    return _CONTROL.index(letter)


class DetachKeys:
    """Looks for the sequence in what is typed. What may still become the sequence is held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._held = bytearray()
        self.seen = False

    def feed(self, data: bytes) -> bytes:
        """What of `data`, and of what was held, goes to the program. Nothing that follows the sequence does."""
        passed = bytearray()
        for byte in data:
            self._held.append(byte)
            while not self._keys.startswith(self._held):
                passed.append(self._held.pop(0))
            if self._held == self._keys:
                self.seen = True
                break
        return bytes(passed)

    def end(self) -> bytes:
        """What was held when the input ended."""
        held = bytes(self._held)
        self._held.clear()
        return held
