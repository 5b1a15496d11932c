"""CMD and ENTRYPOINT of image and request, and the request's configuration laid over the image's."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.errors import InvalidParameter
from sampan.oci import changes, process

SHELL = ["/bin/sh", "-c"]

# The Dockerfile reference's table "Understand how CMD and ENTRYPOINT interact".
ENTRYPOINTS = {"none": None, "shell": "ENTRYPOINT exec_entry p1_entry", "exec": 'ENTRYPOINT ["exec_entry", "p1_entry"]'}
COMMANDS = {"none": None, "exec": 'CMD ["exec_cmd", "p1_cmd"]', "shell": "CMD exec_cmd p1_cmd"}
NINE = {
    ("none", "none"): None,
    ("none", "exec"): ["exec_cmd", "p1_cmd"],
    ("none", "shell"): [*SHELL, "exec_cmd p1_cmd"],
    ("shell", "none"): [*SHELL, "exec_entry p1_entry"],
    ("shell", "exec"): [*SHELL, "exec_entry p1_entry", "exec_cmd", "p1_cmd"],
    ("shell", "shell"): [*SHELL, "exec_entry p1_entry", *SHELL, "exec_cmd p1_cmd"],
    ("exec", "none"): ["exec_entry", "p1_entry"],
    ("exec", "exec"): ["exec_entry", "p1_entry", "exec_cmd", "p1_cmd"],
    ("exec", "shell"): ["exec_entry", "p1_entry", *SHELL, "exec_cmd p1_cmd"],
}


@pytest.mark.parametrize(("entrypoint", "command"), NINE)
def test_the_nine_combinations_of_the_reference(entrypoint: str, command: str) -> None:
    lines = [line for line in (ENTRYPOINTS[entrypoint], COMMANDS[command]) if line]
    image = changes.apply({}, lines)
    expected = NINE[entrypoint, command]
    if expected is None:
        with pytest.raises(InvalidParameter, match="no command specified"):
            process.resolve_argv(process.merge({}, image))
    else:
        assert process.resolve_argv(process.merge({}, image)) == expected


IMAGE = {"Entrypoint": ["entry"], "Cmd": ["cmd", "arg"]}


@pytest.mark.parametrize(
    ("request_config", "argv"),
    [
        ({}, ["entry", "cmd", "arg"]),
        ({"Cmd": ["x"]}, ["entry", "x"]),
        ({"Cmd": []}, ["entry", "cmd", "arg"]),
        ({"Entrypoint": ["e"]}, ["e"]),
        ({"Entrypoint": ["e"], "Cmd": ["x"]}, ["e", "x"]),
        ({"Entrypoint": [""], "Cmd": ["x"]}, ["x"]),
        ({"Entrypoint": []}, ["cmd", "arg"]),
        ({"Entrypoint": [], "Cmd": ["x"]}, ["x"]),
    ],
)
def test_a_request_overrides_the_image(request_config: dict[str, Any], argv: list[str]) -> None:
    assert process.resolve_argv(process.merge(request_config, IMAGE)) == argv


def test_clearing_the_entrypoint_clears_the_images_command_too() -> None:
    with pytest.raises(InvalidParameter) as error:
        process.resolve_argv(process.merge({"Entrypoint": [""]}, IMAGE))
    assert str(error.value) == "no command specified"


def test_members_are_merged_as_moby_merges_them() -> None:
    image = {
        "User": "u",
        "WorkingDir": "/w",
        "StopSignal": "QUIT",
        "Env": ["PATH=/image", "A=image", "ODD", "B=image"],
        "Labels": {"a": "image", "b": "image"},
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/v": {}},
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5, "Retries": 3},
    }
    request = {
        "Hostname": "h",
        "User": "own",
        "Env": ["A=own", "C=own"],
        "Labels": {"a": "own"},
        "ExposedPorts": {"81/tcp": {}},
        "Volumes": {"/o": {}},
        "Healthcheck": {"Interval": 7},
    }
    before = repr((image, request))
    merged = process.merge(request, image)
    assert repr((image, request)) == before
    assert merged == {
        "Hostname": "h",
        "User": "own",
        "WorkingDir": "/w",
        "StopSignal": "QUIT",
        "Env": ["A=own", "C=own", "PATH=/image", "ODD", "B=image"],
        "Labels": {"a": "own", "b": "image"},
        "ExposedPorts": {"80/tcp": {}, "81/tcp": {}},
        "Volumes": {"/v": {}, "/o": {}},
        "Healthcheck": {"Test": ["CMD", "x"], "Interval": 7, "Retries": 3},
        "Entrypoint": None,
        "Cmd": None,
    }


def test_an_empty_request_on_an_empty_image_has_dockers_empty_members() -> None:
    assert process.merge({}, {}) == {
        "User": "",
        "WorkingDir": "",
        "Env": [],
        "Labels": {},
        "Volumes": None,
        "Entrypoint": None,
        "Cmd": None,
    }


def test_a_variable_is_found_by_its_whole_name() -> None:
    assert process.environment_value(["AB=1", "A=2=3"], "A") == "2=3"
    assert process.environment_value(["A"], "A") is None
