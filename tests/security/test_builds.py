"""Dockerfiles, contexts and repositories that were made to harm whoever builds them. Named after what others had to mend."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from support.builds import Builds, build, store
from support.gitweb import Repository, git_web
from support.web import body, web

__all__ = ["build", "store"]

pytestmark = pytest.mark.root

SECRET = "what-only-the-host-knows"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory of the host's that no build has anything to do with."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "file").write_text(SECRET)
    # Empty ones: what a place for a mount looks like to who takes it away.
    (place / "deep" / "er").mkdir(parents=True)
    (place / "empty").touch()
    return place


def is_untouched(outside: Path) -> bool:
    names = sorted(str(path.relative_to(outside)) for path in outside.rglob("*"))
    return names == ["deep", "deep/er", "empty", "file"] and (outside / "file").read_text() == SECRET


def test_a_command_that_puts_links_where_mounts_were_moves_nothing_of_the_host(build: Builds, outside: Path) -> None:
    """CVE-2024-23652: the places of mounts are taken away without following what is there by then."""
    done = build(
        f"""
FROM base
RUN --mount=type=tmpfs,target=/gone/deep/er mv /gone /moved && ln -s {outside} /gone
RUN --mount=type=tmpfs,target=/x/deep/er --mount=type=secret,id=s,target=/x/empty mv /x /y && mkdir /x && ln -s {outside}/deep /x/deep && ln -s {outside}/empty /x/empty
RUN ln -s {outside} /link
RUN --mount=type=tmpfs,target=/link/deep/er true
RUN test -L /gone -a -L /x/deep -a -L /x/empty -a -d /moved/deep/er
""",
        *("--secret", f"id=s,src={outside}/file"),
    ).ok()
    assert is_untouched(outside)
    assert SECRET not in done.err


@pytest.mark.long
def test_a_stage_that_flips_links_in_a_cache_moves_no_mount_of_another_one(build: Builds, outside: Path) -> None:
    """CVE-2024-23651, CVE-2024-11218: places below a cache mount, while another step makes directories and links of them in turns."""
    flip = f"rm -rf x; mkdir x; rm -rf x; ln -s {outside} x; rm -f x; ln -s /proc/1/root{outside} x"
    mounts = "--mount=type=cache,target=/c --mount=type=tmpfs,target=/c/x/made --mount=type=cache,target=/c/x/deep,id=k"
    # The one flips until the other one is done, and may lose: a place that is a link by then is refused.
    tries = "\n".join(f"RUN {mounts} touch /c/x/made/{n} /c/x/deep/{n}" for n in range(6))
    done = build(
        f"""
FROM base AS flipping
RUN --mount=type=cache,target=/c cd /c; touch begun; for i in $(seq 1500); do {flip}; done; true
FROM base AS mounting
RUN --mount=type=cache,target=/c until test -e /c/begun; do sleep 0.01; done
{tries}
FROM base
COPY --from=flipping /etc/passwd /a
COPY --from=mounting /etc/passwd /b
""",
        timeout=180,
    )
    assert "touch /c/x/made/0" in done.err
    assert is_untouched(outside)
    assert build.cli("ps", "-aq").ok().out == ""
    assert build.cli("system", "check").ok().out == "nothing found\n"


@pytest.mark.long
def test_cache_mounts_have_no_way_out(build: Builds, outside: Path) -> None:
    """CVE-2024-23651, CVE-2024-9675: neither by what a step leaves in a cache, nor by its id, nor by links at its source."""
    done = build(
        f"""
FROM base AS evil
RUN ln -s / /root-link && ln -s {outside} /out && mkdir /d && ln -s {outside} /d/sub
FROM base
RUN --mount=type=cache,target=/c,id=../../../../../../../../../../..{outside} touch /c/written
RUN --mount=type=cache,target=/c,id=k rm -rf /c/* && ln -s {outside} /c/data && ln -s {outside}/file /c/f
RUN --mount=type=cache,target=/c,id=k ! cat /c/f && ! ls /c/data
RUN --mount=type=bind,from=evil,source=/root-link{outside},target=/m ls -A /m || true
"""
    )
    assert is_untouched(outside)
    assert SECRET not in done.err
    for source in ("/out", f"/root-link/../../../..{outside}", "/d/sub/file"):
        for kind in ("bind", "cache"):
            done = build(
                f"FROM base AS evil\nRUN ln -s / /root-link && ln -s {outside} /out && mkdir /d && ln -s {outside} /d/sub\n"
                f"FROM base\nRUN --mount=type={kind},from=evil,source={source},target=/m cat /m/file /m\n"
            )
            assert done.code == 1, (kind, source)
            assert SECRET not in done.err
    assert is_untouched(outside)


@pytest.mark.long
def test_mounts_have_the_options_of_the_reference_and_no_others(build: Builds, outside: Path) -> None:
    """CVE-2024-1753, CVE-2024-9407: no propagation, no path of the host, no links of the context."""
    for words in (
        "bind-propagation=shared,target=/x",
        "type=bind,propagation=rshared,target=/x",
        "type=volume,target=/x",
    ):
        assert build(f"FROM base\nRUN --mount={words} true\n").code == 1
    (build.context / "l").symlink_to(outside)
    (build.context / "up").symlink_to("../outside")
    for source in ("l", "up", "l/file", "../outside", f"../../../../../..{outside}"):
        done = build(f"FROM base\nRUN --mount=source={source},target=/x cat /x /x/file\n")
        assert (done.code, SECRET in done.err) == (1, False), source
        done = build(f"FROM base\nCOPY {source} /x/\nRUN cat /x/* /x/*/*\n")
        assert (done.code, SECRET in done.err) == (1, False), source


def test_sockets_and_pipes_of_the_context_reach_no_command(build: Builds) -> None:
    """A read-only directory is none for a socket in it: whoever sees it talks to who listens."""
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(build.context / "s"))
        build(
            "FROM base\nRUN --mount=target=/c test -e /c/Dockerfile -a ! -e /c/s\nCOPY . /in\nRUN ! test -e /in/s\n"
        ).ok()


def test_a_dockerfile_of_somebody_elses_context_is_read_inside_of_it(build: Builds, outside: Path) -> None:
    """CVE-2026-33747: links of an archive lead to nothing of the host, neither by Dockerfile nor by .dockerignore."""
    for name, others in (("Dockerfile", {}), (".dockerignore", {"Dockerfile": b"FROM base\n"}), ("sub", {})):
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w") as tar:
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, f"{outside}" if name == "sub" else f"{outside}/file"
            tar.addfile(entry)
            for other, content in others.items():
                entry = tarfile.TarInfo(other)
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))
        flags = ("-f", "sub/file") if name == "sub" else ()
        done = build.cli("build", "--network", "none", *flags, "-", input=made.getvalue())
        assert SECRET not in done.err
        assert (done.code == 0) == (name == ".dockerignore"), done


@pytest.mark.parametrize(
    "address",
    [
        "ext::sh -c touch% {out}/made",
        "ext::sh%20-c%20touch%20{out}/made%20#.git",
        "file://{out}/r.git",
        "git@-oProxyCommand=touch {out}/made:x.git",
        "ssh://-oProxyCommand=touch%20{out}/made/x.git",
        "git://-x/r.git",
        "{url}/r.git#--upload-pack=touch {out}/made",
        "{url}/r.git#-x",
        "{url}/r.git#+refs/heads/*:refs/heads/*",
        "{url}/r.git#main:../../..",
        "{url}/r.git#main:linked",
        "{url}/r.git#main:linked/deeper",
        "--upload-pack=touch {out}/made#.git",
    ],
)
def test_addresses_of_repositories_are_no_options_and_lead_nowhere_else(
    build: Builds, outside: Path, tmp_path: Path, address: str
) -> None:
    """CVE-2019-13139, CVE-2022-39253, CVE-2026-33748."""
    made = Repository(tmp_path / "srv" / "r.git")
    (made.path / "linked").symlink_to(outside)
    made.put("Dockerfile", "FROM scratch\nCOPY . /\n")
    made.commit()
    with git_web(tmp_path / "srv") as url:
        address = address.format(out=outside, url=url)
        context = build.cli("build", "--", address)
        added = build(f'FROM scratch\nADD ["{address}", "/x/"]\n')
    for done in (context, added):
        assert done.code != 0
        assert SECRET not in done.err
    assert is_untouched(outside)


@pytest.mark.long
def test_submodules_of_a_repository_are_fetched_by_the_same_protocols_only(
    build: Builds, tmp_path: Path, outside: Path
) -> None:
    secret = Repository(tmp_path / "private.git")
    secret.put("f", SECRET)
    secret.commit()
    for address in (f"file://{secret.path}", str(secret.path), f"ext::sh -c touch% {outside}/made"):
        made = Repository(tmp_path / "srv" / f"r{len(address)}.git")
        made.put("Dockerfile", "FROM scratch\nCOPY . /\n")
        made.put(".gitmodules", f'[submodule "s"]\n\tpath = s\n\turl = {address}\n')
        commit = secret.git("rev-parse", "HEAD").strip()
        made.git("add", "-A")
        made.git("update-index", "--add", "--cacheinfo", f"160000,{commit},s")
        made.git("commit", "-q", "-m", "c")
        with git_web(tmp_path / "srv") as url:
            done = build.cli("build", f"{url}/{made.path.name}")
        assert done.code != 0
        assert "not allowed" in done.err
    assert is_untouched(outside)


def test_nothing_of_the_caller_is_seen_by_a_command(build: Builds) -> None:
    """CVE-2021-3602: the environment is what the Dockerfile declares, and there are no descriptors but three."""
    done = build(
        "FROM base\nRUN env | sort; ls /proc/self/fd; cat /proc/1/cmdline\n",
        env={"AWS_SECRET_ACCESS_KEY": SECRET, "CALLER": "x"},
    ).ok()
    assert SECRET not in done.err
    assert "CALLER" not in done.err


@pytest.mark.long
def test_no_command_has_more_rights_than_a_container_unless_it_was_allowed(build: Builds) -> None:
    """CVE-2024-23653."""
    build("FROM base\nRUN ! mount -t tmpfs x /tmp\nRUN grep -q 'NoNewPrivs\\|Seccomp:.2' /proc/self/status\n").ok()
    for flag in ("--security=insecure", "--network=host"):
        assert build(f"FROM base\nRUN {flag} true\n").code == 1
    # What a base image leaves for who builds on it is not allowed more.
    build("FROM base\nONBUILD RUN --security=insecure mount -t tmpfs x /tmp\n", "-t", "trap").ok()
    done = build("FROM trap\n")
    assert (done.code, "security.insecure is not allowed" in done.err) == (1, True)


def test_secrets_are_in_no_trace_of_the_steps(build: Builds, tmp_path: Path) -> None:
    """CVE-2019-13509: `--debug` shows everything that is done, and no value."""
    file = tmp_path / "s"
    file.write_text(SECRET)
    (build.context / "Dockerfile").write_text(
        'FROM base\nRUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S test -n "$S" -a -s /run/secrets/s\n'
    )
    done = build.cli("--debug", "build", "--network", "none", "--secret", f"id=s,src={file}", str(build.context)).ok()
    assert "step" in done.err or "mount" in done.err
    assert SECRET not in done.err + done.out
    assert build.holds(SECRET.encode()) == []


def test_a_killed_build_leaves_no_secret(build: Builds, tmp_path: Path) -> None:
    """It is in the memory of the machine only, and the next build takes it away."""
    from support.patience import eventually

    file = tmp_path / "s"
    file.write_text(SECRET)
    (build.context / "Dockerfile").write_text(
        "FROM base\nRUN --mount=type=secret,id=s --mount=type=cache,target=/c,id=killed --mount=type=secret,id=s,env=S touch /c/here; sleep 600\n"
    )
    process = build.cli.start(
        "build", "--network", "none", "--secret", f"id=s,src={file}", str(build.context), stderr=subprocess.DEVNULL
    )
    eventually(lambda: list((build.root.root / "build" / "mounts").glob("*/data/here")))
    process.kill()
    process.wait()
    assert [path for path in build.holds(SECRET.encode()) if path.startswith(str(build.root.root))] == []
    for name in build.cli("ps", "-aq").ok().out.split():
        build.cli("rm", "-f", name)
    build("FROM base\n").ok()
    assert build.holds(SECRET.encode()) == []


@pytest.mark.long
def test_what_a_server_sends_is_bounded_and_is_a_file(build: Builds) -> None:
    """A name that a server chooses is no path, and an archive that it sends stays where it is put."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        entry = tarfile.TarInfo("up")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/"
        tar.addfile(entry)
        entry = tarfile.TarInfo("up/etc/planted")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"x"))
    with web() as server:
        server.answers = {"/a%2F..%2F..%2Fb": body(b"x"), "/t.tar": body(made.getvalue()), "/..": body(b"x")}
        build(
            f"FROM base\nADD {server.url('/a%2F..%2F..%2Fb')} /d/x\nADD --unpack=true {server.url('/t.tar')} /d/\n"
        ).ok()
        assert build(f"FROM base\nADD {server.url('/..')} /d/\n").code == 1
    assert not Path("/etc/planted").exists()
