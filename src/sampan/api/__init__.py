"""The Docker Engine API over HTTP: a face of the engine, as the command line is one. `server` starts it; docs/api.md is for its users."""

from __future__ import annotations
