"""`pull`: an image out of a registry, each of its bytes handled once.

First the documents, checked in memory: nothing is written until it is known what the image is. Then its layers, several at
once: a thread for each writes what comes into a file that has the blob's digest for a name (`store.ingest`) and hashes
it; behind it, in this thread and in the layers' order, the same bytes are decompressed, hashed and unpacked as they
come. A layer gets its name when both digests were right, then its blob. The record comes last.

The store's lock is not held while a network is waited for: what is being brought in is held by its names, so that a
collection can run beside it. What an interrupted pull has got so far stays, for the next one to go on from and for a
collection to remove; what fails for good leaves nothing.
"""

from __future__ import annotations

import threading

from sampan.engine.importing import told
from sampan.errors import InvalidParameter, NotFound, SampanError, System
from sampan.kernel import clock, process
from sampan.oci import image as documents
from sampan.oci import platform as platforms
from sampan.oci import reference
from sampan.oci.image import Index, Manifest
from sampan.registry import pull as fetching
from sampan.registry.client import Repository, Stopped
from sampan.registry.failures import Refused, Unreachable
from sampan.store.decompress import decompress
from sampan.store.images import NameRecord
from sampan.store.layers import DigestStream
from sampan.structs import Struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol

    from sampan.engine.images import Content, Image, Lock, Names, Snapshotter
    from sampan.engine.registries import Registries
    from sampan.oci.image import Descriptor, ImageConfig
    from sampan.oci.platform import Platform
    from sampan.oci.reference import Reference
    from sampan.registry.client import Client, Connection
    from sampan.store.ingest import Partial

    Report = Callable[[str, str, int, int], None]

    class Publisher(Protocol):
        def enter(self, record: NameRecord, names: Sequence[Reference]) -> Image: ...
        def collect_now(self) -> None: ...


_NESTING = 4
"""Indexes in indexes at most."""
_CHUNK = 1 << 18
_TAKE_TURNS = 0.25  # seconds between two looks at whether another process has ended with a blob
_GRACE = 2.0  # seconds that threads are waited for which have been told to end


class Pulled(Struct):
    """What came of a pull. `digest` is that of what the name leads to; `changed`: whether something was brought in."""

    reference: str
    id: str
    digest: str
    changed: bool


class Found(Struct):
    """An image as its registry describes it: its documents, read and checked, and what the name leads to."""

    target: Descriptor
    documents: tuple[fetching.Document, ...]
    manifest: Manifest
    config: bytes
    parsed: ImageConfig

    @property
    def id(self) -> str:
        return self.manifest.config.digest


class Puller:
    """Brings images in."""

    def __init__(self, content: Content, names: Names, snapshots: Snapshotter, lock: Lock, images: Publisher) -> None:
        self._content = content
        self._names = names
        self._snapshots = snapshots
        self._lock = lock
        self._images = images
        self._at_once = 3

    def pull(
        self,
        registries: Registries,
        text: str,
        platform: str,
        report: Report,
        all_tags: bool,
        told_of: Callable[[Pulled], None],
    ) -> list[Pulled]:
        """What a command line names: an image, or with `all_tags` a repository. Raises as `run`."""
        name = reference.parse(text)
        if all_tags and (name.tag or name.digest):
            raise InvalidParameter("tag can't be used with --all-tags/-a")
        wanted = platforms.parse(platform) if platform else None
        self._at_once = registries.downloads
        names = [name.canonical()]
        if all_tags:
            names = [name.replace(tag=tag) for tag in registries.tags(name) if reference.is_tag(tag)]
        pulled = []
        for one in names:
            try:
                pulled.append(self.run(registries.client(name.domain, mirrors=True), one, wanted, report))
            except _Again:
                # What an earlier pull had left was not what it seemed to be; it is gone now. With a client of its own: all that the other had begun has ended.
                client = registries.client(name.domain, mirrors=True)
                pulled.append(self.run(client, one, wanted, report, last=True))
            told_of(pulled[-1])
        return pulled

    def run(
        self, client: Client, name: Reference, platform: Platform | None, report: Report, last: bool = False
    ) -> Pulled:
        """Pull one name, with a tag or a digest. `report` is told what becomes of each layer, by any thread.

        Raises `NotFound` in Docker's words, `Unavailable` for what the network or the registry does, `InvalidParameter`
        for what is wrong with the image, `System` for a full disk; and `_Again`, but for the `last` time.
        """
        try:
            for connection in client.connections():
                try:
                    return self._pull(connection, name, platform, report, last)
                except SampanError as e:
                    # A mirror that has it not, or not as it should be, is not asked further.
                    if not connection.endpoint.mirror or isinstance(e, System):
                        raise translated(e, connection, name) from None
        finally:
            client.patience.stop()
        raise AssertionError("the last endpoint is no mirror")

    def _pull(
        self, connection: Connection, name: Reference, platform: Platform | None, report: Report, last: bool
    ) -> Pulled:
        repository = Repository(connection, name.path)
        found = self._find(repository, name, platform)
        report(name.digest or name.tag, f"Pulling from {name.path}", 0, 0)
        changed = self._bring(repository, found, name, report, last)
        return Pulled(name.familiar, found.id, found.target.digest, changed)

    # Documents

    def _find(self, repository: Repository, name: Reference, platform: Platform | None) -> Found:
        top = fetching.manifest(repository, name.digest or name.tag)
        chain = [top]
        parsed = documents.parse_manifest(top.data, top.target.media_type)
        while isinstance(parsed, Index):
            if len(chain) > _NESTING:
                raise InvalidParameter(f"index {top.target.digest} is nested too deep")
            chosen = parsed.select(platform or platforms.here())
            chain.append(fetching.manifest(repository, chosen.digest, chosen))
            parsed = documents.parse_manifest(chain[-1].data, chosen.media_type)
        config = self._config(repository, parsed.config)
        image = documents.parse_config(config)
        if image.platform.os not in ("", "linux"):
            raise InvalidParameter(f"image operating system {image.platform.os!r} cannot be used on this platform")
        if len(image.diff_ids) != len(parsed.layers):
            raise InvalidParameter(
                f"invalid manifest, layers length mismatch: expected {len(parsed.layers)}, got {len(image.diff_ids)}"
            )
        if platform is not None and not platform.runs(image.platform):
            raise NotFound(
                f"image with reference {name.familiar} was found but its platform ({image.platform}) does not match the "
                f"specified platform ({platform})"
            )
        return Found(top.target, tuple(chain), parsed, config, image)

    def _config(self, repository: Repository, wanted: Descriptor) -> bytes:
        if self._content.exists(wanted.digest):
            try:
                return self._content.read(wanted.digest, documents.CONFIG_LIMIT)
            except (InvalidParameter, NotFound):
                pass  # It is damaged, or was collected in this moment: it is fetched anew.
        return fetching.document(repository, wanted, documents.CONFIG_LIMIT)

    # Layers

    def _bring(self, repository: Repository, found: Found, name: Reference, report: Report, last: bool) -> bool:
        """Bring in what is missing, and give it its name. Whether anything was."""
        if self._is_here(found):
            return self._enter(found, name)
        chain = documents.chain_ids(found.parsed.diff_ids)
        wanted = {*chain, found.id, *(d.target.digest for d in found.documents)}
        wanted |= {layer.digest for layer in found.manifest.layers}
        with self._lock.shared():
            hold = self._content.hold(sorted(wanted))
        keep = False
        try:
            transfer = Transfer(self._content, self._snapshots, repository, self._at_once, report, last)
            changed = transfer.run(found.manifest.layers, found.parsed.diff_ids, chain)
            return self._enter(found, name) or changed
        except BaseException as e:
            keep = isinstance(e, Unreachable | Stopped | KeyboardInterrupt)
            if isinstance(e, OSError):
                raise System(told(e)) from e
            raise
        finally:
            self._content.drop(hold)
            if not keep and self._names.get(found.id) is None:
                self._images.collect_now()

    def _is_here(self, found: Found) -> bool:
        """Whether nothing of an image is missing. That no collection takes it away before it has this name, too, `_enter` sees to."""
        blobs = {found.id, *(layer.digest for layer in found.manifest.layers)}
        chain = documents.chain_ids(found.parsed.diff_ids)
        known = self._names.get(found.id) is not None
        return known and all(map(self._content.exists, blobs)) and all(map(self._snapshots.has, chain))

    def _enter(self, found: Found, name: Reference) -> bool:
        old = self._names.get(str(name))
        own = self._names.get(found.id)
        if own is not None and old is not None and (old.image, old.target) == (found.id, found.target):
            return False
        with self._lock.shared():
            if any(not self._content.exists(layer.digest) for layer in found.manifest.layers):
                raise NotFound(f"image {name.familiar} was removed while it was pulled: pull it again")
            self._content.add(found.config)
            for document in found.documents:
                self._content.add(document.data)
            self._images.enter(NameRecord(found.id, found.target, found.id, clock.now()), (name,))
        return True


class _Again(Exception):
    """It has failed because of what was there before, which is gone: it may well be done from the beginning."""


class Transfer:
    """The layers of one image on their way."""

    def __init__(
        self,
        content: Content,
        snapshots: Snapshotter,
        repository: Repository,
        at_once: int,
        report: Report,
        last: bool,
    ) -> None:
        self._content = content
        self._snapshots = snapshots
        self._repository = repository
        self._at_once = at_once
        self._report = report
        self._last = last

    def run(self, blobs: Sequence[Descriptor], diff_ids: Sequence[str], chain: Sequence[str]) -> bool:
        """Download what is missing, and unpack it. Whether anything was missing."""
        downloads: dict[str, Download] = {}
        done: set[int] = set()
        for i, blob in enumerate(blobs):
            there = self._content.exists(blob.digest)
            if there and self._snapshots.has(chain[i]):
                self._report(short(blob), "Already exists", 0, 0)
                done.add(i)
                continue
            self._report(short(blob), "Pulling fs layer", 0, 0)
            if not there and blob.digest not in downloads:
                downloads[blob.digest] = Download(blob, self._report)
        threads = self._start(list(downloads.values()))
        keep = False
        try:
            for i, blob in enumerate(blobs):
                if i not in done:
                    self._layer(downloads.get(blob.digest), blob, chain[: i + 1], diff_ids[i])
            keep = True
        except BaseException as e:
            keep = isinstance(e, Unreachable | Stopped | KeyboardInterrupt)
            if not self._last and isinstance(e, InvalidParameter) and any(d.resumed for d in downloads.values()):
                raise _Again from e
            raise
        finally:
            self._end(threads, downloads.values(), keep)
        return len(done) < len(blobs)

    def _start(self, downloads: list[Download]) -> list[threading.Thread]:
        queue = iter(downloads)
        taking = threading.Lock()

        def work() -> None:
            while True:
                with taking:
                    download = next(queue, None)
                if download is None:
                    return
                download.run(self._content, self._repository)

        for download in downloads[self._at_once :]:
            self._report(short(download.blob), "Waiting", 0, 0)
        threads = [threading.Thread(target=work, daemon=True) for _ in range(min(self._at_once, len(downloads)))]
        started: list[threading.Thread] = []
        try:
            for thread in threads:
                process.start_thread(thread)
                started.append(thread)
        except OSError as e:
            if not started:  # one is enough
                raise System(told(e)) from e
        return started

    def _end(self, threads: Sequence[threading.Thread], downloads: Iterable[Download], keep: bool) -> None:
        """Let go of every file. A thread that a silent registry holds up does so itself when it comes back."""
        if any(thread.is_alive() for thread in threads):
            self._repository.connection.patience.stop()
            for thread in threads:
                thread.join(_GRACE)
        for download in downloads:
            download.settle(keep)

    def _layer(self, download: Download | None, blob: Descriptor, chain: Sequence[str], diff_id: str) -> None:
        if download is None or download.wait_for_blob():
            # Another image has its blob, another process has brought it, or this image has it twice.
            if not self._snapshots.has(chain[-1]):
                with self._content.open_verified(blob.digest) as stored:
                    self._unpack(stored, chain, diff_id)
                    stored.drain()
        else:
            if self._snapshots.has(chain[-1]):
                check_plain(download, diff_id)
            else:
                self._unpack(download, chain, diff_id)
            download.finish()
        self._report(short(blob), "Pull complete", 0, 0)

    def _unpack(self, source: object, chain: Sequence[str], diff_id: str) -> None:
        try:
            self._snapshots.unpack(chain[:-1], source, diff_id)
        except InvalidParameter as e:
            raise InvalidParameter(f"failed to register layer: {e}") from None


class Download:
    """One blob on its way in: written by a thread of its own, and read behind it as a stream."""

    def __init__(self, blob: Descriptor, report: Report) -> None:
        self.blob = blob
        self.resumed = False
        self._report = report
        self._partial: Partial | None = None
        self._there = False  # Somebody else has brought it meanwhile, or it was finished.
        self._ended = False
        self._interrupted = False
        self._error: BaseException | None = None
        self._verdict: bool | None = None
        self._position = 0
        self._changed = threading.Condition()

    # The thread's side

    def run(self, content: Content, repository: Repository) -> None:
        """Download it, unless somebody else has. Never raises: what went wrong is for whoever reads."""
        error: BaseException | None = None
        try:
            self._open(content, repository)
            if not self._there:
                fetching.download(repository, self.blob, self)
                self._report(short(self.blob), "Verifying Checksum", 0, 0)
                self._report(short(self.blob), "Download complete", 0, 0)
        except BaseException as e:
            error = e
        with self._changed:
            self._ended, self._error = True, error
            if self._verdict is not None:
                self._let_go(self._verdict)
            self._changed.notify_all()

    def _open(self, content: Content, repository: Repository) -> None:
        """Take the blob's file, when nobody else writes it any more."""
        while True:
            repository.connection.patience.check()
            try:
                partial = content.partial(self.blob.digest, self.blob.size, _TAKE_TURNS)
                break
            except BlockingIOError:
                self._report(short(self.blob), "Waiting", 0, 0)
        with self._changed:
            if content.exists(self.blob.digest):
                partial.abort()
                self._there = True
            else:
                self._partial, self.resumed = partial, partial.resumed
            self._changed.notify_all()

    @property
    def size(self) -> int:
        assert self._partial is not None
        return self._partial.size

    def write(self, data: bytes, /) -> int:
        assert self._partial is not None
        written = self._partial.write(data)
        with self._changed:
            self._changed.notify_all()
        self._report(short(self.blob), "Downloading", self.size, self.blob.size)
        return written

    # The reader's side

    def wait_for_blob(self) -> bool:
        """Wait until it begins to come; True if it is there whole, by somebody else. Raises what went wrong."""
        with self._changed:
            while self._partial is None and not self._ended:
                self._changed.wait(clock.TURN)
            if self._error is not None and self._partial is None:
                raise self._error
            return self._there

    def read(self, size: int, /) -> bytes:
        """What has come behind what was read; b"" at the end of the blob. Raises what its thread has met."""
        with self._changed:
            partial = self._partial
            assert partial is not None
            while partial.size <= self._position and not self._ended and not self._interrupted:
                self._changed.wait(clock.TURN)
            if self._interrupted:
                raise Stopped
            if self._error is not None:
                raise self._error
            data = partial.read_at(self._position, size)
            self._position += len(data)
            if self._ended:
                self._report(short(self.blob), "Extracting", self._position, self.blob.size)
        return data

    def interrupt(self) -> None:
        """End the reading: who reads ahead is not wanted any more. See `store.ahead`."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def finish(self) -> None:
        """All was read and found good: the blob gets its name. Raises what went wrong, `InvalidParameter` for a wrong digest."""
        while self.read(_CHUNK):
            pass  # What comes behind the archive's end belongs to the blob as well.
        assert self._partial is not None
        self._partial.finish()
        self._there = True

    def settle(self, keep: bool) -> None:
        """Let go of its file if it was not finished, for others to go on with it or for good; now, or when its thread ends."""
        with self._changed:
            if self._ended or self._partial is None:
                self._let_go(keep)
            self._verdict = keep

    def _let_go(self, keep: bool) -> None:
        if self._partial is not None:
            if keep:
                self._partial.leave()
            else:
                self._partial.abort()


def short(blob: Descriptor) -> str:
    """A layer as Docker's lines name it."""
    return blob.digest.partition(":")[2][:12]


def check_plain(stream: Download, diff_id: str) -> None:
    """Read a layer that need not be unpacked, for it has to be what the config says all the same."""
    plain = DigestStream(decompress(stream))
    while plain.read(_CHUNK):
        pass
    if plain.digest != diff_id:
        raise InvalidParameter(f'failed to register layer: invalid diffID: expected "{diff_id}", got "{plain.digest}"')


def translated(error: SampanError, connection: Connection, name: Reference) -> SampanError:
    """What went wrong, as Docker tells it of a pull."""
    if not isinstance(error, Refused):
        return error
    familiar = name.familiar_name
    if error.code in ("MANIFEST_UNKNOWN", "NOT_FOUND") or (error.status == 404 and not error.code):
        return NotFound(
            f"manifest for {name.familiar} not found: {error.words or 'manifest unknown: manifest unknown'}"
        )
    if error.code == "NAME_UNKNOWN":
        return NotFound(f"repository {familiar} not found: {error.words}")
    if error.status in (401, 403):
        if connection.authenticator.wants_basic and not connection.authenticator.credential:
            return NotFound(f"{connection.endpoint.host}: no basic auth credentials: log in with 'sampan login'")
        words = error.words or "denied: requested access to the resource is denied"
        return NotFound(
            f"pull access denied for {familiar}, repository does not exist or may require 'sampan login': {words}"
        )
    return error
