"""What ps, images, inspect, version and info print, compared with docker 28.2.2."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from sampan.cli import images, inspect, ps, system
from sampan.cli.output import Table


def container(**changes: Any) -> dict[str, Any]:
    return {
        "Id": "5405dfd29953b1154f9636160b4e330024aac7c854468bdb6c16095b154f4a6a", "Image": "busybox",
        "ImageID": "sha256:9760a716f6f9", "Command": "sleep 1000", "Created": time.time() - 24, "Status": "Up 3 seconds",
        "Names": ["/clixa"], "State": "running", "Labels": {}, "Mounts": [], **changes,
    }  # fmt: skip


def image(**changes: Any) -> dict[str, Any]:
    return {
        "Id": "sha256:9760a716f6f9f8ccdb1e6bb684d2b42a3fa177978bbb15dda67d72d298dc7b81", "RepoTags": ["busybox:latest"],
        "RepoDigests": [], "Created": time.time() - 720, "Size": 1982000, **changes,
    }  # fmt: skip


def test_columns_are_three_apart_and_ten_wide_at_least() -> None:
    table = Table(("CONTAINER ID", "IMAGE", "PORTS", "NAMES"), (("5405dfd29953", "busybox", "", "clixa"),))
    assert str(table) == (
        "CONTAINER ID   IMAGE     PORTS     NAMES\n"
        "5405dfd29953   busybox             clixa"
    )  # fmt: skip


def test_an_empty_table_has_its_heads() -> None:
    assert str(Table(("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"), ())) == (
        "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE"
    )


def test_a_container_in_the_table() -> None:
    fields = ps.fields(container(), long=False)
    assert [fields[name] for name in ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")] == [
        "5405dfd29953", "busybox", '"sleep 1000"', "24 seconds ago", "Up 3 seconds", "", "clixa",
    ]  # fmt: skip


def test_nothing_is_shortened_with_no_trunc() -> None:
    item = container(Command="sh -c 'while true; do sleep 1; done'")
    long = ps.fields(item, long=True)
    assert (long["ID"], long["Command"]) == (item["Id"], "\"sh -c 'while true; do sleep 1; done'\"")
    assert ps.fields(item, long=False)["Command"] == '"sh -c \'while true; …"'


@pytest.mark.parametrize(
    ("reference", "shown"),
    [("busybox", "busybox"), ("sha256:9760a716f6f9", "9760a716f6f9"), ("", "<no image>")],
)
def test_an_image_without_a_name_is_shown_by_its_id(reference: str, shown: str) -> None:
    assert ps.fields(container(Image=reference), long=False)["Image"] == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('a "b" \\', r'"a \"b\" \\"'),
        ("a\nb\tc", r'"a\nb\tc"'),
        ("\x1b[31m", r'"\x1b[31m"'),
        ("é…", '"é…"'),
        ("\udcff", r'"\xff"'),
        ("\u200b", r'"\u200b"'),
    ],
)
def test_a_command_cannot_write_to_the_terminal(text: str, shown: str) -> None:
    assert ps.quoted(text) == shown


def cells(item: dict[str, Any], long: bool) -> list[tuple[object, ...]]:
    return [
        tuple(row[field] for field in ("Repository", "Tag", "ID", "CreatedSince", "Size"))
        for row in images.lines_of(item, long)
    ]


def test_images_have_a_line_for_each_name() -> None:
    item = image(RepoTags=["busybox:latest", "localhost:5000/a/b:1"], RepoDigests=["busybox@sha256:0"])
    assert cells(item, long=False) == [
        ("busybox", "latest", "9760a716f6f9", "12 minutes ago", "1.98MB"),
        ("localhost:5000/a/b", "1", "9760a716f6f9", "12 minutes ago", "1.98MB"),
    ]


def test_images_without_a_tag() -> None:
    assert cells(image(RepoTags=[], RepoDigests=["a@sha256:0"]), True)[0][:3] == ("a", "<none>", image()["Id"])
    assert cells(image(RepoTags=None), False)[0][:2] == ("<none>", "<none>")


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0B"), (512, "512B"), (1000, "1kB"), (1982000, "1.98MB"), (123_456_789, "123MB"), (999_600, "1000kB"), (5e12, "5TB")],
)  # fmt: skip
def test_sizes_have_three_digits(size: float, shown: str) -> None:
    assert images.human_size(size) == shown


def test_inspect_prints_a_list_as_docker_does() -> None:
    assert inspect.document([]) == b"[]\n"
    assert inspect.document([{"Id": "x", "List": [], "Map": {}, "A": [1]}]) == (
        b'[\n    {\n        "Id": "x",\n        "List": [],\n        "Map": {},\n        "A": [\n            1\n        ]\n    }\n]\n'
    )


def test_what_is_not_utf8_is_still_json() -> None:
    text = inspect.document([{"Name": "\udcff é <&>"}])
    assert "é <&>".encode() in text
    assert json.loads(text) == [{"Name": "\udcff é <&>"}]


def test_memory_in_binary_units() -> None:
    assert system.binary_size(25277440000) == "23.54GiB"


def test_version_and_info_are_laid_out_as_dockers() -> None:
    from sampan.engine.system import version

    lines = system.version_text(version()).splitlines()
    assert lines[:2] == ["Sampan:", " Engine:"]
    assert lines[2].startswith("  Version:          ")
