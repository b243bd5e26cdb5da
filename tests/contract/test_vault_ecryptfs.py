"""What is EcryptfsVault's own, on a real eCryptfs: keys in the kernel, signatures, what a changed byte does."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from emlab.clock import wait_until
from emlab.errors import VaultBusy, VaultDamaged, VaultError, WrongKey
from emlab.key import Key
from emlab.vaults import ecryptfs_token as token
from emlab.vaults import mounts
from emlab.vaults.ecryptfs import EcryptfsVault
from tests.canary import search_bytes
from tests.mounting import namespace

WAIT_S = 10.0
on_ecryptfs = pytest.mark.needs("ecryptfs")


@pytest.fixture
def vault(tmp_path: Path, key: Key) -> Iterator[EcryptfsVault]:
    made = EcryptfsVault(tmp_path / "vault")
    made.create(key)
    yield made
    made.close()


@on_ecryptfs
class TestKeys:
    def test_the_kernel_has_no_key_that_anybody_could_ask_for(self, vault: EcryptfsVault, key: Key) -> None:
        """The mount has its own reference; with the keyring's gone, nobody finds the key by its name."""
        vault.open(key)
        names = vault._known_signatures()
        assert len(set(names)) == 2
        assert all(name in token.known() for name in names)
        assert not any(map(can_be_found, names))
        vault.close()
        assert not any(name in token.known() for name in names)

    def test_a_key_is_found_as_long_as_it_is_lent(self, key: Key) -> None:
        raw = key.derive("x", size=64)
        with token.lent(raw):
            assert can_be_found(token.signature(raw))
        assert not can_be_found(token.signature(raw))

    def test_no_key_is_shown_anywhere(self, vault: EcryptfsVault, key: Key) -> None:
        vault.open(key)
        data_key = vault._header.read("ecryptfs").unlock(key)
        secrets = [key.raw(), data_key.raw()]
        secrets += [data_key.derive(f"ecryptfs {what}", size=64)[:32] for what in ("contents", "names")]
        for path in ("/proc/self/mountinfo", "/proc/mounts", "/proc/keys", "/proc/self/cmdline", "/proc/self/environ"):
            assert search_bytes(Path(path).read_bytes(), secrets) == []

    def test_a_loan_that_fails_halfway_leaves_nothing(self, key: Key) -> None:
        good = key.derive("x", size=64)
        with pytest.raises(ValueError, match="not 3"), token.lent(good, b"bad"):
            raise AssertionError("the block must not be entered")
        assert not can_be_found(token.signature(good))
        assert wait_until(lambda: token.signature(good) not in token.known(), WAIT_S)


def can_be_found(name: str) -> bool:
    """Whether this thread finds a key of that name in a keyring of its own, its process, session or user."""
    keyctl, search_keyring = token._CALLS[platform.machine()][1], 10
    for keyring in (-1, -2, -3, -4, -5):
        found = mounts.libc().syscall(keyctl, search_keyring, keyring, b"user", name.encode(), 0)
        if found > 0:
            return True
        assert ctypes.get_errno() == errno.ENOKEY
    return False


@on_ecryptfs
class TestMount:
    def test_the_kernel_took_what_was_asked_for(self, vault: EcryptfsVault, key: Key) -> None:
        vault.open(key)
        (mount,) = mounts.at(vault.clear)
        assert mount.flags >= {"nosuid", "nodev", "noexec"}
        assert [mount.options["ecryptfs_sig"], mount.options["ecryptfs_fnek_sig"]] == vault._known_signatures()
        assert (mount.options["ecryptfs_cipher"], mount.options["ecryptfs_key_bytes"]) == ("aes", "32")

    def test_the_signature_is_compared_before_anything_is_mounted(self, vault: EcryptfsVault, key: Key) -> None:
        good = vault._signatures.read_text()
        vault._signatures.write_text(" ".join(reversed(good.split())))
        with pytest.raises(WrongKey):
            vault.open(key)
        for bad in ("", good[:20], "x" * 10_000, good.upper() + "Z"):
            vault._signatures.write_text(bad)
            with pytest.raises(VaultDamaged, match="two signatures"):
                vault.open(key)
        vault._signatures.unlink()
        with pytest.raises(VaultDamaged, match="two signatures"):
            vault.open(key)
        assert mounts.at(vault.clear) == []
        vault._signatures.write_text(good)
        vault.open(key)

    def test_a_name_has_at_most_143_bytes(self, vault: EcryptfsVault, key: Key) -> None:
        clear = vault.open(key)
        (clear / ("n" * 143)).touch()
        with pytest.raises(OSError, match="too long") as caught:
            (clear / ("n" * 144)).touch()
        assert caught.value.errno == errno.ENAMETOOLONG

    def test_a_vault_in_a_vault_is_refused_by_name(self, vault: EcryptfsVault, key: Key) -> None:
        inner = EcryptfsVault(vault.open(key) / "inner")
        inner.create(key)
        with pytest.raises(VaultError, match="cannot mount eCryptfs"):
            inner.open(key)
        assert not inner.is_open

    @pytest.mark.parametrize("propagation", ["private", "slave"])
    def test_what_another_namespace_keeps_open_is_not_called_closed(
        self, vault: EcryptfsVault, key: Key, propagation: str
    ) -> None:
        (vault.open(key) / "file").write_text("kept")
        with namespace(propagation) as other:
            assert wait_until(lambda: mounts.elsewhere(vault._is_mine) != [], WAIT_S)
            with pytest.raises(VaultBusy, match=rf"\(process {other.pid}\)"):
                vault.close()
            assert (vault.clear / "file").read_text() == "kept"
        vault.close()
        assert not vault.is_open


@on_ecryptfs
class TestData:
    def test_a_changed_byte_is_garbage_and_no_error(self, vault: EcryptfsVault, key: Key) -> None:
        """eCryptfs has no integrity; the documentation says so, and this is why it may."""
        text = b"0123456789" * 1000
        (vault.open(key) / "file").write_bytes(text)
        vault.close()
        (lower,) = vault._lower.iterdir()
        raw = bytearray(lower.read_bytes())
        raw[8192 + 4096 + 100] ^= 1  # behind the header, in the second page
        lower.write_bytes(raw)
        found = (vault.open(key) / "file").read_bytes()
        assert len(found) == len(text)
        assert found[:4096] == text[:4096]
        assert found != text

    def test_a_file_that_was_not_encrypted_is_no_file(self, vault: EcryptfsVault, key: Key) -> None:
        clear = vault.open(key)
        (clear / "file").write_text("kept")
        vault.close()
        (lower,) = vault._lower.iterdir()
        lower.write_bytes(b"planted in the clear")
        with pytest.raises(OSError, match="Input/output"):
            (vault.open(key) / "file").read_bytes()


def test_what_is_missing_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emlab.vaults.ecryptfs._kernel_has_it", lambda: False)
    assert os.uname().release in str(EcryptfsVault.missing())
    monkeypatch.setattr("emlab.vaults.ecryptfs._kernel_has_it", lambda: True)
    monkeypatch.setattr("emlab.vaults.ecryptfs._may_mount", lambda: True)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    assert "only root mounts eCryptfs, or a helper container" in str(EcryptfsVault.missing())
    monkeypatch.setenv("DOCKER_HOST", "tcp://10.0.0.1:2376")
    assert "is on another host" in str(EcryptfsVault.missing())
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert EcryptfsVault.missing() is None
    monkeypatch.setattr("emlab.vaults.ecryptfs._may_mount", lambda: False)
    assert "CAP_SYS_ADMIN" in str(EcryptfsVault.missing())
    monkeypatch.setattr("platform.machine", lambda: "s390x")
    assert "x86_64" in str(EcryptfsVault.missing())
