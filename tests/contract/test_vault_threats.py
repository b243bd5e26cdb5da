"""What a vault does not protect from: each sentence of THREATS.md that no other test shows, shown on real vaults.

A test here that fails may be good news: then THREATS.md is to be corrected.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emlab.errors import WrongKey
from emlab.key import Cost, Key, Passphrase
from emlab.parts import VAULTS, make_vault
from emlab.vaults import header
from emlab.vaults.base import Vault
from emlab.vaults.fscrypt import FscryptVault
from tests.contract.ordinary import as_user
from tests.memory import memory
from tests.mounting import daemon

ENCRYPTING = sorted(set(VAULTS) - {"plain"})
COPIED = sorted(set(VAULTS) - {"fscrypt"})  # fscrypt's files cannot be copied without the key, only their whole disk
BLOCK = 4096
SIZES = (1, 5000, 70_000)
LOWER_SIZE: dict[str, Callable[[int], int]] = {
    "gocryptfs": lambda size: 18 + size + 32 * -(-size // BLOCK),
    "fscrypt": lambda size: size,
    "ecryptfs": lambda size: 8192 + BLOCK * -(-size // BLOCK),
}
OLD_TS = 1_000_000_000
FIBMAP = 1  # which block of the file system holds a file's nth; linux/fs.h


@pytest.fixture
def vault(kind: str, where: Path, key: Key) -> Iterator[Vault]:
    """One that was made and is closed."""
    made = make_vault(kind)(where)
    made.create(key)
    yield made
    if where.exists():
        made.close()


def lower_files(where: Path) -> list[Path]:
    """What somebody sees of the files in a closed vault, the smallest first."""
    own = ("vault.", "gocryptfs.", "ecryptfs.")
    files = [path for path in where.rglob("*") if path.is_file() and not path.name.startswith(own)]
    return sorted(files, key=lambda path: path.stat().st_size)


@pytest.mark.parametrize("kind", ENCRYPTING, indirect=True)
def test_number_sizes_times_and_tree_of_files_stay_visible_and_their_names_do_not(
    kind: str, vault: Vault, where: Path, key: Key
) -> None:
    before = len(list(where.rglob("*/")))
    clear = vault.open(key)
    (clear / "home").mkdir()
    for size in SIZES:
        path = clear / "home" / f"visit-{size}"
        path.write_bytes(os.urandom(size))
        os.utime(path, (OLD_TS, OLD_TS))
    vault.close()
    found = lower_files(where)
    assert len(found) == len(SIZES)
    for path, size in zip(found, SIZES, strict=True):
        assert path.stat().st_size == LOWER_SIZE[kind](size)
        assert path.stat().st_mtime == OLD_TS
        assert "visit" not in path.name
        assert path.parent.name != "home"
    assert len({path.parent for path in found}) == 1
    assert len(list(where.rglob("*/"))) == before + 1


def test_a_copy_of_the_header_from_before_opens_with_the_secret_of_before(vault: Vault, where: Path, key: Key) -> None:
    copied = (where / "vault.json").read_bytes()
    new = Key.random()
    vault.rekey(key, new)
    (vault.open(new) / "file").write_text("written after the change")
    vault.close()
    with pytest.raises(WrongKey):
        vault.open(key)
    (where / "vault.json").write_bytes(copied)
    assert (vault.open(key) / "file").read_text() == "written after the change"


@pytest.mark.parametrize("kind", COPIED, indirect=True)
def test_a_copy_from_before_shredding_opens_with_its_key(kind: str, vault: Vault, where: Path, key: Key) -> None:
    (vault.open(key) / "file").write_text("kept")
    vault.close()
    shutil.copytree(where, where.with_name("backup"))
    vault.shred()
    backup = make_vault(kind)(where.with_name("backup"))
    assert (backup.open(key) / "file").read_text() == "kept"
    backup.close()


@pytest.mark.parametrize("kind", COPIED, indirect=True)
def test_an_older_state_of_a_file_comes_back_unnoticed(vault: Vault, where: Path, key: Key) -> None:
    path = vault.open(key) / "file"
    path.write_text("old")
    vault.close()
    (lower,) = lower_files(where)
    old = lower.read_bytes()
    vault.open(key)
    path.write_text("new")
    vault.close()
    lower.write_bytes(old)
    vault.open(key)
    assert path.read_text() == "old"


def test_a_changed_byte_on_a_disk_with_fscrypt_is_garbage_and_no_error(encrypting_disk: Path, key: Key) -> None:
    vault = FscryptVault(encrypting_disk / "vault")
    vault.create(key)
    text = b"0123456789abcdef" * 512
    with (vault.open(key) / "file").open("wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
        place = int.from_bytes(fcntl.ioctl(file.fileno(), FIBMAP, (0).to_bytes(4, sys.byteorder)), sys.byteorder)
    vault.close()
    with (encrypting_disk.parent / "image").open("r+b") as image:
        image.seek(place * BLOCK)
        (byte,) = image.read(1)
        image.seek(place * BLOCK)
        image.write(bytes([byte ^ 1]))
        image.flush()
        os.fsync(image.fileno())
    found = (vault.open(key) / "file").read_bytes()
    vault.close()
    assert found != text
    assert found[16:] == text[16:]


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another user needs root")
def test_another_user_reads_neither_an_open_vault_nor_a_closed_one(kind: str, where: Path, key: Key) -> None:
    # a directory that everybody may enter: what keeps others out must be the vault's own
    folder = Path(tempfile.mkdtemp(prefix="em-", dir=None if kind != "fscrypt" else where.parent))
    for path in (folder, *([where.parent, where.parent.parent] if kind == "fscrypt" else [])):
        path.chmod(0o755)
    vault = make_vault(kind)(folder / "vault")
    vault.create(key)
    (vault.open(key) / "file").write_text("for one alone")
    denied = [folder / "vault" / "vault.json", vault.parent, vault.parent / "clear", vault.parent / "clear" / "file"]

    def refused() -> None:
        for path in denied:
            with pytest.raises(PermissionError):
                os.open(path, os.O_RDONLY)

    assert as_user(refused) == ""
    vault.close()
    assert as_user(refused) == ""
    vault.shred()
    shutil.rmtree(folder)


HOLDER = """
import sys
from pathlib import Path
from emlab.key import Key
from emlab.parts import make_vault
key = Key(bytes.fromhex(sys.stdin.readline()))
vault = make_vault("plain")(Path(sys.argv[1]))
vault.open(key), vault.close()
print("closed", flush=True)
sys.stdin.readline()
"""


def test_who_may_look_into_a_process_reads_the_key_that_it_has(tmp_path: Path, key: Key) -> None:
    make_vault("plain")(tmp_path / "vault").create(key)
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "vault")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(key.raw().hex() + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "closed\n"
        assert key.raw() in memory(process.pid)
        assert Key.random().raw() not in memory(process.pid)
        process.communicate("\n", timeout=30)


@pytest.mark.needs("gocryptfs")
def test_the_daemon_of_gocryptfs_may_be_swapped_out(tmp_path: Path, key: Key) -> None:
    vault = make_vault("gocryptfs")(tmp_path / "vault")
    vault.create(key)
    vault.open(key)
    status = Path(f"/proc/{daemon(vault.parent / 'clear')}/status").read_text()
    locked = [line for line in status.splitlines() if line.startswith("VmLck")]
    assert locked[0].split() == ["VmLck:", "0", "kB"]
    vault.close()


def test_what_is_kept_for_a_passphrase_lets_guesses_be_tried_without_the_vault() -> None:
    kept, _ = header.new_header("plain", Passphrase("correct horse"))
    copied = header.decode(header.encode(kept))
    with pytest.raises(WrongKey):
        copied.unlock(Passphrase("battery staple"))
    assert copied.unlock(Passphrase("correct horse")) == kept.unlock(Passphrase("correct horse"))
    assert copied.owner.cost == Cost(2**17, 8, 1)
