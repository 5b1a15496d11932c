"""The meetings of an OCI container on its way with the process that makes it; each start has one, and few have more of the life cycle (`steps.hooks`)."""

from __future__ import annotations

from sampan.steps.base import Context, Step


class Meet(Step):
    """Tell the process that makes the container how far it is, and wait until it gives leave to go on."""

    word: str

    def describe(self) -> str:
        return f"report {self.word!r}, wait for leave"

    def run(self, ctx: Context) -> None:
        ctx.meet(self.word)
