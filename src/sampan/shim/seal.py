"""Closes the import system: from here on no Python file is looked for, anywhere.

After a process has entered a container's root, `import` would look for modules there and run what the image put
in their place, as root (class CVE-2019-14271). So all that the shim and its children will ever run is imported
first (see __main__), and then there is nothing left that could import.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PRELOADED_CODECS = ("utf-8", "ascii", "latin-1")


def forget_start_up() -> None:
    """Let go of what the interpreter brings for imports that a shim never makes: from zip files, of codecs with other names.

    A hundredth of a shim's memory, given back before the imports that then fill it.
    """
    if not any(type(finder).__name__ == "zipimporter" for finder in sys.path_importer_cache.values()):
        sys.path_hooks[:] = [hook for hook in sys.path_hooks if getattr(hook, "__name__", "") != "zipimporter"]
        sys.modules.pop("zipimport", None)
    sys.modules["encodings.aliases"].aliases.clear()
    # The abstract classes that `os` brings along, but for those that its environment is one of.
    needed = type(os.environ).__mro__
    for module in (sys.modules["_collections_abc"], os):
        for name, value in list(vars(module).items()):
            if isinstance(value, type) and value.__module__ == "collections.abc" and value not in needed:
                delattr(module, name)


def forget_documentation() -> None:
    """Let go of docstrings and annotations, which nobody can read in a shim: a thirtieth of its memory.

    To be called between imports, too: what the next one needs fills what the one before leaves. What is frozen into the
    interpreter is not worth a look.
    """
    for name, module in list(sys.modules.items()):
        if module.__doc__ is None or name in ("_ctypes", "sampan.kernel.libc"):
            continue  # done before; and Python 3.12 crashes in the next foreign call when one of its types was changed
        module.__doc__ = None
        if name.startswith("sampan"):
            for value in vars(module).values():
                if type(value) is _FUNCTION:
                    _forget_function(value)
                elif isinstance(value, type) and value.__module__ == name:
                    _forget_class(value)


def _forget_class(value: type) -> None:
    value.__doc__ = None
    for member in vars(value).values():
        function = member.fget if isinstance(member, property) else getattr(member, "__func__", member)
        if type(function) is _FUNCTION:
            _forget_function(function)


def _forget_function(function: Any) -> None:
    del function.__annotations__
    code = function.__code__
    if function.__doc__ is not None and code.co_consts[0] is function.__doc__:
        function.__code__ = code.replace(co_consts=(None, *code.co_consts[1:]))
        function.__doc__ = None


_FUNCTION = type(forget_start_up)


def is_sealed() -> bool:
    """Whether `seal` was called, in this process or in one that it was forked from."""
    return not sys.meta_path


def seal() -> None:
    """Make every further import of a module that is not loaded yet an ImportError. Cannot be undone."""
    for name in PRELOADED_CODECS:
        "".encode(name)  # a codec is a module too, found by name at its first use
    sys.path_importer_cache.clear()
    sys.path_hooks.clear()
    sys.meta_path.clear()
    sys.path.clear()
