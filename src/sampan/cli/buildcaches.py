"""`build --cache-from` and `--cache-to`, as buildx has them: `type=local,src=DIRECTORY` and `type=local,dest=DIRECTORY`."""

from __future__ import annotations

import os

from sampan.cli.output import Failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sampan.engine.buildcacheplaces import CacheSource, CacheTarget

_FROM = ("type", "src", "digest", "tag")
_TO = ("type", "dest", "mode", "compression", "tag", "ignore-error")
_TRUE, _FALSE = ("1", "true"), ("0", "false")


def cache_from(text: str) -> CacheSource:
    """Raises `Failure`."""
    from sampan.engine.buildcacheplaces import CacheSource

    fields = _fields("cache-from", text, _FROM)
    path = _needed("cache-from", text, fields, "src")
    if digest := fields.get("digest", ""):
        _check_digest(text, digest)
    return CacheSource(path, digest, fields.get("tag") or "latest")


def cache_to(text: str) -> CacheTarget:
    """Raises `Failure`."""
    from sampan.engine.buildcacheplaces import COMPRESSIONS, CacheTarget

    fields = _fields("cache-to", text, _TO)
    path = _needed("cache-to", text, fields, "dest")
    mode, compression = fields.get("mode", "min"), fields.get("compression", "gzip")
    if mode not in ("min", "max"):
        raise _invalid("cache-to", text, f"mode is min or max, not {mode!r}")
    if compression not in COMPRESSIONS:
        raise _invalid("cache-to", text, f"compression is one of {', '.join(COMPRESSIONS)}, not {compression!r}")
    ignored = fields.get("ignore-error", "false").lower()
    if ignored not in (*_TRUE, *_FALSE):
        raise _invalid("cache-to", text, f"ignore-error is true or false, not {ignored!r}")
    return CacheTarget(path, mode == "max", compression, fields.get("tag") or "latest", ignored in _TRUE)


def _fields(flag: str, text: str, known: tuple[str, ...]) -> dict[str, str]:
    import csv

    fields: dict[str, str] = {}
    for word in next(csv.reader([text]), []):
        key, equals, value = word.partition("=")
        # The name of an image alone, as the classic builder took it, is buildx's type=registry.
        fields[key.strip().lower() if equals else "ref"] = value if equals else word
    kind = fields.get("type") or ("registry" if "ref" in fields else "")
    if kind != "local":
        what = f"type={kind} is not supported" if kind else "type is required"
        raise _invalid(flag, text, f"{what}: type=local, a directory, is there")
    for key in fields:
        if key not in known:
            raise _invalid(flag, text, f"{key!r} is not supported: {', '.join(known)} are there")
    return fields


def _needed(flag: str, text: str, fields: dict[str, str], key: str) -> str:
    if not fields.get(key):
        raise _invalid(flag, text, f"{key} is required: a directory")
    return os.path.abspath(fields[key])


def _check_digest(text: str, digest: str) -> None:
    from sampan.errors import InvalidParameter
    from sampan.oci import digest as digests

    try:
        digests.sha256_hex(digest)
    except InvalidParameter as e:
        raise _invalid("cache-from", text, str(e)) from None


def _invalid(flag: str, text: str, reason: str) -> Failure:
    return Failure(f"ERROR: invalid --{flag} {text!r}: {reason}")
