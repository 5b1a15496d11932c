"""`build --explain-cache`: why a step was not found in the cache, told by what it was made of when it was done before.

A step's ingredients (`Ingredients`) are kept beside its entry. Of those kept the explanation takes the nearest: the ones on the same files first, then
the ones with the same words. What differs is told by name: an argument, a file and what of it, a flag, the base.
"""

from __future__ import annotations

from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Any

_SHOWN = 10
"""Differing files or arguments that are named; the others are counted."""
_HASH = 16  # digits of a digest that are kept
_LONGEST = 80  # characters of a value that are shown


class Ingredients(Struct):
    """What a step was made of.

    title: the instruction. base: the id of the image below it, date and platform of it. before: the key of its files. depends: what else decides its key.
    """

    title: str
    base: str
    date: int
    platform: str
    before: str
    depends: dict[str, Any]

    def kept(self) -> Ingredients:
        """In the form in which it is kept: digests are shortened, for they are compared only."""
        return self.replace(depends=_shortened(self.depends))

    @property
    def kind(self) -> str:
        """Of steps of one kind only are two compared."""
        return next((kind for kind in ("run", "copy", "workdir") if kind in self.depends), "")


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shortened(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shortened(one) for one in value]
    if isinstance(value, str) and len(value) > 2 * _HASH:
        above, space, last = value.rpartition(" ")
        if len(last) == 64 and last.isalnum():
            return above + space + last[:_HASH]
    return value


def explain(now: Ingredients, known: Iterable[Ingredients], again: str) -> list[str]:
    """Why `now` was not found, a line for each reason. known: what was kept, the latest first. again: the step before it in its stage that was done again, "" for none."""
    alike = [one for one in known if one.kind == now.kind]
    kept = now.kept()
    same_files = [one for one in alike if one.before == now.before]
    same_words = [one for one in alike if one.title == now.title]
    if same_files:
        # One with the same words if there is one; a changed command has no other than its place.
        same = [one for one in same_files if one.title == now.title] or same_files
        return _limited(_nearest(same, kept)[1]) or ["its result is not in the cache any more"]
    reasons = [f"it begins with other files: {again} was done again"] if again else []
    if not same_words:
        return reasons or ["it was not done before on these files, or what it came to was removed"]
    nearest, differences = _nearest(same_words, kept)
    if not again:
        reasons = list(_of_base(nearest, now))
    return [*reasons, *_limited(differences)]


def _nearest(candidates: Sequence[Ingredients], kept: Ingredients) -> tuple[Ingredients, list[str]]:
    """The one that differs in least, of those the latest, and what it differs in."""
    found = [(one, list(_differences(one, kept))) for one in candidates]
    return min(found, key=lambda one: len(one[1]))


def _limited(reasons: list[str]) -> list[str]:
    left = len(reasons) - _SHOWN
    return [*reasons[:_SHOWN], f"and {left} more"] if left > 0 else reasons


def _of_base(old: Ingredients, new: Ingredients) -> Iterator[str]:
    if old.base != new.base:
        yield f"the base is another image: {_short(old.base)} before, {_short(new.base)} now"
    if old.platform != new.platform:
        yield f"the platform was {old.platform}, and is {new.platform}"
    if old.base == new.base and old.date != new.date:
        yield f"SOURCE_DATE_EPOCH was {old.date}, and is {new.date}"
    if (old.base, old.platform, old.date) == (new.base, new.platform, new.date):
        yield "it begins with other files: the steps before it are others"


def _short(image: str) -> str:
    return image.removeprefix("sha256:")[:12] or "none (scratch)"


def _differences(old: Ingredients, new: Ingredients) -> Iterator[str]:
    before, now = old.depends, new.depends
    if new.kind == "copy":
        yield from _of_copy(before["copy"], now["copy"])
    elif new.kind == "workdir":
        yield from _changed("directory", before["workdir"], now["workdir"])
    else:
        yield from _of_run(before, now)


def _of_run(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    was, is_ = _pairs(before["environment"]), _pairs(now["environment"])
    yield from _of_mapping("variable ", was, is_)
    if was == is_ and before["environment"] != now["environment"]:
        yield "the variables are in another order"
    old, new = dict(before["run"]), dict(now["run"])
    yield from _changed("command", " ".join(old.pop("Cmd", ())), " ".join(new.pop("Cmd", ())))
    yield from _of_mapping("", old.pop("HostConfig", {}), new.pop("HostConfig", {}))
    yield from _of_mapping("", old, new)
    yield from _changed("script", before.get("script", ""), now.get("script", ""))
    yield from _of_mounts(before.get("mounts") or [], now.get("mounts") or [])


def _of_mounts(before: Sequence[Any], now: Sequence[Any]) -> Iterator[str]:
    old = {str(mount.get("target")): (mount, content) for mount, content in before}
    new = {str(mount.get("target")): (mount, content) for mount, content in now}
    for target in sorted({*old, *new}):
        if target not in old or target not in new:
            yield f"mount of {target}: {'added' if target in new else 'gone'}"
            continue
        (was, had), (is_, has) = old[target], new[target]
        if was != is_:
            yield f"mount of {target}: its options were changed"
        if isinstance(had, dict) and isinstance(has, dict):
            yield from _of_files(f"mount of {target}: ", had, has)
        elif had != has:
            yield f"mount of {target}: the files of the stage or image are others"


def _of_copy(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    yield from _changed("instruction", before["verb"].upper(), now["verb"].upper())
    yield from _changed("destination", before["to"][0], now["to"][0])
    for name, old, new in zip(
        ("--chown", "--chmod", "--parents", "--exclude", "--unpack"), before["how"], now["how"], strict=False
    ):
        yield from _changed(name, old, new)
    yield from _of_files("", _files(before["content"]), _files(now["content"]))


def _files(content: Sequence[Any]) -> dict[str, str]:
    """All names of a COPY with their digests: those of sources, and heredocs with their text."""
    found: dict[str, str] = {}
    for one in content:
        if len(one) == 2:
            found[f"<<{one[0]}"] = one[1]
            continue
        name, is_directory, digests = one
        for path, digest in digests.items():
            inside = path.partition("/")[2] if is_directory and path.startswith(f"{name}/") else path
            found[f"{name}/{inside}" if is_directory and name else inside] = digest
    return found


def _of_files(where: str, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        if name not in old:
            yield f"{where}{name}: added"
        elif name not in new:
            yield f"{where}{name}: gone"
        elif old[name] != new[name]:
            yield f"{where}{name}: {_what_changed(old[name], new[name])}"


def _what_changed(old: str, new: str) -> str:
    """Of two digests (`buildfiles`: "KIND+MODE UID:GID DIGEST")."""
    before, now = old.split(" "), new.split(" ")
    if len(before) != 3 or len(now) != 3:
        return "its content was changed"
    parts = []
    if before[0] != now[0]:
        kinds = before[0][:1] == now[0][:1]
        parts.append(f"its mode was {before[0][1:]}, and is {now[0][1:]}" if kinds else "it is of another kind")
    if before[1] != now[1]:
        parts.append(f"its owner was {before[1]}, and is {now[1]}")
    if before[2] != now[2]:
        parts.append("its content was changed")
    return ", ".join(parts)


def _pairs(environment: Sequence[str]) -> dict[str, str]:
    return {name: value for name, _, value in (one.partition("=") for one in environment)}


def _of_mapping(prefix: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        yield from _changed(f"{prefix}{name}", old.get(name), new.get(name))


def _changed(what: str, old: Any, new: Any) -> Iterator[str]:
    if old != new:
        yield f"{what} was {_value(old)}, and is {_value(new)}"


def _value(value: Any) -> str:
    if value is None:
        return "not set"
    text = f'"{value}"' if isinstance(value, str) else str(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
