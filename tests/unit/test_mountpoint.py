"""Mount points as they are kept in a record and shown by inspect."""

from __future__ import annotations

import pytest

from sampan import jsontext
from sampan.oci.mountpoint import BIND, IMAGE, TMPFS, VOLUME, MountPoint, mount_points
from sampan.store.record import SCHEMA, Record, parse_record

POINTS = (
    MountPoint(VOLUME, "/data", source="/v/x/_data", name="x", driver="local", mode="z"),
    MountPoint(BIND, "/w", source="/w", rw=False, propagation="rslave", match_user=(1000, 1000), create_source=True),
    MountPoint(TMPFS, "/t", options=("noexec", "size=1")),
    MountPoint(IMAGE, "/i", source="sha256:1", name="base", layers=("sha256:2", "sha256:3"), rw=False),
)


def record(**fields: object) -> Record:
    return Record(
        **{  # type: ignore[arg-type]
            **dict.fromkeys([f for f in Record._fields if not hasattr(Record, f)], ""),
            "schema": SCHEMA,
            "id": "0" * 64,
            "layers": (),
            "args": (),
            "config": {},
            "host_config": {},
            **fields,
        }
    )


def test_a_record_keeps_them() -> None:
    made = record(mounts=POINTS)
    assert parse_record(made.id, made.to_bytes(), "r") == made


def test_a_record_from_before_there_were_any_has_none() -> None:
    data = jsontext.loads(record().to_bytes())
    del data["mounts"]
    assert parse_record("0" * 64, jsontext.dumps(data), "r") == record()


def test_one_that_is_no_mount_point_breaks_the_record() -> None:
    data = jsontext.loads(record().to_bytes()) | {"mounts": [{"type": "bind", "destination": "/x", "colour": "red"}]}
    assert "colour" in parse_record("0" * 64, jsontext.dumps(data), "r").broken


@pytest.mark.parametrize(
    ("point", "keys"),
    [
        (POINTS[0], ["Type", "Name", "Source", "Destination", "Driver", "Mode", "RW", "Propagation"]),
        (POINTS[2], ["Type", "Source", "Destination", "Mode", "RW", "Propagation"]),
    ],
)
def test_shown_as_docker_shows_them(point: MountPoint, keys: list[str]) -> None:
    assert list(point.shown()) == keys
    assert mount_points([point.to_json()]) == (point,)
