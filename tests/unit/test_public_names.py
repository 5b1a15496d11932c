"""What `import sampan` offers is a list, and importing it costs next to nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

import sampan


def test_the_public_names() -> None:
    assert sorted(sampan.__all__) == ["Engine", "SampanError", "__version__", "connect"]
    assert dir(sampan) == sorted(sampan.__all__)


def test_every_public_name_is_there() -> None:
    for name in sampan.__all__:
        assert getattr(sampan, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'sampan' has no attribute 'Docker'"):
        sampan.Docker  # noqa: B018


def test_errors_come_from_one_family_with_a_status_each() -> None:
    from sampan import errors

    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, Exception)]
    assert all(issubclass(k, sampan.SampanError) for k in kinds)
    statuses = {k.__name__: k("text").http_status for k in kinds}
    assert statuses == {
        "SampanError": 500,
        "NotFound": 404,
        "ImageNotFound": 404,
        "Unauthorized": 401,
        "InvalidParameter": 400,
        "Conflict": 409,
        "NotModified": 304,
        "Forbidden": 403,
        "Prohibited": 403,
        "Unavailable": 503,
        "System": 500,
        "Damaged": 500,
        "StartFailed": 500,
    }
    assert errors.StartFailed("not found", container_exit_code=127).http_status == 400


def test_importing_the_package_imports_nothing_else() -> None:
    program = "import sys; before = set(sys.modules); import sampan; print(*sorted(set(sys.modules) - before))"
    result = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["__future__", "sampan"]
