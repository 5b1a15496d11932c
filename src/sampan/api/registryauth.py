"""X-Registry-Auth and X-Registry-Config: whom a client is to registries. Base64url of JSON, with or without padding.

What cannot be read is nobody, as for Docker: clients send all kinds of things here, and most images need no name. Its secrets are never
written anywhere, not into a log either.
"""

from __future__ import annotations

import base64
import binascii

from sampan import jsontext
from sampan.engine.registries import Login
from sampan.errors import InvalidParameter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

AUTH, CONFIG = "x-registry-auth", "x-registry-config"


def login(header: str) -> Login:
    """X-Registry-Auth: an AuthConfig."""
    return login_of(_decoded(header))


def logins(header: str) -> dict[str, Login]:
    """X-Registry-Config: AuthConfigs by registry."""
    found = {server: login_of(entry) for server, entry in _decoded(header).items() if isinstance(entry, dict)}
    return {server: one for server, one in found.items() if one.credential}


def login_of(entry: dict[str, Any]) -> Login:
    """An AuthConfig. Raises InvalidParameter for one whose `auth` is none."""
    name, password = _text(entry, "username"), _text(entry, "password")
    if not name and (auth := _text(entry, "auth")):
        try:
            name, colon, password = base64.b64decode(auth).decode("utf-8").partition(":")
        except (binascii.Error, ValueError):
            colon = ""
        if not colon:
            raise InvalidParameter("invalid auth configuration: its auth is not base64 of NAME:PASSWORD")
    return Login(name, password, _text(entry, "identitytoken"))


def _text(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _decoded(header: str) -> dict[str, Any]:
    try:
        # Some clients use the other alphabet, and some leave the padding away.
        data = header.strip().translate(str.maketrans("+/", "-_")).rstrip("=")
        found = jsontext.loads(base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))) if data else {}
    except (binascii.Error, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
