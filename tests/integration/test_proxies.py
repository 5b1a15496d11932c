"""HTTP_PROXY, HTTPS_PROXY and NO_PROXY: registries that nobody but a proxy knows the way to."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest

from sampan.errors import Unavailable

from support.imagestore import Store, archive
from support.proxy import proxy
from support.registry import PASSWORD, USER, Certificates, htpasswd, registry

pytestmark = pytest.mark.root

NAME = "registry.test:5000"  # A name that is nobody's (RFC 6761): without the proxy it leads nowhere.
IMAGE = f"{NAME}/team/app:1"


@pytest.fixture(autouse=True)
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    monkeypatch.setattr("sampan.registry.client._FIRST_PAUSE", 0.01)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_plain_http_through_a_proxy_that_wants_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store", insecure_registries=(NAME,))
    image_id = store.images.import_(io.BytesIO(archive({"a": b"1"})), IMAGE)
    with registry(tmp_path / "registry") as found, proxy({NAME: found.port}) as way:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:secret@{way.address}")
        digest = store.images.push(IMAGE)[0].digest
        pulled = Store(tmp_path / "other", insecure_registries=(NAME,)).images.pull(IMAGE)[0]
        assert (pulled.id, pulled.digest) == (image_id, digest)
        assert {asked[3] for asked in way.asked} == {"Basic " + base64.b64encode(b"me:secret").decode()}
        assert all(asked[1].startswith(f"http://{NAME}/v2/") for asked in way.asked)
        assert {"GET", "HEAD", "POST", "PATCH", "PUT"} == {asked[0] for asked in way.asked}
        # Who is excepted goes straight, which leads nowhere here.
        monkeypatch.setenv("NO_PROXY", "other.test,.test")
        before = len(way.asked)
        with pytest.raises(Unavailable, match=r"registry\.test"):
            Store(tmp_path / "third", insecure_registries=(NAME,)).images.pull(IMAGE)
        assert len(way.asked) == before


def test_tls_goes_through_a_tunnel_and_the_proxy_sees_no_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = Certificates(tmp_path / "tls", "DNS:registry.test,DNS:localhost,IP:127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.authority))
    store = Store(tmp_path / "store")
    store.images.import_(io.BytesIO(archive({"a": b"1"})), IMAGE)
    auth = htpasswd(tmp_path / "users")
    with registry(tmp_path / "registry", auth=auth, tls=certificates) as found, proxy({NAME: found.port}) as way:
        monkeypatch.setenv("HTTPS_PROXY", way.address)  # Without a scheme it is an HTTP proxy.
        assert store.images._registries is not None
        store.images._registries().login(NAME, USER, PASSWORD)
        digest = store.images.push(IMAGE)[0].digest
        assert Store(tmp_path / "other").images.pull(IMAGE)[0].digest == digest
        assert {asked[:3] for asked in way.asked} == {("CONNECT", NAME, "")}


def test_a_proxy_that_is_not_there_or_knows_no_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path / "store")
    with proxy({}) as way:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{way.address}")
        with pytest.raises(Unavailable, match=r"proxyconnect tcp: .*502"):
            store.images.pull(IMAGE)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:secret@{way.address}")
    with pytest.raises(Unavailable) as gone:
        store.images.pull(IMAGE)
    words = f"proxyconnect tcp: dial tcp {way.address}: connect: connection refused"
    assert str(gone.value) == f'Get "https://{NAME}/v2/": {words}'
    assert store.files() == []
