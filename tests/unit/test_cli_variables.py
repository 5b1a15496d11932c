"""--env-file and --label-file, compared with docker 28.2.2."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan.cli import variables
from sampan.cli.variables import read_environment, read_labels
from sampan.errors import InvalidParameter


def file(tmp_path: Path, data: bytes) -> str:
    path = tmp_path / "file"
    path.write_bytes(data)
    return str(path)


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"A=1\nB=2\n", ["A=1", "B=2"]),
        (b"A=1", ["A=1"]),
        (b"", []),
        (b"# comment\n  # another\n\n   \nA=1\n", ["A=1"]),
        (b"  A=1\n\tB=2\n", ["A=1", "B=2"]),
        (b"A=  x  \n", ["A=  x  "]),
        (b"A='x' # no comment\n", ["A='x' # no comment"]),
        (b"A=\n", ["A="]),
        (b"A=b=c\n", ["A=b=c"]),
        (b"A=1\r\nB=2\r\n", ["A=1", "B=2"]),
        (b"\xef\xbb\xbfA=1\n", ["A=1"]),
        ("A=é\n".encode(), ["A=é"]),
        (b"A=1\nA=2\n", ["A=1", "A=2"]),
    ],
)
def test_lines_are_taken_as_they_are(tmp_path: Path, data: bytes, lines: list[str]) -> None:
    assert read_environment([file(tmp_path, data)], []) == lines


def test_a_lone_name_has_the_callers_value_or_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPAN_THERE", "x y")
    monkeypatch.delenv("SAMPAN_NOT", raising=False)
    assert read_environment([file(tmp_path, b"SAMPAN_THERE\nSAMPAN_NOT\n")], []) == ["SAMPAN_THERE=x y"]


def test_flags_come_after_files(tmp_path: Path) -> None:
    assert read_environment([file(tmp_path, b"A=file\n")], ["A=flag"]) == ["A=file", "A=flag"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"A B=1\n", "invalid env file ({}): variable 'A B' contains whitespaces"),
        (b"export D=1\n", "invalid env file ({}): variable 'export D' contains whitespaces"),
        (b"A \n", "invalid env file ({}): variable 'A ' contains whitespaces"),
        (b"A=1\n=x\n", "invalid env file ({}): no variable name on line '=x'"),
        (b"A=1\nB=\xff\n", "invalid env file ({}): invalid utf8 bytes at line 2: [66 61 255]"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, data: bytes, message: str) -> None:
    path = file(tmp_path, data)
    with pytest.raises(InvalidParameter) as caught:
        read_environment([path], [])
    assert str(caught.value) == message.format(path)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidParameter, match=r"^open /nope/file: no such file or directory$"):
        read_environment(["/nope/file"], [])
    with pytest.raises(InvalidParameter, match=r"is a directory$"):
        read_environment([str(tmp_path)], [])


def test_a_file_without_an_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(variables, "LARGEST", 1 << 16)
    with pytest.raises(InvalidParameter, match="larger than"):
        read_environment(["/dev/zero"], [])


def test_labels(tmp_path: Path) -> None:
    path = file(tmp_path, b"a=1\nlone\n# c\nb=2\n")
    assert read_labels([path], ["q", "r=1=2", "b=3"]) == {"a": "1", "b": "3", "q": "", "r": "1=2"}
