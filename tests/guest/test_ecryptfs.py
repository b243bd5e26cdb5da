"""A real eCryptfs, driven by the two system calls alone, and clouds whose mongod keeps its data on it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

import emlab as em
from emlab.errors import Locked

pytestmark = pytest.mark.needs("ecryptfs")

ADD_KEY, KEYCTL, KEYCTL_UNLINK, PROCESS_KEYRING = 248, 250, 9, -2
EVER = (0.0, 2e9)
LIBC = ctypes.CDLL(None, use_errno=True)


def _token(key: bytes) -> tuple[str, bytes]:
    """The signature of a key of 64 bytes, and the kernel's struct ecryptfs_auth_tok of it (linux/ecryptfs.h)."""
    signature = hashlib.sha512(key).hexdigest()[:16]
    password = struct.pack("<IiIII64s17s8s3x", 0, 10, 0, 64, 2, key, signature.encode(), b"")
    return signature, struct.pack("<HHI588s32s", 4, 0, 0, b"", b"") + password


@pytest.fixture
def clear(tmp_path: Path) -> Iterator[Path]:
    """A mounted directory, whose ciphertext is in `lower` beside it."""
    lower, upper = tmp_path / "lower", tmp_path / "clear"
    lower.mkdir()
    upper.mkdir()
    signature, token = _token(os.urandom(64))
    key = LIBC.syscall(ADD_KEY, b"user", signature.encode(), token, len(token), PROCESS_KEYRING)
    assert key > 0, os.strerror(ctypes.get_errno())
    options = (
        f"ecryptfs_sig={signature},ecryptfs_fnek_sig={signature},ecryptfs_cipher=aes,ecryptfs_key_bytes=32,"
        "ecryptfs_mount_auth_tok_only"
    )
    status = LIBC.mount(os.fsencode(lower), os.fsencode(upper), b"ecryptfs", 2 | 4 | 8, options.encode())
    assert status == 0, os.strerror(ctypes.get_errno())
    assert LIBC.syscall(KEYCTL, KEYCTL_UNLINK, key, PROCESS_KEYRING) == 0
    yield upper
    assert LIBC.umount2(os.fsencode(upper), 0) == 0


def test_what_is_written_to_ecryptfs_is_ciphertext_below(clear: Path) -> None:
    words = b"at home since 18:04 " * 100
    (clear / "diary.txt").write_bytes(words)
    assert (clear / "diary.txt").read_bytes() == words
    (below,) = (clear.parent / "lower").iterdir()
    assert below.name.startswith("ECRYPTFS_FNEK_ENCRYPTED.")
    assert below.stat().st_size > len(words)
    assert words[:20] not in below.read_bytes()


@pytest.mark.parametrize(
    "engine", ["process", pytest.param("docker", marks=[pytest.mark.needs("docker"), pytest.mark.slow])]
)
@pytest.mark.needs("mongod")
def test_a_day_is_stored_made_a_diary_of_locked_unlocked_and_asked(engine: str, clear: Path) -> None:
    person = em.Simulator(1, 1, seed=5).person(0)
    exact = em.Aggregator(exact=True)
    with em.Lab(engine, "plain", default_policy=em.Policy.open(), aggregator=exact, home=clear / "home") as lab:
        cloud = lab.controller.signup(person.name, key=person.key)
        stored = cloud.store(person.entries())
        assert stored.inserted == stored.received > 100
        assert cloud.intake().trips >= 1
        trips = cloud.trips()
        cloud.lock()
        with pytest.raises(Locked):
            cloud.trips()
        cloud.unlock(person.key)
        assert cloud.trips().equals(trips)
        planner = lab.controller.register_provider("planner")
        release = planner.ask(em.CountUsers(None, *EVER), epsilon=1.0, min_users=1)
        assert (release.value, release.answered, release.failed) == (1, 1, 0)
