"""What is FscryptVault's own: names of keys as the kernel computes them, file systems that cannot, the disk's image."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from emlab.errors import VaultBusy, VaultDamaged, VaultError, WrongKey
from emlab.key import Key
from emlab.vaults import fscrypt_calls as kernel
from emlab.vaults.base import Found, Vault
from emlab.vaults.fscrypt import FscryptVault
from emlab.vaults.fscrypt_calls import KeyStatus
from tests.canary import Canary, search
from tests.contract.ordinary import USER, as_user

CANARIES: list[Canary] = ["Zebra-Crossing-4711"]


def use_it(vault: Vault) -> None:
    """All that can be done with a vault, by an ordinary user."""
    assert os.geteuid() != 0
    key = Key.random()
    vault.create(key)
    with (vault.open(key) / "file").open("w") as file:
        with pytest.raises(VaultBusy, match=str(os.getpid())):
            vault.close()
        (vault.open(key) / "new").touch()
        file.write("kept")
    vault.close()
    assert not vault.is_open
    assert not (vault.parent / "clear" / "file").exists()
    assert (vault.open(key) / "file").read_text() == "kept"
    vault.shred()


def written(disk: Path) -> Path:
    """The image under a file system, with all that was written to it."""
    subprocess.run(["sync", "-f", str(disk)], check=True)
    return disk.parent


def test_the_kernel_names_a_key_as_we_do(encrypting_disk: Path) -> None:
    raw = os.urandom(kernel.KEY_BYTES)
    name = kernel.identifier(raw)
    assert kernel.key_status(encrypting_disk, name) is KeyStatus.ABSENT
    kernel.add_key(encrypting_disk, raw)
    kernel.add_key(encrypting_disk, raw)
    assert kernel.key_status(encrypting_disk, name) is KeyStatus.PRESENT
    kernel.remove_key(encrypting_disk, name)
    kernel.remove_key(encrypting_disk, name)
    assert kernel.key_status(encrypting_disk, name) is KeyStatus.ABSENT


def test_the_image_of_the_disk_does_not_hold_what_is_inside(encrypting_disk: Path, key: Key) -> None:
    vault = FscryptVault(encrypting_disk / "vault")
    vault.create(key)
    (vault.open(key) / "Zebra-Crossing-4711").write_text("Zebra-Crossing-4711" * 1000)
    vault.close()
    assert search(written(encrypting_disk), CANARIES) == []
    (encrypting_disk / "beside").write_text("Zebra-Crossing-4711" * 1000)
    assert {hit.path.name for hit in search(written(encrypting_disk), CANARIES)} == {"image"}


@pytest.mark.needs("fscrypt")
def test_a_file_system_that_cannot_encrypt_is_named(small_disk: Path, key: Key) -> None:
    lacks = FscryptVault.missing_in(small_disk)
    assert lacks is not None
    assert f"{small_disk} does not encrypt" in lacks
    with pytest.raises(VaultError, match=r"does not encrypt directories.*tune2fs"):
        FscryptVault(small_disk / "vault").create(key)
    assert [path.name for path in (small_disk / "vault").iterdir()] == ["vault.lock"]


def test_a_file_system_that_can_lacks_nothing(encrypting_disk: Path) -> None:
    assert FscryptVault.missing_in(encrypting_disk) is None


def test_data_of_another_vault_is_a_wrong_key(encrypting_disk: Path, key: Key) -> None:
    one, two = FscryptVault(encrypting_disk / "one"), FscryptVault(encrypting_disk / "two")
    one.create(key)
    two.create(key)
    (encrypting_disk / "one" / "open").rename(encrypting_disk / "away")
    (encrypting_disk / "two" / "open").rename(encrypting_disk / "one" / "open")
    with pytest.raises(WrongKey):
        one.open(key)
    assert not one.is_open


def test_a_plain_directory_in_its_place_is_damage_and_no_wrong_key(encrypting_disk: Path, key: Key) -> None:
    vault = FscryptVault(encrypting_disk / "vault")
    vault.create(key)
    for lost in (vault.clear, vault.parent):
        shutil.rmtree(lost)
        with pytest.raises(VaultDamaged, match="not the vault's encrypted directory"):
            vault.open(key)
    vault.clear.mkdir(parents=True)
    with pytest.raises(VaultDamaged, match="not the vault's encrypted directory"):
        vault.open(key)
    assert not vault.is_open
    vault.shred()


def test_while_a_file_is_open_the_rest_is_closed_already(encrypting_disk: Path, key: Key) -> None:
    vault = FscryptVault(encrypting_disk / "vault")
    vault.create(key)
    clear = vault.open(key)
    (clear / "other").write_text("other")
    with (clear / "file").open("w") as file:
        with pytest.raises(VaultError, match="not closed"):
            vault.close()
        with pytest.raises(OSError, match="Required key not available"):
            (clear / "new").touch()
        file.write("goes on")
    vault.close()
    assert (vault.open(key) / "file").read_text() == "goes on"
    vault.close()


def test_an_ordinary_user_can_do_all_of_it(encrypting_disk: Path) -> None:
    home = encrypting_disk / "home"
    home.mkdir(mode=0o700)
    os.chown(home, USER.pw_uid, USER.pw_gid)
    encrypting_disk.parent.chmod(0o711)
    assert as_user(lambda: use_it(FscryptVault(home / "vault"))) == ""


def test_after_a_restart_of_the_machine_it_is_closed(encrypting_disk: Path, key: Key) -> None:
    """Keys belong to the mounted file system, and end with it."""
    vault = FscryptVault(encrypting_disk / "vault")
    vault.create(key)
    (vault.open(key) / "file").write_text("kept")
    image = encrypting_disk.with_name("image")
    subprocess.run(["umount", str(encrypting_disk)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(encrypting_disk)], check=True)
    assert not vault.is_open
    assert vault.repair() is Found.CLOSED
    assert not (vault.parent / "clear" / "file").exists()
    assert (vault.open(key) / "file").read_text() == "kept"
    vault.close()
