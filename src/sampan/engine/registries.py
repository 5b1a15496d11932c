"""Registries as the command line knows them: `login`, `logout`, `manifest inspect`; and who gives others a client."""

from __future__ import annotations

import threading
from weakref import WeakSet

from sampan import jsontext
from sampan.errors import Forbidden, InvalidParameter, SampanError, Unauthorized
from sampan.oci import image as documents
from sampan.oci import reference
from sampan.oci.image import Index
from sampan.registry import pull as fetching
from sampan.registry.client import Client, Patience, Repository
from sampan.registry.client import Stopped as Stopped
from sampan.registry.credentials import Credentials, account_of
from sampan.registry.endpoint import HUB_ACCOUNT, Settings
from sampan.registry.failures import Refused
from sampan.registry.tokens import Credential
from sampan.registry.transport import Transport
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, TypeVar

    from sampan.engine.config import Config
    from sampan.oci.image import Descriptor
    from sampan.oci.platform import Platform
    from sampan.oci.reference import Reference
    from sampan.registry.client import Connection

    Answer = TypeVar("Answer")

HUB = "docker.io"


class LoggedIn(Struct):
    """What came of a login: `stored_in` is the file that holds the credentials unencrypted, "" if a helper has them."""

    status: str
    stored_in: str = ""


class Login(Struct):
    """Who somebody is to a registry: a name with a password, or an identity token that it gave him."""

    username: str = ""
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Login({self.username!r})"  # never the secret

    @property
    def credential(self) -> Credential:
        return Credential(self.username, self.password, self.identity_token)


class Registries:
    """`engine.registries`."""

    def __init__(self, config: Config, accounts: Mapping[str, Credential] | None = None) -> None:
        """accounts: who we are to whom; without them that is what the caller's configuration file says."""
        self._config = config
        self._accounts = accounts
        self._settings = Settings(config.mirrors, config.insecure_registries, timeout=config.registry_timeout)
        self.downloads = config.max_concurrent_downloads
        self.uploads = config.max_concurrent_uploads
        self._lock = threading.Lock()
        self._asking: WeakSet[Patience] = WeakSet()
        self._stopped = False

    def as_user(self, logins: Mapping[str, Login]) -> Registries:
        """The same registries for somebody else: who sends his credentials along. logins: by the registry's name.

        Where he says nothing he is nobody: never who this process is. Raises `InvalidParameter` for what is no registry.
        """
        accounts = {account_of(domain_of(server)): login.credential for server, login in logins.items()}
        return Registries(self._config, accounts)

    def again(self) -> Registries:
        """The same for the same user, to be stopped alone."""
        return Registries(self._config, self._accounts)

    def client(self, domain: str, mirrors: bool = False, insecure: bool = False) -> Client:
        """Whoever asks a registry, with the caller's credentials. `mirrors`: they are asked first."""
        client = Client(domain, self._settings, self._credential, mirrors, insecure)
        self._add(client.patience)
        return client

    def _add(self, patience: Patience) -> None:
        """Have `stop` end what waits by it."""
        with self._lock:
            self._asking.add(patience)
            stopped = self._stopped
        if stopped:
            patience.stop()

    def stop(self) -> None:
        """End what is asked of these registries, also while they say nothing: it raises `Stopped`. From any thread; idempotent."""
        with self._lock:
            self._stopped = True
            asking = list(self._asking)
        for patience in asking:
            patience.stop()

    def check_stopped(self) -> None:
        """Raises `Stopped` after `stop`."""
        if self._stopped:
            raise Stopped

    def _credential(self, account: str) -> Credential:
        if self._accounts is None:
            return Credentials().get(account)
        return self._accounts.get(account, Credential())

    def check(self, server: str, login: Login) -> tuple[str, str]:
        """Try credentials and keep nothing: what the registry says, and an identity token if it gives one. Raises as `login`."""
        domain = domain_of(server)
        if not login.credential:
            raise InvalidParameter("username and password are needed")
        return self._tried(domain, login.credential)[::-1]

    def search(
        self, term: str, limit: int = 25, filters: Mapping[str, Sequence[str]] | None = None
    ) -> list[dict[str, Any]]:
        """`GET /images/search`: what docker.io's index, or that of the registry which the term begins with, finds. See `engine.search`."""
        from sampan.engine.search import search

        transport = Transport(self._settings)
        patience = Patience(transport.hang_up)
        self._add(patience)
        return search(term, limit, filters or {}, self._settings, self._credential, transport)

    def accounts(self) -> list[str]:
        """The registries that something is kept for, but docker.io, which needs no name. Raises `InvalidParameter`."""
        return [account for account in Credentials().accounts() if account != HUB_ACCOUNT]

    def known(self, server: str) -> str:
        """The name of the user who is logged in, "" if nobody is, or by a token. Raises as `login`."""
        return Credentials().get(account_of(domain_of(server))).username

    def login(self, server: str, username: str, password: str) -> LoggedIn:
        """Try a name and a password, and keep them if they are good; without a name those that are kept already.

        Raises `Unauthorized` if the registry will not have them, `Unavailable`, `InvalidParameter`.
        """
        domain = domain_of(server)
        kept = Credentials()
        account = account_of(domain)
        credential = Credential(username, password) if username else kept.get(account)
        if not credential:
            raise InvalidParameter("username and password are needed")
        token, status = self._tried(domain, credential)
        if token:
            credential = Credential(credential.username, "", token)
        in_file = kept.set(account, credential)
        return LoggedIn(status, kept.path if in_file else "")

    def _tried(self, domain: str, credential: Credential) -> tuple[str, str]:
        try:
            return self.client(domain).login(credential)
        except Refused as e:
            if e.status in (401, 403):
                raise Unauthorized(f"login attempt to {domain} failed with status: {e.status}: {e}") from None
            raise

    def logout(self, server: str) -> bool:
        """Forget what is kept for a registry. Whether there was something. Raises `InvalidParameter`, `System`."""
        return Credentials().erase(account_of(domain_of(server)))

    def tags(self, name: Reference) -> list[str]:
        """All tags of a repository. Raises as `manifest`."""
        return self._asked(name, self.client(name.domain, mirrors=True), lambda repository: repository.tags())

    def manifest(self, text: str, insecure: bool = False) -> fetching.Document:
        """What a name leads to in its registry, as it is there. `insecure`: whatever its certificate says.

        Raises `NotFound` in Docker's words, `Unavailable`, `InvalidParameter`.
        """
        name = reference.parse(text).canonical()
        client = self.client(name.domain, insecure=insecure)
        return self._asked(name, client, lambda found: fetching.manifest(found, name.digest or name.tag))

    def described(self, text: str, insecure: bool = False) -> dict[str, Any] | list[dict[str, Any]]:
        """As `docker manifest inspect -v` shows it: an image with its platform, or those of an index. Raises as `manifest`."""
        name = reference.parse(text).canonical()
        client = self.client(name.domain, insecure=insecure)
        return self._asked(name, client, lambda found: _described(found, name))

    def referrers(self, text: str, artifact_type: str = "", insecure: bool = False) -> dict[str, Any]:
        """What its registry has about what a name leads to, as an index: signatures, bills of materials; of one type if that is said.

        Raises as `manifest`.
        """
        name = reference.parse(text).canonical()
        client = self.client(name.domain, insecure=insecure)

        def asked(repository: Repository) -> list[dict[str, Any]]:
            from sampan.registry.referrers import referrers

            digest = name.digest or fetching.manifest(repository, name.tag).target.digest
            return referrers(repository, digest, artifact_type)

        return {"schemaVersion": 2, "mediaType": documents.OCI_INDEX, "manifests": self._asked(name, client, asked)}

    def distribution(self, text: str) -> dict[str, Any]:
        """`GET /distribution/{name}/json`: what a name leads to in its registry, and the platforms that it is for.

        Raises as `manifest`; Unauthorized where who we are is not enough.
        """
        name = reference.parse(text).canonical()
        client = self.client(name.domain, mirrors=True)
        return self._asked(name, client, lambda found: _distribution(found, name), _of_distribution)

    def _asked(
        self,
        name: Reference,
        client: Client,
        question: Callable[[Repository], Answer],
        translate: Callable[[SampanError, Connection, Reference], SampanError] | None = None,
    ) -> Answer:
        """translate: how a failure is told, unless it is as that of a pull."""
        from sampan.engine.pulling import translated

        for connection in client.connections():
            try:
                return question(Repository(connection, name.path))
            except SampanError as e:
                if not connection.endpoint.mirror:
                    raise (translate or translated)(e, connection, name) from None
        raise AssertionError("the last endpoint is no mirror")


def _of_distribution(error: SampanError, connection: Connection, name: Reference) -> SampanError:
    """Who is not let in is told so, unlike one who pulls, and otherwise what the registry said."""
    from sampan.engine.pulling import translated

    if isinstance(error, Refused) and error.status in (401, 403):
        if connection.authenticator.wants_basic and not connection.authenticator.credential:
            return Unauthorized(f"{connection.endpoint.host}: no basic auth credentials")
        kind = Unauthorized if error.status == 401 else Forbidden
        return kind(error.words or "denied: requested access to the resource is denied")
    return translated(error, connection, name)


def _distribution(repository: Repository, name: Reference) -> dict[str, Any]:
    top = fetching.manifest(repository, name.digest or name.tag)
    parsed = documents.parse_manifest(top.data, top.target.media_type)
    if isinstance(parsed, Index):
        platforms = [entry.platform for entry in parsed.manifests if entry.platform is not None]
    else:
        config = fetching.document(repository, parsed.config, documents.CONFIG_LIMIT)
        platforms = [documents.platform_of(documents.load(config, "image config", documents.CONFIG_LIMIT))]
    return {"Descriptor": top.target.document(), "Platforms": [_shown_platform(platform) for platform in platforms]}


def _shown_platform(platform: Platform) -> dict[str, str]:
    shown = {"architecture": platform.architecture, "os": platform.os}
    return {**shown, "variant": platform.variant} if platform.variant else shown


def _described(repository: Repository, name: Reference) -> dict[str, Any] | list[dict[str, Any]]:
    top = fetching.manifest(repository, name.digest or name.tag)
    parsed = documents.parse_manifest(top.data, top.target.media_type)
    if isinstance(parsed, Index):
        entries = [entry for entry in parsed.manifests if entry.media_type in documents.MANIFESTS]
        found = [(entry, fetching.manifest(repository, entry.digest, entry).data) for entry in entries]
        return [_shown(f"{name}@{entry.digest}", entry, data) for entry, data in found]
    config = fetching.document(repository, parsed.config, documents.CONFIG_LIMIT)
    platform = documents.platform_of(documents.load(config, "image config", documents.CONFIG_LIMIT))
    return _shown(str(name), top.target.replace(platform=platform), top.data)


def _shown(name: str, target: Descriptor, data: bytes) -> dict[str, Any]:
    import base64

    kind = "OCIManifest" if target.media_type == documents.OCI_MANIFEST else "SchemaV2Manifest"
    raw = base64.b64encode(data).decode("ascii")
    return {"Ref": name, "Descriptor": target.document(), "Raw": raw, kind: jsontext.loads(data)}


def domain_of(server: str) -> str:
    """The registry that a login means: a host with or without a scheme and a path; docker.io if nothing is said.

    Raises `InvalidParameter` for what is no host.
    """
    text = server.strip()
    for scheme in ("https://", "http://"):
        text = text.removeprefix(scheme)
    text = text.partition("/")[0]
    if text in ("", "index.docker.io", "docker.io", "registry-1.docker.io"):
        return HUB
    try:
        parsed = reference.parse(f"{text}/x" if "." in text or ":" in text or text == "localhost" else f"{text}:443/x")
    except InvalidParameter:
        raise InvalidParameter(f"{server!r} is no registry: HOST or HOST:PORT is") from None
    if not parsed.domain:
        raise InvalidParameter(f"{server!r} is no registry: HOST or HOST:PORT is")
    return text
