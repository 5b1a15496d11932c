"""Names of images as the API's queries have them: a repository, and a tag beside it."""

from __future__ import annotations

from sampan.oci import reference


def split(name: str) -> tuple[str, str]:
    """A repository and its tag, "" for none; a name with a digest is whole. Raises InvalidParameter."""
    if not name:
        return "", ""
    found = reference.parse(name)
    if found.digest or not found.tag:
        return name, ""
    return name.rpartition(":")[0], found.tag


def platform(text: str) -> dict[str, str]:
    """os/architecture[/variant] as an object. Raises InvalidParameter."""
    from sampan.oci import platform as platforms

    found = platforms.parse(text)
    parts = str(found).split("/")
    return dict(zip(("os", "architecture", "variant"), parts, strict=False))
