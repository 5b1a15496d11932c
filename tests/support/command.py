"""The real command `sampan`, started as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from support.patience import patience

SAMPAN = str(Path(sys.executable).parent / "sampan")


@dataclass(frozen=True)
class Result:
    """How a command ended. `out` and `err` are text with surrogate escapes; the bytes are kept beside them."""

    args: tuple[str, ...]
    code: int
    out_bytes: bytes
    err_bytes: bytes

    @property
    def out(self) -> str:
        return os.fsdecode(self.out_bytes)

    @property
    def err(self) -> str:
        return os.fsdecode(self.err_bytes)

    def ok(self) -> Result:
        """Itself, after an assertion that the exit code is 0."""
        assert self.code == 0, f"{self}"
        return self

    def __str__(self) -> str:
        return f"{' '.join(self.args)}\nexit code {self.code}\nstdout: {self.out}\nstderr: {self.err}"


class Command:
    """`cli("run", "base", "true")` runs the command to its end; `cli.start(...)` gives the Popen.

    `before` are the flags that come before every verb.
    """

    def __init__(self, environment: Mapping[str, str], program: str = SAMPAN, before: tuple[str, ...] = ()) -> None:
        self.program = program
        self.before = before
        self.environment = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            **environment,
        }

    def __call__(
        self,
        *args: str | bytes,
        input: bytes | str | None = None,
        timeout: float = 60,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        stdin: int | None = None,
    ) -> Result:
        """Run it with standard input from `input` (else /dev/null) and wait at most `timeout` seconds."""
        if isinstance(input, str):
            input = os.fsencode(input)
        process = self.start(
            *args,
            stdin=subprocess.PIPE if input is not None else (subprocess.DEVNULL if stdin is None else stdin),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=cwd,
        )
        try:
            out, err = process.communicate(input, timeout=patience(timeout))
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            result = Result(self._shown(args), process.returncode, out, err)
            raise AssertionError(f"no end after {patience(timeout):.0f} s: {result}") from None
        return Result(self._shown(args), process.returncode, out, err)

    def start(
        self, *args: str | bytes, env: Mapping[str, str] | None = None, **popen: object
    ) -> subprocess.Popen[bytes]:
        """Start it and do not wait; `popen` goes to subprocess.Popen."""
        return subprocess.Popen([self.program, *self.before, *args], env={**self.environment, **(env or {})}, **popen)  # type: ignore[call-overload,no-any-return]

    @staticmethod
    def _shown(args: tuple[str | bytes, ...]) -> tuple[str, ...]:
        return ("sampan", *(os.fsdecode(a) for a in args))
