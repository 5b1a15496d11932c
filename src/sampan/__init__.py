"""sampan: a Docker-compatible container engine in Python.

>>> import sampan
>>> with sampan.Engine() as engine:
...     print(engine.containers.run("base", ["uname", "-a"]).stdout)

Names are resolved when they are first used (PEP 562): `import sampan` must stay cheap, because the
command line and every container's shim import this package on their way to something else.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.client.engine import connect as connect
    from sampan.engine.engine import Engine as Engine
    from sampan.errors import SampanError as SampanError

__version__ = "0.1.0"
__all__ = ["Engine", "SampanError", "__version__", "connect"]

_HOMES = {"Engine": "sampan.engine.engine", "SampanError": "sampan.errors", "connect": "sampan.client.engine"}


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'sampan' has no attribute {name!r}")
    # __import__ and not importlib: importlib.import_module would be one more module on every start.
    return getattr(__import__(home, fromlist=[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
