"""Closes the import system: from here on no Python file is looked for, anywhere.

After a process has entered a container's root, `import` would look for modules there and run what the image put
in their place, as root (class CVE-2019-14271). So all that the shim and its children will ever run is imported
first (see __main__), and then there is nothing left that could import.
"""

from __future__ import annotations

import sys

PRELOADED_CODECS = ("utf-8", "ascii", "latin-1")


def forget_start_up() -> None:
    """Let go of what the interpreter brings for imports that a shim never makes: from zip files, of codecs with other names.

    A hundredth of a shim's memory, given back before the imports that then fill it.
    """
    if not any(type(finder).__name__ == "zipimporter" for finder in sys.path_importer_cache.values()):
        sys.path_hooks[:] = [hook for hook in sys.path_hooks if getattr(hook, "__name__", "") != "zipimporter"]
        sys.modules.pop("zipimport", None)
    sys.modules["encodings.aliases"].aliases.clear()


def forget_documentation() -> None:
    """Let go of the docstrings of modules and classes, which nobody can read in a shim: a hundredth of its memory."""
    for name, module in list(sys.modules.items()):
        if name in ("_ctypes", "sampan.kernel.libc"):
            continue  # Python 3.12 crashes in the next foreign call when one of its types was changed
        module.__doc__ = None
        for value in vars(module).values():
            if isinstance(value, type) and value.__flags__ & _HEAP_TYPE and value.__doc__:
                try:
                    value.__doc__ = None
                except (AttributeError, TypeError):
                    continue  # written in C: it costs nothing


_HEAP_TYPE = 1 << 9
"""Py_TPFLAGS_HEAPTYPE: a class that was made at run time."""


def seal() -> None:
    """Make every further import of a module that is not loaded yet an ImportError. Cannot be undone."""
    for name in PRELOADED_CODECS:
        "".encode(name)  # a codec is a module too, found by name at its first use
    sys.path_importer_cache.clear()
    sys.path_hooks.clear()
    sys.meta_path.clear()
    sys.path.clear()
