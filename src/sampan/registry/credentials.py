"""Docker's config.json: who we are to which registry, in the file itself or with a credential helper.

The file is Docker's own (`$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`): who has logged in with one is
known to the other. A helper is the program `docker-credential-NAME` on the caller's PATH; what it is asked and what it
answers goes through pipes (docker-credential-helpers, "Development"), never through arguments, which `ps` shows.
"""

from __future__ import annotations

import base64
import binascii
import os
import subprocess

from sampan import jsontext
from sampan.errors import InvalidParameter, System
from sampan.registry.endpoint import HUB_ACCOUNT
from sampan.registry.failures import clean
from sampan.registry.tokens import Credential

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMIT = 4 << 20
_HELPER_SECONDS = 60
_NOT_FOUND = "credentials not found in native keychain"
_TOKEN_USER = "<token>"


def default_path() -> str:
    """Where the file is for whoever runs this."""
    directory = os.environ.get("DOCKER_CONFIG") or os.path.join(os.path.expanduser("~"), ".docker")
    return f"{directory}/config.json"


def account_of(domain: str) -> str:
    """The key by which a registry's credentials are kept."""
    return HUB_ACCOUNT if domain in ("docker.io", "index.docker.io", "registry-1.docker.io") else domain


class Credentials:
    """The credentials of one configuration file. Looks at the file at every call."""

    def __init__(self, path: str | None = None) -> None:
        self.path = path or default_path()

    def get(self, account: str) -> Credential:
        """Who we are to an account, nobody if it is not there. Raises `InvalidParameter` for a file that cannot be read, `System` for a helper that fails."""
        config = self._read()
        if helper := _helper(config, account):
            return _ask(helper, account)
        auths = _object(config, "auths")
        entry = auths.get(account)
        if not isinstance(entry, dict):
            # Older files have URLs: https://host/v1/ is host.
            wanted = _host(account)
            entry = next((e for key, e in auths.items() if _host(key) == wanted and isinstance(e, dict)), {})
        return self._entry(entry)

    def accounts(self) -> list[str]:
        """The accounts that the file knows, also those that a helper keeps. Raises `InvalidParameter`."""
        return sorted(_object(self._read(), "auths"))

    def set(self, account: str, credential: Credential) -> bool:
        """Keep a credential. Whether it is in the file, unencrypted. Raises as `get`."""
        config = self._read()
        if helper := _helper(config, account):
            name = _TOKEN_USER if credential.identity_token else credential.username
            secret = credential.identity_token or credential.password
            _run(helper, "store", jsontext.dumps({"ServerURL": account, "Username": name, "Secret": secret}))
            # Docker keeps the account without its secret, for who lists them.
            config["auths"] = {**_object(config, "auths"), account: {}}
            self._write(config)
            return False
        pair = f"{credential.username}:{'' if credential.identity_token else credential.password}"
        entry = {"auth": base64.b64encode(pair.encode("utf-8", "surrogateescape")).decode("ascii")}
        if credential.identity_token:
            entry["identitytoken"] = credential.identity_token
        config["auths"] = {**_object(config, "auths"), account: entry}
        self._write(config)
        return True

    def erase(self, account: str) -> bool:
        """Forget a credential. Whether there was one. Raises as `get`."""
        config = self._read()
        auths = _object(config, "auths")
        known = [key for key in auths if key == account or _host(key) == _host(account)]
        if helper := _helper(config, account):
            had = bool(_ask(helper, account)) or bool(known)
            if had:
                _run(helper, "erase", account.encode("utf-8"))
        elif not known:
            return False
        else:
            had = True
        if known:
            config["auths"] = {key: value for key, value in auths.items() if key not in known}
            self._write(config)
        return had

    def _entry(self, entry: dict[str, Any]) -> Credential:
        name, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if auth := entry.get("auth"):
            try:
                pair = base64.b64decode(str(auth), validate=True).decode("utf-8", "surrogateescape")
            except (binascii.Error, ValueError):
                raise InvalidParameter(f"{self.path}: an auth is not base64: log in again") from None
            name, colon, password = pair.partition(":")
            if not colon:
                raise InvalidParameter(f"{self.path}: Invalid auth configuration file: log in again")
            password = password.strip("\0")
        return Credential(name, password, str(entry.get("identitytoken") or ""))

    def _read(self) -> dict[str, Any]:
        try:
            with open(self.path, "rb") as file:
                data = file.read(_LIMIT + 1)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except OSError as e:
            raise InvalidParameter(f"{self.path} cannot be read: {(e.strerror or str(e)).lower()}") from None
        try:
            found = jsontext.loads(data) if data.strip() else {}
        except ValueError as e:
            raise InvalidParameter(f"{self.path} is not valid JSON: {e}") from None
        if len(data) > _LIMIT or not isinstance(found, dict):
            raise InvalidParameter(f"{self.path} is no configuration file of Docker's")
        return found

    def _write(self, config: dict[str, Any]) -> None:
        from sampan.kernel.files import write_atomic

        path = os.path.realpath(self.path)  # It may be a link into a repository of somebody's settings.
        try:
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            write_atomic(path, _indented(config))
        except OSError as e:
            raise System(f"write {path}: {(e.strerror or str(e)).lower()}") from None


def _indented(config: dict[str, Any]) -> bytes:
    import json

    return json.dumps(config, indent="\t", ensure_ascii=False).encode("utf-8", "surrogateescape")


def _object(config: dict[str, Any], key: str) -> dict[str, Any]:
    found = config.get(key)
    return found if isinstance(found, dict) else {}


def _host(account: str) -> str:
    return account.removeprefix("https://").removeprefix("http://").partition("/")[0]


def _helper(config: dict[str, Any], account: str) -> str:
    """The helper that keeps an account, "" if the file does. Raises `InvalidParameter` for one that is no name."""
    helpers = _object(config, "credHelpers")
    name = helpers.get(account) or helpers.get(_host(account)) or config.get("credsStore") or ""
    if not isinstance(name, str) or "/" in name or "\0" in name:
        raise InvalidParameter(f"{name!r} is no name of a credential helper")
    return name


def _ask(helper: str, account: str) -> Credential:
    answer = _run(helper, "get", account.encode("utf-8"))
    if answer is None:
        return Credential()
    try:
        found = jsontext.loads(answer)
        name, secret = str(found["Username"]), str(found["Secret"])
    except (ValueError, KeyError, TypeError):
        raise System(f"docker-credential-{helper} get: the answer is not what a credential helper says") from None
    if name == _TOKEN_USER:
        return Credential("", "", secret)
    return Credential(name, secret)


def _run(helper: str, verb: str, text: bytes) -> bytes | None:
    """The answer of a helper, None for "not there". Raises `System`, which never tells what was asked or answered."""
    program = f"docker-credential-{helper}"
    try:
        done = subprocess.run([program, verb], input=text, capture_output=True, timeout=_HELPER_SECONDS)
    except FileNotFoundError:
        raise System(
            f'error getting credentials - err: exec: "{program}": executable file not found in $PATH'
        ) from None
    except subprocess.TimeoutExpired:
        raise System(f"{program} {verb}: no answer within {_HELPER_SECONDS} s") from None
    except OSError as e:
        raise System(f"{program} {verb}: {(e.strerror or str(e)).lower()}") from None
    if done.returncode == 0:
        return done.stdout
    told = (done.stdout.strip() or done.stderr.strip()).decode("utf-8", "replace")
    if verb == "get" and told == _NOT_FOUND:
        return None
    if verb == "erase" and told == _NOT_FOUND:
        return b""
    raise System(f"error getting credentials - err: exit status {done.returncode}, out: `{clean(told)}`")
