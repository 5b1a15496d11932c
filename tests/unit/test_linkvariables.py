"""The variables of links in the default network, as Docker documents them."""

from __future__ import annotations

from sampan.engine.linkvariables import variables


def test_ports_in_a_row_are_told_by_their_ends_too() -> None:
    found = variables("web", "a-b", "10.0.0.2", ["6001/tcp", "53/udp", "6000/tcp", "6002/tcp", "80"], [])
    assert "A_B_PORT=udp://10.0.0.2:53" in found
    assert "A_B_PORT_6000_TCP_START=tcp://10.0.0.2:6000" in found
    assert "A_B_PORT_6002_TCP_PORT_END=6002" in found
    assert "A_B_PORT_6001_TCP_PROTO=tcp" in found
    assert found[-1] == "A_B_NAME=/web/a-b"
    assert not any("START" in entry for entry in variables("web", "db", "10.0.0.2", ["1/tcp", "2/tcp", "3/udp"], []))


def test_without_ports_only_its_name_and_environment_are_told() -> None:
    environment = ["PATH=/bin", "HOME=/root", "A=1=2", "B=", "novalue"]
    assert variables("web", "db", "10.0.0.2", [], environment) == ["DB_NAME=/web/db", "DB_ENV_A=1=2", "DB_ENV_B="]
