"""Digests: what names content, and what must never become a file name."""

from __future__ import annotations

import hashlib

import pytest

from sampan.errors import InvalidParameter
from sampan.oci import digest, platform

HEX = hashlib.sha256(b"").hexdigest()


def test_a_digest_is_taken_apart() -> None:
    assert digest.parse(f"sha256:{HEX}") == ("sha256", HEX)
    assert digest.parse("sha512:" + "a" * 128) == ("sha512", "a" * 128)
    assert digest.sha256_hex(f"sha256:{HEX}") == HEX


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid checksum digest format"),
        ("sha256", "invalid checksum digest format"),
        ("sha256:", "invalid checksum digest format"),
        (f":{HEX}", "invalid checksum digest format"),
        (f"md5:{HEX[:32]}", "unsupported digest algorithm"),
        (f"SHA256:{HEX}", "unsupported digest algorithm"),
        (f"sha256:{HEX[1:]}", "invalid checksum digest length"),
        (f"sha256:{HEX[:-2]}/.", "invalid checksum digest format"),
        (f"sha256:{HEX.upper()}", "invalid checksum digest format"),
        (f"sha256:{HEX}\n", "invalid checksum digest length"),
    ],
)
def test_what_is_no_digest_is_refused(text: str, message: str) -> None:
    with pytest.raises(InvalidParameter) as error:
        digest.parse(text)
    assert str(error.value) == message


def test_only_sha256_becomes_a_file_name() -> None:
    with pytest.raises(InvalidParameter, match="unsupported digest algorithm"):
        digest.sha256_hex("sha512:" + "a" * 128)


@pytest.mark.parametrize("size", [0, 1, 65536, 65537, 1 << 20])
def test_small_and_large_data_are_hashed_alike(size: int) -> None:
    data = bytes(size)
    assert digest.of_bytes(data) == f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("x86_64", "linux/amd64"),
        ("linux/aarch64", "linux/arm64"),
        ("armhf", "linux/arm/v7"),
        ("Linux/AMD64", "linux/amd64"),
        ("s390x", "linux/s390x"),
        ("windows", f"windows/{platform.here().architecture}"),
    ],
)
def test_platforms_are_named_as_go_names_them(text: str, shown: str) -> None:
    assert str(platform.parse(text)) == shown


@pytest.mark.parametrize("text", ["", "a/b/c/d", "linux/", "linux/a b"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidParameter, match="platform"):
        platform.parse(text)


def test_one_word_is_a_system_or_an_architecture() -> None:
    with pytest.raises(InvalidParameter, match='"nosuch": unknown operating system or architecture'):
        platform.parse("nosuch")


def test_newer_arm_runs_older() -> None:
    assert platform.of_machine("armv7l").runs(platform.parse("linux/arm/v6"))
    assert not platform.of_machine("armv6l").runs(platform.parse("linux/arm/v7"))
    assert platform.of_machine("aarch64").runs(platform.parse("linux/arm64"))
    assert not platform.of_machine("aarch64").runs(platform.parse("linux/amd64"))
