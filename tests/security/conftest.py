"""Attacks on `sampan-oci` by a bundle: the containers of the conformance suite, of our runtime."""

from __future__ import annotations

import pytest

from support.conformance.fixtures import OURS, directory, oci, runtime, suite_directory, tools

__all__ = ["directory", "oci", "runtime", "runtime_program", "suite_directory", "tools"]


@pytest.fixture
def runtime_program() -> str:
    return OURS
