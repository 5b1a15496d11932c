"""`pull` from Debian's docker-registry: what comes in, by which words, once, with which platform, from where."""

from __future__ import annotations

import gzip
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard

from sampan.errors import InvalidParameter, NotFound, Unavailable
from sampan.oci import image as documents
from sampan.oci import platform
from sampan.oci.digest import of_bytes

from support import imagearchives
from support.imagestore import Store, archive
from support.registry import (
    Certificates,
    Registry,
    basic,
    htpasswd,
    registry,
    upload,
    upload_manifest,
)
from support.roots import Root
from support.tokenserver import token_server

pytestmark = pytest.mark.root

LOW = archive({"a": b"low", "dir": None, "dir/gone": b"x", "big": os.urandom(300_000)})
HIGH = archive({"dir/.wh.gone": b"", "b": b"high"})
LAYERS = (gzip.compress(LOW), zstandard.compress(HIGH))
ARCHITECTURE = platform.here().architecture


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return Store(tmp_path)


def put(found: Registry, name: str, *layers: bytes, tag: str = "1", **more: Any) -> str:
    """Put an image there by hand; the digest of its manifest."""
    members = imagearchives.layout("", *(layers or LAYERS), **{"architecture": ARCHITECTURE, **more})
    return upload(f"http://127.0.0.1:{found.port}", name, tag, members)


class Seen:
    """A `Report` that keeps what it is told, each status once."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def __call__(self, layer: str, status: str, _done: int, _total: int) -> None:
        if (layer, status) not in self.lines:
            self.lines.append((layer, status))


# What comes in


def test_an_image_comes_in_whole_and_is_unpacked(plain: Registry, store: Store) -> None:
    digest = put(plain, "team/app")
    pulled = store.images.pull(f"{plain.host}/team/app:1")[0]
    assert (pulled.digest, pulled.changed, pulled.reference) == (digest, True, f"{plain.host}/team/app:1")
    shown = store.images.inspect(f"{plain.host}/team/app:1")
    assert shown["RepoDigests"] == [f"{plain.host}/team/app@{digest}"]
    assert shown["RootFS"]["Layers"] == [of_bytes(LOW), of_bytes(HIGH)]
    image = store.images.resolve(pulled.id)
    top = Path(store.layout.layers) / image.layers[1].removeprefix("sha256:") / "diff"
    assert (top / "b").read_bytes() == b"high"
    assert os.stat(top / "dir/gone").st_rdev == 0  # a whiteout over what the layer below shows
    # Every blob is what its name says, and nothing is there that the image does not need.
    assert store.files() == store.reachable()
    assert {of_bytes(layer) for layer in LAYERS} <= set(store.content.list())


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress, bytes], ids=["gzip", "zstd", "plain"])
def test_layers_of_every_form(plain: Registry, store: Store, pack: Any) -> None:
    put(plain, "forms", pack(LOW))
    store.images.pull(f"{plain.host}/forms:1")
    assert store.files() == store.reachable()


def test_what_is_here_is_not_fetched_again(plain: Registry, store: Store) -> None:
    put(plain, "twice")
    store.images.pull(f"{plain.host}/twice:1")
    fetched = len(plain.asked("GET", "/twice/blobs/"))
    seen = Seen()
    pulled = store.images.pull(f"{plain.host}/twice:1", report=seen)[0]
    assert (pulled.changed, len(plain.asked("GET", "/twice/blobs/"))) == (False, fetched)
    assert seen.lines == [("1", "Pulling from twice")]
    # Another image on the same layer fetches its own layer and config alone.
    put(plain, "twice", LAYERS[0], gzip.compress(archive({"c": b"more"})), tag="2")
    seen = Seen()
    store.images.pull(f"{plain.host}/twice:2", report=seen)
    assert len(plain.asked("GET", "/twice/blobs/")) == fetched + 2
    assert (of_bytes(LAYERS[0])[7:19], "Already exists") in seen.lines


def test_a_tag_that_moved(plain: Registry, store: Store) -> None:
    put(plain, "moving")
    old = store.images.pull(f"{plain.host}/moving:1")[0]
    put(plain, "moving", gzip.compress(archive({"new": b"n"})))
    new = store.images.pull(f"{plain.host}/moving:1")[0]
    assert new.changed
    assert store.images.resolve(f"{plain.host}/moving:1").id == new.id
    assert store.images.inspect(old.id)["RepoTags"] == []


def test_by_digest(plain: Registry, store: Store) -> None:
    digest = put(plain, "team/by")
    store.images.pull(f"{plain.host}/team/by@{digest}")
    shown = store.images.inspect(f"{plain.host}/team/by@{digest}")
    assert (shown["RepoTags"], shown["RepoDigests"]) == ([], [f"{plain.host}/team/by@{digest}"])


def test_a_layer_that_an_image_has_twice(plain: Registry, store: Store) -> None:
    put(plain, "double", LAYERS[0], LAYERS[1], LAYERS[1])
    store.images.pull(f"{plain.host}/double:1")
    assert len(plain.asked("GET", f"/double/blobs/{of_bytes(LAYERS[1])}")) == 1
    assert store.files() == store.reachable()


def test_every_tag(plain: Registry, store: Store) -> None:
    for tag in ("1", "2", "old"):
        put(plain, "many", gzip.compress(archive({tag: b"t"})), tag=tag)
    pulled = store.images.pull(f"{plain.host}/many", all_tags=True)
    assert sorted(one.reference for one in pulled) == [f"{plain.host}/many:{tag}" for tag in ("1", "2", "old")]
    with pytest.raises(InvalidParameter, match="tag can't be used with --all-tags/-a"):
        store.images.pull(f"{plain.host}/many:1", all_tags=True)


# Platforms


def put_index(found: Registry, name: str, kind: str = documents.OCI_INDEX, **manifests: dict[str, bytes]) -> str:
    """An index of images for several architectures; its digest."""
    url, entries = f"http://127.0.0.1:{found.port}", []
    for architecture, members in manifests.items():
        digest = upload(url, name, f"for-{architecture}", members)
        data = members[f"blobs/sha256/{digest.removeprefix('sha256:')}"]
        kind_of = json.loads(data)["mediaType"]
        where = {"os": "linux", "architecture": architecture}
        entries.append({"mediaType": kind_of, "digest": digest, "size": len(data), "platform": where})
    index = json.dumps({"schemaVersion": 2, "mediaType": kind, "manifests": entries}).encode()
    return upload_manifest(url, name, "1", index)


def image_for(architecture: str) -> dict[str, bytes]:
    return imagearchives.layout("", gzip.compress(archive({architecture: b"1"})), architecture=architecture)


def test_the_image_of_this_machine_or_of_another(plain: Registry, store: Store) -> None:
    other = "s390x" if ARCHITECTURE != "s390x" else "amd64"
    digest = put_index(plain, "index", **{ARCHITECTURE: image_for(ARCHITECTURE), other: image_for(other)})
    name = f"{plain.host}/index:1"
    own = store.images.pull(name)[0]
    assert own.digest == digest
    assert store.images.inspect(name)["Architecture"] == ARCHITECTURE
    assert store.images.inspect(name)["RepoDigests"] == [f"{plain.host}/index@{digest}"]
    foreign = store.images.pull(name, f"linux/{other}")[0]
    assert foreign.id != own.id
    assert store.images.inspect(name)["Architecture"] == other
    # Both are whole: each can be unpacked again and saved, by the manifest that is its own.
    assert store.files() == store.reachable()
    for image_id in (own.id, foreign.id):
        store.snapshots.remove_layer(store.images.resolve(image_id).layers[0])
        store.images.ensure_unpacked(store.images.resolve(image_id))
    with pytest.raises(InvalidParameter, match="no matching manifest for linux/riscv64 in the manifest list entries"):
        store.images.pull(name, "linux/riscv64")


def test_an_image_of_one_platform_that_is_not_the_wanted_one(plain: Registry, store: Store) -> None:
    put(plain, "one", architecture="s390x")
    with pytest.raises(
        NotFound, match=r"its platform \(linux/s390x\) does not match the specified platform \(linux/arm"
    ):
        store.images.pull(f"{plain.host}/one:1", "linux/arm/v7")
    assert store.files() == []


# What is not there


def test_what_is_not_there_is_told_in_dockers_words(plain: Registry, store: Store) -> None:
    put(plain, "some")
    with pytest.raises(NotFound) as told:
        store.images.pull(f"{plain.host}/some:none")
    assert str(told.value) == f"manifest for {plain.host}/some:none not found: manifest unknown: manifest unknown"
    with pytest.raises(NotFound, match=f"manifest for {plain.host}/none:latest not found"):
        store.images.pull(f"{plain.host}/none")
    with pytest.raises(Unavailable) as refused:
        store.images.pull("localhost:1/x")
    assert str(refused.value) == 'Get "http://localhost:1/v2/": dial tcp localhost:1: connect: connection refused'
    assert store.files() == []


def test_a_blob_that_the_registry_has_lost(plain: Registry, store: Store) -> None:
    lost = gzip.compress(archive({"lost": os.urandom(1000)}))
    put(plain, "lost", lost, LAYERS[1])
    plain.blob(of_bytes(lost)).unlink()
    with pytest.raises(Unavailable, match=r"unknown|unexpected"):
        store.images.pull(f"{plain.host}/lost:1")
    assert store.files() == []


def test_a_blob_that_rotted_in_the_registry(plain: Registry, store: Store) -> None:
    layer = gzip.compress(archive({"rotten": os.urandom(5000)}))
    put(plain, "rotten", layer)
    file = plain.blob(of_bytes(layer))
    file.write_bytes(layer[:-5] + bytes([layer[-5] ^ 1]) + layer[-4:])
    with pytest.raises(InvalidParameter, match=r"failed to register layer|verification failed"):
        store.images.pull(f"{plain.host}/rotten:1")
    assert store.files() == []


# Several at once, and what was interrupted


def test_two_pulls_of_an_image_share_the_work(plain: Registry, tmp_path: Path, store: Store) -> None:
    big = gzip.compress(archive({"shared": os.urandom(4_000_000)}))
    put(plain, "shared", big, LAYERS[1])
    results: list[Any] = []

    def pull() -> None:
        # A service of its own, as another process has.
        results.append(Store(tmp_path).images.pull(f"{plain.host}/shared:1")[0])

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert len(plain.asked("GET", f"/shared/blobs/{of_bytes(big)}")) == 1
    assert store.files() == store.reachable()


def test_a_pull_goes_on_where_one_was_killed(plain: Registry, store: Store) -> None:
    layer = gzip.compress(archive({"resumed": os.urandom(2_000_000)}))
    put(plain, "resumed", layer)
    with store.content.partial(of_bytes(layer), len(layer), 0) as partial:
        partial.write(layer[:1_500_000])
    assert [name for name in store.files() if "pull-" in name] != []
    store.images.pull(f"{plain.host}/resumed:1")
    sent = [
        line for line in plain.log().splitlines() if f"/resumed/blobs/{of_bytes(layer)}" in line and " 206 " in line
    ]
    assert len(sent) == 1
    assert f" {len(layer) - 1_500_000} " in sent[0]
    assert store.files() == store.reachable()


def test_what_was_left_is_not_what_it_seemed(plain: Registry, store: Store) -> None:
    """A machine that lost power may have kept a file's length and not its bytes."""
    layer = gzip.compress(archive({"zeros": os.urandom(2_000_000)}))
    put(plain, "zeros", layer)
    with store.content.partial(of_bytes(layer), len(layer), 0) as partial:
        partial.write(bytes(1_500_000))
    store.images.pull(f"{plain.host}/zeros:1")
    assert store.files() == store.reachable()


def test_what_was_left_is_not_what_it_seemed_and_another_layer_is_on_its_way(plain: Registry, store: Store) -> None:
    layer = gzip.compress(archive({"zeros": os.urandom(2_000_000)}))
    put(plain, "ends", layer, gzip.compress(archive({"large": os.urandom(60_000_000)}), 0))
    with store.content.partial(of_bytes(layer), len(layer), 0) as partial:
        partial.write(bytes(1_500_000))
    store.images.pull(f"{plain.host}/ends:1")
    assert store.files() == store.reachable()


def test_a_collection_takes_what_an_interrupted_pull_left(plain: Registry, store: Store) -> None:
    before = store.on_disk()
    with store.content.partial(of_bytes(b"x"), 100_000, 0) as partial:
        partial.write(bytes(50_000))
    store.content.collect_ingests(partial=False)
    assert store.on_disk() > before  # an import or a load leaves it
    store.images.collect()
    assert (store.files(), store.on_disk()) == ([], before)


def test_a_collection_beside_a_pull_takes_nothing_from_it(plain: Registry, store: Store, tmp_path: Path) -> None:
    layers = [gzip.compress(archive({f"beside{i}": os.urandom(500_000)})) for i in range(6)]
    put(plain, "beside", *layers)
    done = threading.Event()

    def collect() -> None:
        while not done.is_set():
            Store(tmp_path).images.collect()

    other = threading.Thread(target=collect)
    other.start()
    try:
        store.images.pull(f"{plain.host}/beside:1")
    finally:
        done.set()
        other.join()
    assert store.files() == store.reachable()


# Who we are


def test_a_registry_with_names_and_passwords(tmp_path: Path, new_root: Root) -> None:
    config = tmp_path / "docker"
    new_root.cli.environment["DOCKER_CONFIG"] = str(config)
    with registry(tmp_path / "registry", auth=htpasswd(tmp_path)) as found:
        upload(f"http://127.0.0.1:{found.port}", "private", "1", imagearchives.layout("", *LAYERS), basic())
        name = f"{found.host}/private:1"
        refused = new_root.cli("pull", name)
        assert (refused.code, refused.err) == (
            1,
            f"Error: {found.host}: no basic auth credentials: log in with 'sampan login'\n",
        )
        wrong = new_root.cli("login", "-u", "ann", "--password-stdin", found.host, input="wrong\n")
        assert wrong.code == 1
        assert f"login attempt to {found.host} failed with status: 401" in wrong.err
        assert not config.exists()
        done = new_root.cli("login", "-u", "ann", "--password-stdin", found.host, input="s3cret:word\n").ok()
        assert done.out == "Login Succeeded\n"
        assert f"stored unencrypted in '{config}/config.json'" in done.err
        assert os.stat(config / "config.json").st_mode & 0o777 == 0o600
        again = new_root.cli("login", found.host).ok()
        assert "Authenticating with existing credentials... [Username: ann]" in again.out
        new_root.cli("pull", "-q", name).ok()
        assert new_root.cli("__complete", "logout", "loc").ok().out == f"{found.host}\n"
        # The file is Docker's: its command line logs in by it too.
        docker = subprocess.run(
            ["docker", "--config", config, "manifest", "inspect", "--insecure", name], capture_output=True
        )
        assert docker.returncode == 0, docker.stderr
        assert new_root.cli("manifest", "inspect", name).ok().out_bytes == docker.stdout
        assert new_root.cli("logout", found.host).ok().out == f"Removing login credentials for {found.host}\n"
        assert new_root.cli("logout", found.host).ok().out == f"Not logged in to {found.host}\n"
        assert json.loads((config / "config.json").read_text())["auths"] == {}
        assert new_root.cli("manifest", "inspect", name).code == 1


def test_a_registry_with_a_token_server(tmp_path: Path, new_root: Root) -> None:
    config = tmp_path / "docker"
    new_root.cli.environment["DOCKER_CONFIG"] = str(config)
    with token_server(tmp_path) as tokens, registry(tmp_path / "registry", auth=tokens.auth()) as found:
        for name in ("team/open", "team/closed"):
            access = [{"type": "repository", "name": name, "actions": ["pull", "push"]}]
            header = {"Authorization": f"Bearer {tokens.token('ann', access)}"}
            upload(f"http://127.0.0.1:{found.port}", name, "1", imagearchives.layout("", *LAYERS), header)
        new_root.cli("pull", f"{found.host}/team/open:1").ok()
        assert tokens.asked[-1] == {
            "method": "GET",
            "user": "",
            "service": ["registry.test"],
            "scope": ["repository:team/open:pull"],
        }
        refused = new_root.cli("pull", f"{found.host}/team/closed:1")
        assert refused.err.startswith(
            f"Error: pull access denied for {found.host}/team/closed, repository does not exist or may require 'sampan login': "
        )
        new_root.cli("login", "-u", "ann", "-p", "s3cret:word", found.host).ok()
        entry = json.loads((config / "config.json").read_text())["auths"][found.host]
        assert entry["identitytoken"] == "a-refresh-token-of-some-length"
        assert "s3cret" not in (config / "config.json").read_text()
        new_root.cli("pull", f"{found.host}/team/closed:1").ok()
        assert tokens.asked[-1]["method"] == "POST"
        assert tokens.asked[-1]["grant_type"] == ["refresh_token"]


def test_a_token_that_ends_in_the_middle_is_asked_for_again(tmp_path: Path, store: Store) -> None:
    with token_server(tmp_path / "t") as tokens, registry(tmp_path / "registry", auth=tokens.auth()) as found:
        access = [{"type": "repository", "name": "team/open", "actions": ["pull", "push"]}]
        header = {"Authorization": f"Bearer {tokens.token('ann', access)}"}
        upload(f"http://127.0.0.1:{found.port}", "team/open", "1", imagearchives.layout("", *LAYERS), header)
        tokens.true_life = -120  # what it says that they live is five minutes
        answers = 0
        token = tokens.token

        def late(subject: str, access: list[dict[str, Any]]) -> str:
            nonlocal answers
            answers += 1
            tokens.true_life = 300 if answers > 1 else -120
            return token(subject, access)

        tokens.token = late  # type: ignore[method-assign]
        store.images.pull(f"{found.host}/team/open:1")
        assert answers == 2


def test_a_credential_helper(tmp_path: Path, new_root: Root) -> None:
    """It is asked through pipes, and nothing secret is in the file."""
    config, bin_directory = tmp_path / "docker", tmp_path / "bin"
    bin_directory.mkdir()
    helper = bin_directory / "docker-credential-test"
    helper.write_text(f"""#!/bin/sh
case "$1" in
  store) cat > {tmp_path}/stored ;;
  get) read server; if [ -s {tmp_path}/stored ]; then cat {tmp_path}/stored; else echo "credentials not found in native keychain"; exit 1; fi ;;
  erase) rm -f {tmp_path}/stored ;;
esac
""")
    helper.chmod(0o755)
    config.mkdir()
    (config / "config.json").write_text('{"credsStore": "test", "detachKeys": "ctrl-x"}')
    new_root.cli.environment["DOCKER_CONFIG"] = str(config)
    new_root.cli.environment["PATH"] += f":{bin_directory}"
    with registry(tmp_path / "registry", auth=htpasswd(tmp_path)) as found:
        upload(f"http://127.0.0.1:{found.port}", "private", "1", imagearchives.layout("", *LAYERS), basic())
        done = new_root.cli("login", "-u", "ann", "--password-stdin", found.host, input="s3cret:word").ok()
        assert "unencrypted" not in done.err
        written = json.loads((config / "config.json").read_text())
        assert written == {"credsStore": "test", "detachKeys": "ctrl-x", "auths": {found.host: {}}}
        assert json.loads((tmp_path / "stored").read_text()) == {
            "ServerURL": found.host, "Username": "ann", "Secret": "s3cret:word",
        }  # fmt: skip
        new_root.cli("pull", "-q", f"{found.host}/private:1").ok()
        new_root.cli("logout", found.host).ok()
        assert not (tmp_path / "stored").exists()
        helper.write_text("#!/bin/sh\necho out of order; exit 3\n")
        broken = new_root.cli("pull", f"{found.host}/private:1")
        assert broken.err == "Error: error getting credentials - err: exit status 3, out: `out of order`\n"


# TLS, mirrors, what the configuration says


def test_tls_with_an_authority_of_its_own(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    certificates = Certificates(tmp_path / "tls", "DNS:registry.test,IP:127.0.0.1")
    with registry(tmp_path / "registry", tls=certificates) as found:
        monkeypatch.setattr("sampan.registry.endpoint._LOOPBACK", ())
        context = __import__("ssl").create_default_context(cafile=str(certificates.authority))
        context.verify_flags &= ~__import__(
            "ssl"
        ).VERIFY_X509_STRICT  # the authority is as people make them: without its key usage
        opener = __import__("urllib.request").request
        opener.install_opener(opener.build_opener(opener.HTTPSHandler(context=context)))
        try:
            upload(f"https://127.0.0.1:{found.port}", "safe", "1", imagearchives.layout("", *LAYERS))
        finally:
            opener.install_opener(None)
        name = f"127.0.0.1:{found.port}/safe:1"
        with pytest.raises(Unavailable) as refused:
            store.images.pull(name)
        assert str(refused.value) == (
            f'Get "https://127.0.0.1:{found.port}/v2/": tls: failed to verify certificate: '
            "x509: certificate signed by unknown authority"
        )
        # By certs.d; SSL_CERT_FILE does the same for all hosts; insecure-registries asks for no certificate at all.
        directory = tmp_path / f"certs.d/127.0.0.1:{found.port}"
        directory.mkdir(parents=True)
        (directory / "ca.crt").write_bytes(certificates.authority.read_bytes())
        with monkeypatch.context() as patch:
            patch.setattr("sampan.registry.endpoint.Settings.certificates", (str(tmp_path / "certs.d"),))
            assert store.images.pull(name)[0].changed
            (directory / "mine.cert").write_bytes(certificates.certificate.read_bytes())
            with pytest.raises(InvalidParameter, match=r"missing key mine.key for client certificate"):
                store.images.pull(name)
        with monkeypatch.context() as patch:
            patch.setenv("SSL_CERT_FILE", str(certificates.authority))
            store.images.pull(name)
        Store(tmp_path, insecure_registries=(f"127.0.0.1:{found.port}",)).images.pull(name)


def test_a_mirror_is_asked_first_and_the_registry_where_it_fails(
    plain: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    put(plain, "library/mirrored", tag="1")
    mirror = f"http://127.0.0.1:{plain.port}"
    store = Store(tmp_path, mirrors=(("docker.io", mirror),))
    assert store.images.pull("mirrored:1")[0].reference == "mirrored:1"
    assert store.images.inspect("mirrored:1")["RepoTags"] == ["mirrored:1"]
    # What the mirror has not is asked of the registry itself, whose answer is the one that is told.
    other = Store(tmp_path, mirrors=((plain.host, "http://127.0.0.1:1"),))
    put(plain, "direct")
    assert other.images.pull(f"{plain.host}/direct:1")[0].changed
    with pytest.raises(NotFound, match=r"manifest for .*/direct:9 not found"):
        Store(tmp_path, mirrors=((plain.host, mirror),)).images.pull(f"{plain.host}/direct:9")


# The command line


def test_what_is_printed(plain: Registry, new_root: Root) -> None:
    digest = put(plain, "shown", *LAYERS, tag="latest")
    name = f"{plain.host}/shown"
    lines = new_root.cli("pull", name).ok().out.splitlines()
    low, high = (of_bytes(layer)[7:19] for layer in LAYERS)
    assert lines[:2] == ["Using default tag: latest", "latest: Pulling from shown"]
    assert lines[-3:] == [f"Digest: {digest}", f"Status: Downloaded newer image for {name}:latest", f"{name}:latest"]
    for layer in (low, high):
        own = [line.partition(": ")[2] for line in lines if line.startswith(f"{layer}: ")]
        assert own == ["Pulling fs layer", "Verifying Checksum", "Download complete", "Pull complete"]
    again = new_root.cli("pull", f"{name}:latest").ok().out.splitlines()
    assert again == [
        "latest: Pulling from shown",
        f"Digest: {digest}",
        f"Status: Image is up to date for {name}:latest",
        f"{name}:latest",
    ]
    quiet = new_root.cli("pull", "-q", name).ok()
    assert (quiet.out, quiet.err) == (f"{name}:latest\n", "")
    events = new_root.cli(
        "events", "--since", "1h", "--until", "0s", "--filter", "event=pull", "--format", "{{.Action}} {{.Actor.ID}}"
    ).ok()
    assert events.out.splitlines() == [f"pull {name}:latest"] * 3


def test_on_a_terminal_each_layer_has_a_line(plain: Registry, new_root: Root) -> None:
    put(plain, "terminal", *(gzip.compress(archive({f"t{i}": os.urandom(100_000)})) for i in range(4)))
    with new_root.terminal("pull", f"{plain.host}/terminal:1", columns=140) as terminal:
        terminal.wait()
        text = terminal.output.decode()
    assert "\x1b[2K" in text
    assert re.search(r"[0-9a-f]{12}: Downloading \[=+>? *\]", text)
    assert text.count("Pull complete") == 4


def test_run_pulls_what_is_not_here(plain: Registry, new_root: Root) -> None:
    members = base_image(new_root)
    upload(f"http://127.0.0.1:{plain.port}", "runs", "1", members)
    name = f"{plain.host}/runs:1"
    never = new_root.cli("run", "--rm", "--network", "none", "--pull", "never", name, "echo", "hi")
    assert never.code == 125
    assert f"No such image: {name}" in never.err
    first = new_root.cli("run", "--rm", "--network", "none", name, "echo", "hi").ok()
    assert first.out == "hi\n"
    assert first.err.startswith(f"Unable to find image '{name}' locally\n1: Pulling from runs\n")
    assert new_root.cli("run", "--rm", "--network", "none", name, "echo", "hi").ok().err == ""
    always = new_root.cli("run", "--rm", "--network", "none", "--pull", "always", name, "echo", "hi").ok()
    assert "Status: Image is up to date for" in always.err
    new_root.cli("rmi", name).ok()
    quiet = new_root.cli("create", "-q", "--network", "none", name, "true").ok()
    assert quiet.err == ""
    missing = new_root.cli("run", "--rm", f"{plain.host}/none:1")
    assert missing.code == 125
    assert f"manifest for {plain.host}/none:1 not found" in missing.err


def test_create_and_inspect_with_a_platform(plain: Registry, new_root: Root) -> None:
    other = "s390x" if ARCHITECTURE != "s390x" else "amd64"
    put_index(plain, "either", **{ARCHITECTURE: image_for(ARCHITECTURE), other: image_for(other)})
    name, cli = f"{plain.host}/either:1", new_root.cli
    box = cli("create", "--network", "none", "--platform", f"linux/{other}", name, "prog").ok()
    assert f"Unable to find image '{name}' locally" in box.err
    (shown,) = json.loads(cli("image", "inspect", "--platform", f"linux/{other}", name).ok().out)
    assert shown["Architecture"] == other
    assert cli("inspect", "--format", "{{.Image}}", box.out.strip()).ok().out.strip() == shown["Id"]
    # What is here is for another platform than the one that is wanted: that one is fetched, or it is told.
    refused = cli("run", "--rm", "--pull", "never", "--platform", f"linux/{ARCHITECTURE}", name, "prog")
    assert (refused.code, "does not match the specified platform" in refused.err) == (125, True)
    cli("create", "--network", "none", "--pull", "always", "--platform", f"linux/{ARCHITECTURE}", name, "prog").ok()
    assert json.loads(cli("image", "inspect", name).ok().out)[0]["Architecture"] == ARCHITECTURE
    wrong = cli("run", "--rm", "--pull", "always", "--platform", "linux/riscv64", name, "prog")
    assert (wrong.code, "no matching manifest for linux/riscv64" in wrong.err) == (125, True)


def base_image(root: Root) -> dict[str, bytes]:
    """`base` as the members of an OCI layout."""
    import io
    import tarfile

    data = (
        root.cli("save", "base").out_bytes
        or root.cli("run", "--rm", "--network", "none", "base", "true").ok().out_bytes
    )
    data = data or root.cli("save", "base").ok().out_bytes
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        found = {m.name: tar.extractfile(m).read() for m in tar if m.isfile()}  # type: ignore[union-attr]
    return {name: data for name, data in found.items() if name.startswith("blobs/") or name == "index.json"}


def test_a_terminal_that_goes_away_ends_nothing(plain: Registry, new_root: Root) -> None:
    put(plain, "pipe", gzip.compress(archive({"pipe": os.urandom(100_000)})))
    with new_root.cli.start("pull", f"{plain.host}/pipe:1", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(60)
    assert new_root.cli("images", "-q", f"{plain.host}/pipe").ok().out != ""
