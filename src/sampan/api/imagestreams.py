"""What streams images: pull, import, push, load, save."""

from __future__ import annotations

from contextlib import contextmanager

from sampan.api import queries
from sampan.api.failures import ClientGone
from sampan.api.images import repository
from sampan.api.leaving import ended_with
from sampan.api.progress import Layers, ProgressStream, answered
from sampan.api.registries import as_client
from sampan.engine.download import Lines, download
from sampan.engine.progress import WatchedSource
from sampan.errors import InvalidParameter
from sampan.oci import reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from sampan.api.exchange import Exchange
    from sampan.engine.engine import Engine
    from sampan.engine.images import Source
    from sampan.engine.pushing import Pushed, Report
    from sampan.engine.registries import Registries

_TAR = "application/x-tar"


def create(engine: Engine, exchange: Exchange) -> None:
    """`POST /images/create`: a pull, or an import."""
    with answered(exchange) as stream:
        if exchange.query.text("fromImage"):
            _pull(engine, exchange, stream)
        elif exchange.query.text("fromSrc"):
            _import(engine, exchange, stream)
        else:
            raise InvalidParameter("one of fromImage and fromSrc must be given")


def pulled_name(image: str, tag: str) -> tuple[str, bool]:
    """What `fromImage` and `tag` mean: a name, and whether all tags of it are meant. Raises InvalidParameter."""
    found = reference.parse(image)
    if found.digest:
        return image, False
    if tag.startswith("sha256:"):
        return f"{found.familiar_name}@{tag}", False
    if tag:
        return f"{found.familiar_name}:{tag}", False
    return image, not found.tag


def _pull(engine: Engine, exchange: Exchange, stream: ProgressStream) -> None:
    name, every = pulled_name(exchange.query.text("fromImage"), exchange.query.text("tag"))
    platform = exchange.query.text("platform")
    registries = as_client(engine, exchange, name)
    with _ended_with(exchange, stream, registries) as report:
        pulled = engine.images.pull(name, platform, report, every, registries)
    for image in pulled:
        stream.send(status=f"Digest: {image.digest}")
    status = "Downloaded newer image for" if any(image.changed for image in pulled) else "Image is up to date for"
    stream.send(status=f"Status: {status} {reference.parse(name).familiar}")


@contextmanager
def _ended_with(exchange: Exchange, stream: ProgressStream, registries: Registries) -> Iterator[Report]:
    """End what is asked of registries inside when the client goes away. Raises ClientGone then."""
    layers = Layers(stream)

    def report(layer: str, status: str, done: int, total: int) -> None:
        try:
            layers(layer, status, done, total)
        except ClientGone:
            registries.stop()
        # Not as ClientGone: what was stopped is kept for the next one, what went wrong is thrown away.
        registries.check_stopped()

    with ended_with(exchange, registries.stop):
        yield report


def _import(engine: Engine, exchange: Exchange, stream: ProgressStream) -> None:
    query = exchange.query
    source = query.text("fromSrc")
    name = repository(query.text("repo"), query.text("tag"))
    changes, platform = query.texts("changes"), query.text("platform")

    def bring(data: Source, origin: str) -> None:
        message = query.text("message") or f"Imported from {origin}"
        stream.send(status=engine.images.import_(data, name, changes, message, platform))

    if source == "-":
        return bring(exchange.body, "-")
    url = source if "://" in source else f"http://{source}"
    lines, layers = Lines(), Layers(stream)
    with ended_with(exchange, lines.hang_up), download(url, lines) as answer:
        stream.send(status=f"Downloading from {url}")
        return bring(
            WatchedSource(answer, lambda _, done, total: layers("import", "Importing", done, total), "", answer.length),
            url,
        )


def push(engine: Engine, exchange: Exchange, name: str) -> None:
    """`POST /images/{name}/push`; without a tag all of the repository."""
    found = reference.parse(name)
    tag = exchange.query.text("tag") or found.tag
    platform = queries.platform(exchange.query.text("platform")) if exchange.version >= (1, 46) else ""
    with answered(exchange) as stream:
        # As with Docker before anything is looked up: what goes wrong is told in the stream.
        stream.send(status=f"The push refers to repository [{found.name}]")

        def done(sent: Pushed) -> None:
            stream.send(status=f"{sent.tag}: digest: {sent.digest} size: {sent.size}")
            stream.send(progressDetail={}, aux={"Tag": sent.tag, "Digest": sent.digest, "Size": sent.size})

        target = f"{found.familiar_name}:{tag}" if tag else found.familiar_name
        registries = as_client(engine, exchange, name)
        with _ended_with(exchange, stream, registries) as report:
            engine.images.push(target, platform, report, not tag, done=done, registries=registries)


def load(engine: Engine, exchange: Exchange) -> None:
    """`POST /images/load`."""
    platform = queries.platform(exchange.query.text("platform")) if exchange.version >= (1, 48) else ""
    stream = ProgressStream(exchange)
    layers = Layers(stream)

    def progress(what: str, done: int, total: int) -> None:
        layer, _, status = what.partition(": ")
        layers(layer, status, done, total)

    quiet = exchange.query.flag("quiet", True)
    with answered(exchange, stream, told_inside=True):
        for image in engine.images.load(exchange.body, platform, None if quiet else progress):
            if image.replaced:
                words = f"The image {image.reference} already exists, renaming the old one with ID {image.replaced} to empty string"
                stream.send(stream=words + "\n")
            stream.send(
                stream=f"Loaded image: {image.reference}\n" if image.reference else f"Loaded image ID: {image.id}\n"
            )


class _Archive:
    """The body of an answer as a sink; the answer begins with the first byte."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._begun = False

    def write(self, data: bytes, /) -> None:
        if not self._begun:
            self._begun = True
            self._exchange.start(200, {"Content-Type": _TAR})
        self._exchange.write(data)


def save(engine: Engine, exchange: Exchange) -> None:
    """`GET /images/get`."""
    names = [name for text in exchange.query.texts("names") for name in text.split(",") if name]
    if not names:
        raise InvalidParameter("no image is named")
    _save(engine, exchange, names)


def save_one(engine: Engine, exchange: Exchange, name: str) -> None:
    """`GET /images/{name}/get`."""
    _save(engine, exchange, [name])


def _save(engine: Engine, exchange: Exchange, names: list[str]) -> None:
    platform = queries.platform(exchange.query.text("platform")) if exchange.version >= (1, 48) else ""
    engine.images.save(names, _Archive(exchange), platform)
    exchange.end()
