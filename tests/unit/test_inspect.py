"""Records and what is on disk about their starts, as the Engine API shows them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from sampan.engine import fields, times, validate
from sampan.engine.inspect import Inspector, Life, command_line, status_text
from sampan.kernel import clock
from sampan.oci import lifecycle
from sampan.oci.network import Endpoint, Network
from sampan.store import states
from sampan.store.layout import ContainerPaths
from sampan.store.record import Record, parse_record
from sampan.structs import Struct

ID = "ab" * 32


class Root(Struct):
    kind: str = "overlay"
    lower: tuple[str, ...] = ("/init", "/top", "/bottom")
    upper: str = "/upper"
    work: str = "/work"


class Nowhere:
    """No networks at all."""

    def all(self) -> list[Network]:
        return []

    def endpoint(self, _network_id: str, _container_id: str) -> Endpoint | None:
        return None


class Places:
    """Records and snapshots of one container, in a directory of the test's."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "starts").mkdir()
        (directory / "monitor.lock").touch()
        (directory / "record.lock").touch()

    def paths(self, container_id: str) -> ContainerPaths:
        return ContainerPaths(container_id, str(self.directory), "/run/x")

    def root(self, _record: Record) -> Root:
        return Root()

    def usage(self, _record: Record) -> int:
        return 4096

    def image_size(self, _record: Record) -> int:
        return 10000

    def start(self, number: int, started: bool = True, **ended: Any) -> None:
        start = self.directory / "starts" / str(number)
        start.mkdir()
        if started:
            (start / "started").write_text(json.dumps({"pid": 77, "started": f"2026-01-0{number}T00:00:00Z"}))
        if ended:
            report = {"finished": f"2026-01-0{number}T01:00:00Z", "oom_killed": False, "error": "", "failed": False}
            (start / "exit.json").write_text(json.dumps(report | ended))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path)


def record(**host: Any) -> Record:
    config = fields.normalise_config({"Image": "base", "Cmd": ["sh", "-c", "echo a b"], "Labels": {"k": "v"}})
    shared = fields.normalise_host_config(host)
    validate.check_host_config(shared, config)
    return Record(
        1, ID, "box", "2026-01-01T00:00:00.5Z", "sha256:" + "0" * 64, "base", ("sha256:1",), "overlay", "sh",
        ("-c", "echo a b"), config, shared,
    )  # fmt: skip


def seen(places: Places) -> dict[str, Any]:
    made = record()
    return Inspector(places, places, Nowhere, "/root").inspect(made, states.observe(places.paths(ID), holding=True))[
        "State"
    ]


def test_a_container_that_was_never_started(places: Places) -> None:
    state = seen(places)
    assert state == {
        "Status": "created",
        "Running": False,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": False,
        "Dead": False,
        "Pid": 0,
        "ExitCode": 0,
        "Error": "",
        "StartedAt": "0001-01-01T00:00:00Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }


def test_an_exit(places: Places) -> None:
    places.start(1, exit_code=137, oom_killed=True)
    state = seen(places)
    assert (state["Status"], state["ExitCode"], state["OOMKilled"], state["Pid"]) == ("exited", 137, True, 0)
    assert (state["StartedAt"], state["FinishedAt"]) == ("2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z")


def test_a_first_start_that_failed_leaves_it_created_with_a_code_and_a_reason(places: Places) -> None:
    places.start(1, started=False, exit_code=127, error="not found", failed=True)
    state = seen(places)
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("created", 127, "not found")
    assert state["FinishedAt"] == times.ZERO


def test_a_later_start_that_failed_keeps_the_times_of_the_last_run(places: Places) -> None:
    places.start(1, exit_code=0)
    places.start(2, started=False, exit_code=126, error="denied", failed=True)
    state = seen(places)
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("exited", 126, "denied")
    assert state["StartedAt"] == "2026-01-01T00:00:00Z"


def test_a_lost_one_shows_what_settling_will_say(places: Places) -> None:
    places.start(1)
    state = seen(places)
    assert (state["Status"], state["ExitCode"]) == ("exited", 255)


def test_a_torn_exit_file_counts_as_none(places: Places) -> None:
    places.start(1)
    (places.directory / "starts/1/exit.json").write_text('{"exit_code": 0, "fini')
    assert states.observe(places.paths(ID), holding=True).status == lifecycle.LOST


def test_a_running_one(places: Places) -> None:
    made = record()
    running = states.Observation(lifecycle.RUNNING, 1, {"pid": 77, "started": clock.now()}, None, True)
    state = Inspector(places, places, Nowhere, "/root").inspect(made, running)["State"]
    assert (state["Status"], state["Running"], state["Pid"], state["FinishedAt"]) == ("running", True, 77, times.ZERO)
    assert Inspector(places, places, Nowhere, "/root").summary(made, running)["Status"] == "Up Less than a second"


def test_the_shape_of_inspect(places: Places) -> None:
    shown = Inspector(places, places, Nowhere, "/root").inspect(
        record(NetworkMode="host"), states.Observation(lifecycle.CREATED)
    )
    # docker inspect on API 1.51, less what belongs to Windows and to removed fields.
    assert set(shown) == {
        *("Id", "Created", "Path", "Args", "State", "Image", "ResolvConfPath", "HostnamePath", "HostsPath", "LogPath"),
        *("Name", "RestartCount", "Driver", "Platform", "MountLabel", "ProcessLabel", "AppArmorProfile", "ExecIDs"),
        *("HostConfig", "GraphDriver", "Mounts", "Config", "NetworkSettings"),
    }
    assert shown["Name"] == "/box"
    assert shown["LogPath"].endswith(f"/{ID}-json.log")
    assert shown["HostConfig"]["LogConfig"]["Type"] == "json-file"
    assert "/proc/kcore" in shown["HostConfig"]["MaskedPaths"]
    assert shown["GraphDriver"]["Data"]["LowerDir"] == "/init:/top:/bottom"
    assert list(shown["NetworkSettings"]["Networks"]) == ["host"]
    json.dumps(shown)


def test_privileged_hides_nothing(places: Places) -> None:
    shown = Inspector(places, places, Nowhere, "/root").inspect(
        record(Privileged=True), states.Observation(lifecycle.CREATED)
    )
    assert shown["HostConfig"]["MaskedPaths"] is None


def test_the_shape_of_a_listing(places: Places) -> None:
    item = Inspector(places, places, Nowhere, "/root").summary(
        record(), states.Observation(lifecycle.CREATED), size=True
    )
    assert item["Names"] == ["/box"]
    assert item["Command"] == "sh -c 'echo a b'"
    assert item["Created"] == 1767225600
    assert (item["State"], item["Status"], item["Image"]) == ("created", "Created", "base")
    assert item["HostConfig"] == {"NetworkMode": "bridge"}
    assert (item["SizeRw"], item["SizeRootFs"]) == (4096, 14096)


def test_a_broken_record_is_dead_and_can_be_shown(places: Places) -> None:
    broken = parse_record(ID, b"{", "/x/record.json")
    assert broken.broken.startswith("/x/record.json: ")
    shown = Inspector(places, places, Nowhere, "/root").inspect(broken, states.Observation(lifecycle.DEAD))
    assert shown["State"]["Status"] == "dead"
    assert "/x/record.json" in shown["State"]["Error"]
    assert (
        Inspector(places, places, Nowhere, "/root").summary(broken, states.Observation(lifecycle.DEAD))["Status"]
        == "Dead"
    )


def test_a_record_of_a_newer_version_is_not_guessed_at() -> None:
    data = json.loads(record().to_bytes())
    data["schema"] = 99
    assert "newer sampan" in parse_record(ID, json.dumps(data).encode(), "p").broken


def test_records_survive_the_disk() -> None:
    made = record().replace(args=("caf\udce9", "\0nul"))
    assert parse_record(ID, made.to_bytes(), "p") == made


# What docker ps says (go-units HumanDuration).
@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (14 * 86400, "2 weeks"),
        (60 * 86400, "2 months"),
        (2 * 365 * 86400, "2 years"),
    ],
)
def test_durations(seconds: float, words: str) -> None:
    assert times.human_duration(seconds) == words


def test_status_texts() -> None:
    ago = clock.rfc3339(time.time_ns() - 180 * 10**9)
    assert status_text(Life("exited", exit_code=3, started=ago, finished=ago)) == "Exited (3) 3 minutes ago"
    assert status_text(Life("running", started=ago)) == "Up 3 minutes"
    assert status_text(Life("created", exit_code=127)) == "Created"


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("0001-01-01T00:00:00Z", 0),
        ("", 0),
        ("2026-11-23T18:22:50.527228859Z", 1795458170527228859),
        ("2026-11-23T19:22:50.5+01:00", 1795458170500000000),
        ("2024-02-29T12:00:00Z", 1709208000000000000),
    ],
)
def test_times_are_read_back(text: str, nanoseconds: int) -> None:
    assert times.parse(text) == nanoseconds


def test_times_that_we_write_are_read_back() -> None:
    for then in (1, 999_999_999, 1795458170527228859):
        assert times.parse(clock.rfc3339(then)) == then


def test_command_lines_quote_words_with_blanks_only() -> None:
    assert command_line(record()) == "sh -c 'echo a b'"
