"""How many descriptors a keeper may spend on what comes and goes: with a full table it could take no container in any more."""

from __future__ import annotations

from sampan.kernel import process

_RLIMIT_NOFILE = 7
_RESERVE = 256
"""Descriptors that are left for what containers hand over, and for reading files."""


class Budget:
    """Counts connections and questions, by whose they are: nobody gets more than a quarter."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.kept = 0
        """Descriptors that containers have handed over."""
        self._used = 0
        self._of: dict[str, int] = {}

    def take(self, owner: str, count: int = 1) -> bool:
        """Whether `owner` may have so many more."""
        used = self._of.get(owner, 0)
        if self._used + self.kept + count > self.most or used + count > max(self.most // 4, 16):
            return False
        self._used += count
        self._of[owner] = used + count
        return True

    def give(self, owner: str, count: int = 1) -> None:
        """They are closed."""
        self._used -= count
        left = self._of[owner] - count
        if left:
            self._of[owner] = left
        else:
            del self._of[owner]


def raise_limit() -> int:
    """Allow this process as many descriptors as it may have; how many of these are for a `Budget`."""
    soft, hard = process.get_resource_limit(_RLIMIT_NOFILE)
    if soft < hard:
        try:
            process.set_resource_limit(_RLIMIT_NOFILE, hard, hard)
            soft = hard
        except OSError:
            pass  # as many as there are, then
    return max(min(soft, 1 << 16) - _RESERVE, 64)
