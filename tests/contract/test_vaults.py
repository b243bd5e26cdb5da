"""One contract for vaults, over every implementation that this host can run."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from io import FileIO
from pathlib import Path
from typing import Protocol

import pytest

from emlab.errors import DiskFull, VaultBusy, VaultDamaged, VaultError, WrongKey
from emlab.key import Cost, Key, Passphrase, RecoveryCode, Secret
from emlab.parts import make_vault
from emlab.vaults import header
from emlab.vaults.base import Found, Vault
from emlab.vaults.ecryptfs import EcryptfsVault
from emlab.vaults.fscrypt import FscryptVault
from emlab.vaults.gocryptfs import GocryptfsVault
from emlab.vaults.plain import PlainVault
from tests.canary import Canary, search
from tests.mounting import mounts_below, read_only

AS_TYPED: list[Callable[[Path], Vault]] = [PlainVault, GocryptfsVault, FscryptVault, EcryptfsVault]  # for mypy
COORDINATE = 47.376886412345
CANARIES: list[Canary] = ["Zebra-Crossing-4711", COORDINATE]


MOUNTED = pytest.mark.parametrize("kind", ["gocryptfs", "ecryptfs"], indirect=True)


class Make(Protocol):
    """Another object for the same vault, as another process has one."""

    def __call__(self, *, step: header.Step = ...) -> Vault: ...


@pytest.fixture
def small(kind: str, request: pytest.FixtureRequest) -> Path:
    """A file system that is full after 64 MB."""
    return Path(request.getfixturevalue("encrypting_disk" if kind == "fscrypt" else "small_disk"))


@pytest.fixture
def make(kind: str, where: Path) -> Iterator[Make]:
    made: Make = lambda *, step=header.proceed: make_vault(kind)(where, step=step)  # type: ignore[call-arg]  # noqa: E731
    yield made
    if where.exists():
        made().close()


@pytest.fixture
def vault(make: Make) -> Vault:
    return make()


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passphrases are stretched with little effort."""
    monkeypatch.setattr(Cost.__init__, "__defaults__", (2**10, 8, 1))


def is_gone(vault: Vault) -> bool:
    """Whether nothing of a vault can be read, nor written where its clear directory was."""
    clear = vault.parent / "clear"
    return not vault.is_open and not (clear / "file").exists() and (not clear.exists() or takes_nothing(clear))


def takes_nothing(clear: Path) -> bool:
    """Whether it is a bare mount point, or the kernel lacks the key for a new file."""
    if list(clear.iterdir()) == [] and clear.stat().st_mode & 0o777 == 0o500:
        return True
    with pytest.raises(OSError, match="Required key not available"):
        (clear / "new").touch()
    return True


def dies(act: Callable[[], object]) -> int:
    """The signal that ended a process which did this."""
    return os.waitstatus_to_exitcode(os.waitpid(begin(act), 0)[1])


def begin(act: Callable[[], object], closing: int | None = None) -> int:
    """A process that does this, and ends with 1 if it raises."""
    pid = os.fork()
    if pid == 0:
        try:
            if closing is not None:
                os.close(closing)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return pid


def killer(number: int) -> Callable[[str], None]:
    """A step that kills its process when it is called for the nth time, from 0."""
    left = iter(range(number, -1, -1))

    def step(_name: str) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return step


class TestVault:
    def test_what_was_written_is_there_after_closing_and_opening(self, vault: Vault, make: Make, key: Key) -> None:
        vault.create(key)
        assert not vault.is_open
        clear = vault.open(key)
        assert vault.is_open
        assert make().is_open
        (clear / "file").write_bytes(b"kept")
        vault.close()
        assert is_gone(vault)
        assert (make().open(key) / "file").read_bytes() == b"kept"

    def test_a_wrong_key_opens_nothing(self, vault: Vault, key: Key) -> None:
        vault.create(key)
        with pytest.raises(WrongKey):
            vault.open(Key.random())
        assert is_gone(vault)

    def test_a_wrong_key_does_not_get_what_is_open(self, vault: Vault, key: Key) -> None:
        vault.create(key)
        vault.open(key)
        with pytest.raises(WrongKey):
            vault.open(Key.random())
        assert vault.is_open

    @pytest.mark.parametrize("nothing", [None, b"\0" * 32, "passphrase"])
    def test_without_a_key_nothing_opens(self, vault: Vault, key: Key, nothing: object) -> None:
        with pytest.raises(WrongKey, match="not with"):
            vault.create(nothing)  # type: ignore[arg-type]
        vault.create(key)
        with pytest.raises(WrongKey, match="not with"):
            vault.open(nothing)  # type: ignore[arg-type]
        assert is_gone(vault)

    def test_opening_and_closing_twice_is_as_once(self, vault: Vault, make: Make, key: Key) -> None:
        vault.create(key)
        assert vault.open(key) == vault.open(key) == make().open(key)
        vault.close()
        vault.close()
        make().close()
        assert is_gone(vault)

    def test_a_vault_is_never_made_over_another(self, vault: Vault, key: Key) -> None:
        vault.create(key)
        with pytest.raises(VaultError, match="already"):
            vault.create(Key.random())
        vault.open(key)

    def test_a_vault_is_not_made_among_other_files(self, vault: Vault, where: Path, key: Key) -> None:
        where.mkdir()
        (where / "mine").write_text("keep this")
        with pytest.raises(VaultError, match="not empty: mine"):
            vault.create(key)
        assert (where / "mine").read_text() == "keep this"

    def test_there_is_nothing_to_open_before_it_was_made(self, vault: Vault, key: Key) -> None:
        with pytest.raises(VaultError, match="no vault"):
            vault.open(key)
        with pytest.raises(VaultError, match="no vault"):
            vault.rekey(key, key)
        vault.close()
        vault.shred_keys()
        vault.shred()
        assert vault.repair() is Found.CLOSED
        assert not vault.is_open

    def test_its_parent_holds_the_open_directory_and_nothing_else(self, vault: Vault, key: Key) -> None:
        vault.create(key)
        clear = vault.open(key)
        assert list(vault.parent.iterdir()) == [clear] == [vault.parent / "clear"]

    def test_nobody_else_can_enter(self, vault: Vault, where: Path, key: Key) -> None:
        vault.create(key)
        assert vault.open(key).stat().st_mode & 0o077 == 0
        assert all(path.stat().st_mode & 0o077 == 0 for path in (where, *where.iterdir()))

    def test_a_path_with_spaces_and_other_signs_will_do(self, kind: str, where: Path, key: Key) -> None:
        odd = make_vault(kind)(where / "a b,c=d\\e\n\té")
        odd.create(key)
        (odd.open(key) / "file").write_text("kept")
        assert odd.is_open
        odd.close()
        assert is_gone(odd)

    def test_a_relative_path_will_do(self, kind: str, where: Path, key: Key, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(where.parent)
        vault = make_vault(kind)(Path("vault"))
        vault.create(key)
        (vault.open(key) / "file").write_text("kept")
        assert vault.is_open
        vault.close()
        assert is_gone(vault)

    def test_a_link_to_it_is_the_same_vault(self, kind: str, vault: Vault, where: Path, key: Key) -> None:
        vault.create(key)
        where.with_name("link").symlink_to(where)
        other = make_vault(kind)(where.with_name("link"))
        (vault.open(key) / "file").write_text("kept")
        assert other.is_open
        assert (other.open(key) / "file").read_text() == "kept"
        other.close()
        assert is_gone(vault)


class TestFiles:
    """What a database does with files works there."""

    def test_files_are_renamed_linked_locked_mapped_and_cut(self, vault: Vault, key: Key) -> None:
        vault.create(key)
        clear = vault.open(key)
        with (clear / "a").open("w+b") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(b"0123456789" * 1000)
            file.flush()
            os.fsync(file.fileno())
            with mmap.mmap(file.fileno(), 0) as mapped:
                mapped[5000:5003] = b"xyz"
                mapped.flush()
            os.truncate(file.fileno(), 6000)
        (clear / "a").rename(clear / "b")
        (clear / "c").hardlink_to(clear / "b")
        (clear / "d").symlink_to("b")
        (clear / "folder").mkdir()
        (clear / ("n" * 143)).touch()
        vault.close()
        clear = vault.open(key)
        assert {path.name for path in clear.iterdir()} == {"b", "c", "d", "folder", "n" * 143}
        assert (clear / "c").read_bytes() == (clear / "d").read_bytes()
        assert (clear / "b").read_bytes()[4998:5005] == b"89xyz34"
        assert (clear / "b").stat().st_size == 6000

    def test_what_is_inside_is_not_found_outside(self, kind: str, vault: Vault, where: Path, key: Key) -> None:
        vault.create(key)
        clear = vault.open(key)
        (clear / "Zebra-Crossing-4711").write_bytes(f"{COORDINATE} Zebra-Crossing-4711".encode())
        assert search(clear, CANARIES)
        if kind != "fscrypt":  # which shows its directory where it lies
            assert bool(search(where, CANARIES)) == (kind == "plain")
        vault.close()
        assert bool(search(where, CANARIES)) == (kind == "plain")


class TestUse:
    def test_it_closes_when_nobody_uses_it_any_more(self, kind: str, vault: Vault, key: Key) -> None:
        vault.create(key)
        clear = vault.open(key)
        with (clear / "file").open("wb") as file:
            file.write(b"first ")
            if kind == "plain":
                vault.close()
            else:
                with pytest.raises(VaultBusy, match=str(os.getpid())):
                    vault.close()
                assert vault.is_open
                assert vault.open(key) == clear
                (clear / "other").write_text("other")
            file.write(b"second")
        vault.close()
        assert is_gone(vault)
        assert (vault.open(key) / "file").read_bytes() == b"first second"

    def test_many_open_it_at_once_and_it_is_open_once(self, vault: Vault, make: Make, where: Path, key: Key) -> None:
        vault.create(key)
        together = threading.Barrier(6)

        def act(_: int) -> Path:
            together.wait()
            return make().open(key)

        with ThreadPoolExecutor(6) as pool:
            assert len(set(pool.map(act, range(6)))) == 1
        assert len(mounts_below(where)) <= 1
        vault.close()
        assert is_gone(vault)

    def test_processes_that_open_it_at_once_share_one(self, vault: Vault, make: Make, where: Path, key: Key) -> None:
        vault.create(key)

        def act() -> None:
            os.read(start, 1)  # ends for all of them at once
            make().open(key)

        start, end = os.pipe()
        children = [begin(act, closing=end) for _ in range(4)]
        os.close(end)
        assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
        os.close(start)
        assert len(mounts_below(where)) <= 1
        assert vault.is_open

    def test_opening_while_closing_is_one_after_the_other(
        self, vault: Vault, make: Make, where: Path, key: Key
    ) -> None:
        vault.create(key)
        (vault.open(key) / "file").write_text("kept")
        with ThreadPoolExecutor(8) as pool:
            acts = [pool.submit(make().close if n % 2 else lambda: make().open(key)) for n in range(16)]
            for act in acts:
                act.result()
        assert len(mounts_below(where)) <= 1
        assert (vault.open(key) / "file").read_text() == "kept"

    def test_a_full_disk_is_an_error_and_what_was_there_stays(
        self, kind: str, small: Path, key: Key, cheap: None
    ) -> None:
        vault = make_vault(kind)(small / "vault")
        vault.create(key)
        clear = vault.open(key)
        (clear / "kept").write_bytes(b"kept" * 5000)
        fill(clear / "large")
        with pytest.raises(DiskFull, match="bytes free"):
            vault.rekey(key, Passphrase("correct horse"))
        with pytest.raises(DiskFull, match="bytes free"):
            make_vault(kind)(small / "other").create(key)
        vault.close()
        clear = vault.open(key)
        assert (clear / "kept").read_bytes() == b"kept" * 5000
        (clear / "large").unlink()
        vault.close()
        vault.rekey(key, Passphrase("correct horse"))
        vault.open(Passphrase("correct horse"))
        vault.close()


def fill(path: Path) -> None:
    """A file takes all the room that there is."""
    with path.open("wb", buffering=0) as file:
        for size in (2**20, 2**12, 1):
            while write_more(file, size):
                pass


def write_more(file: FileIO, size: int) -> bool:
    """Whether there was room for that many bytes more."""
    try:
        return file.write(b"x" * size) == size
    except OSError as exc:
        if exc.errno != errno.ENOSPC:
            raise
        return False


class TestCrash:
    def test_it_stays_open_when_who_opened_it_is_killed(self, vault: Vault, make: Make, key: Key) -> None:
        vault.create(key)

        def act() -> None:
            (make().open(key) / "file").write_text("kept")
            os.kill(os.getpid(), signal.SIGKILL)

        assert dies(act) == -signal.SIGKILL
        assert vault.is_open
        assert vault.repair() is Found.OPEN
        assert (vault.open(key) / "file").read_text() == "kept"
        vault.close()
        assert vault.repair() is Found.CLOSED
        assert is_gone(vault)

    def test_whoever_dies_with_the_lock_leaves_it(self, vault: Vault, make: Make, key: Key) -> None:
        vault.create(key)
        assert dies(lambda: make(step=killer(0)).recovery(key)) == -signal.SIGKILL
        vault.open(key)

    @pytest.mark.parametrize("number", range(5))
    def test_a_vault_whose_making_was_cut_short_is_there_or_is_not(
        self, vault: Vault, make: Make, key: Key, number: int
    ) -> None:
        assert dies(lambda: make(step=killer(number)).create(key)) == -signal.SIGKILL
        assert vault.repair() is Found.CLOSED
        if number < 2:
            with pytest.raises(VaultError, match="no vault"):
                vault.open(key)
            with pytest.raises(VaultError, match="not empty"):
                vault.create(key)
            vault.shred()
            vault.create(key)
        vault.open(key)

    def test_whoever_works_on_it_too_long_is_not_waited_for(
        self, vault: Vault, where: Path, key: Key, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        vault.create(key)
        monkeypatch.setattr("emlab.vaults.keyed.LOCK_WAIT_S", 0.05)
        acts: list[Callable[[], object]] = [
            lambda: vault.open(key),
            vault.close,
            vault.repair,
            vault.shred_keys,
            vault.shred,
        ]
        with (where / "vault.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for act in acts:
                with pytest.raises(VaultBusy, match="another process works"):
                    act()
        vault.open(key)

    def test_a_shred_that_was_cut_short_is_finished(self, vault: Vault, make: Make, where: Path, key: Key) -> None:
        vault.create(key)
        (vault.open(key) / "Zebra-Crossing-4711").write_text("Zebra-Crossing-4711")
        assert dies(lambda: make(step=killer(1)).shred()) == -signal.SIGKILL
        with pytest.raises(VaultError, match="no vault"):
            vault.open(key)
        assert vault.repair() is Found.OPEN
        assert is_gone(vault)
        vault.shred()
        assert search(where, CANARIES) == []


class TestSecrets:
    def test_a_passphrase_opens_it(self, vault: Vault, key: Key) -> None:
        vault.create(Passphrase("correct horse"))
        (vault.open(Passphrase("correct horse")) / "file").write_text("kept")
        vault.close()
        with pytest.raises(WrongKey):
            vault.open(Passphrase("battery staple"))
        with pytest.raises(WrongKey, match="passphrase, not with a key"):
            vault.open(key)
        assert (vault.open(Passphrase("correct horse")) / "file").read_text() == "kept"

    @pytest.mark.parametrize("is_open", [True, False])
    def test_a_new_passphrase_replaces_the_old_one(
        self, vault: Vault, make: Make, key: Key, cheap: None, is_open: bool
    ) -> None:
        vault.create(key)
        (vault.open(key) / "file").write_text("kept")
        if not is_open:
            vault.close()
        vault.rekey(key, Passphrase("the first one"))
        vault.rekey(Passphrase("the first one"), Passphrase("another one"))
        assert vault.is_open == is_open
        vault.close()
        old: list[Secret] = [key, Passphrase("the first one")]
        for secret in old:
            with pytest.raises(WrongKey):
                make().open(secret)
        assert (make().open(Passphrase("another one")) / "file").read_text() == "kept"

    def test_a_recovery_code_is_no_secret_of_an_owner(self, vault: Vault, key: Key) -> None:
        """In the owner's place nothing would find it: the vault would open with nothing any more."""
        with pytest.raises(WrongKey, match="not with RecoveryCode"):
            vault.create(RecoveryCode.random())  # type: ignore[arg-type]
        vault.create(key)
        code = vault.recovery(key)
        for new in (code, RecoveryCode.random()):
            with pytest.raises(WrongKey, match="not with RecoveryCode"):
                vault.rekey(key, new)  # type: ignore[arg-type]
        vault.open(key)
        vault.open(code)

    def test_a_wrong_key_changes_no_keys(self, vault: Vault, key: Key) -> None:
        vault.create(key)
        with pytest.raises(WrongKey):
            vault.rekey(Key.random(), Key.random())
        with pytest.raises(WrongKey):
            vault.recovery(Key.random())
        vault.open(key)

    def test_a_recovery_code_opens_it_and_a_later_one_replaces_it(self, vault: Vault, make: Make, key: Key) -> None:
        vault.create(key)
        (vault.open(key) / "file").write_text("kept")
        vault.close()
        with pytest.raises(WrongKey, match="no recovery code"):
            vault.open(RecoveryCode.random())
        first = vault.recovery(key)
        assert (make().open(RecoveryCode(first.reveal())) / "file").read_text() == "kept"
        new = Key.random()
        vault.rekey(first, new)
        second = vault.recovery(new)
        vault.close()
        with pytest.raises(WrongKey):
            vault.open(first)
        with pytest.raises(WrongKey):
            vault.open(key)
        assert (vault.open(second) / "file").read_text() == "kept"

    @pytest.mark.parametrize("number", range(5))
    def test_a_crash_while_the_key_changes_leaves_one_of_both(
        self, vault: Vault, make: Make, where: Path, key: Key, number: int
    ) -> None:
        vault.create(key)
        (vault.open(key) / "file").write_text("kept")
        vault.close()
        new = Key.random()
        assert dies(lambda: make(step=killer(number)).rekey(key, new)) == -signal.SIGKILL
        works, refused = (key, new) if number < 2 else (new, key)
        (where / "vault.json.kept").hardlink_to(where / ("vault.json.new" if number < 2 else "vault.json"))
        with pytest.raises(WrongKey):
            vault.open(refused)
        assert (vault.open(works) / "file").read_text() == "kept"
        assert list(where.glob("*.new")) == []
        assert (b"wrapped" in (where / "vault.json.kept").read_bytes()) == (number >= 2)
        vault.rekey(works, new)
        vault.open(new)

    def test_after_shredding_no_secret_opens_anything(self, vault: Vault, where: Path, key: Key) -> None:
        vault.create(key)
        clear = vault.open(key)
        (clear / "Zebra-Crossing-4711").write_text("Zebra-Crossing-4711")
        code = vault.recovery(key)
        wrapped = header.HeaderFile(where / "vault.json").read(vault.name)
        vault.shred()
        assert is_gone(vault)
        secrets: list[Secret] = [key, code]
        for secret in secrets:
            with pytest.raises(VaultError, match="no vault"):
                vault.open(secret)
        assert wrapped.recovery is not None
        kept: list[Canary] = [*CANARIES, wrapped.owner.wrapped, wrapped.recovery.wrapped]
        assert search(where, kept) == []
        vault.shred()
        vault.create(Key.random())

    @pytest.mark.parametrize("is_open", [True, False])
    def test_shredding_the_keys_alone_leaves_what_is_open_and_lets_nothing_open_it_again(
        self, vault: Vault, make: Make, where: Path, key: Key, is_open: bool
    ) -> None:
        vault.create(key)
        code = vault.recovery(key)
        wrapped = header.HeaderFile(where / "vault.json").read(vault.name)
        (vault.open(key) / "file").write_text("kept")
        if not is_open:
            vault.close()
        vault.shred_keys()
        vault.shred_keys()
        assert vault.is_open == is_open
        if is_open:
            assert (vault.parent / "clear" / "file").read_text() == "kept"
        secrets: list[Secret] = [key, code]
        for secret in secrets:
            with pytest.raises(VaultError, match="no vault"):
                make().open(secret)
            with pytest.raises(VaultError, match="no vault"):
                vault.rekey(secret, key)
        assert wrapped.recovery is not None
        assert search(where, [wrapped.owner.wrapped, wrapped.recovery.wrapped]) == []
        vault.close()
        assert is_gone(vault)
        with pytest.raises(VaultError, match="not empty"):
            vault.create(key)
        vault.shred()
        vault.create(key)

    @pytest.mark.needs("mounting")
    def test_keys_that_cannot_be_overwritten_are_an_error_and_nothing_is_removed(
        self, vault: Vault, where: Path, key: Key
    ) -> None:
        vault.create(key)
        (vault.open(key) / "file").write_text("kept")
        with read_only(where / "vault.json"):
            for act in (vault.shred_keys, vault.shred):
                with pytest.raises(VaultError, match=r"cannot destroy the vault's keys .* Read-only file system"):
                    act()
            with pytest.raises(VaultError, match=r"cannot keep the vault's keys .* Read-only file system"):
                vault.rekey(key, Key.random())
        assert (vault.open(key) / "file").read_text() == "kept"
        vault.shred()
        assert is_gone(vault)

    @pytest.mark.parametrize("number", range(2))
    def test_a_shredding_of_keys_that_was_cut_short_lets_nothing_open_it(
        self, vault: Vault, make: Make, key: Key, number: int
    ) -> None:
        vault.create(key)
        vault.open(key)
        assert dies(lambda: make(step=killer(number)).shred_keys()) == -signal.SIGKILL
        assert vault.is_open
        with pytest.raises(VaultError, match=("damaged", "no vault")[number]):
            vault.open(key)
        vault.shred_keys()
        assert vault.repair() is Found.OPEN
        assert is_gone(vault)

    def test_the_keys_of_an_open_vault_are_shredded_even_if_somebody_uses_it(
        self, kind: str, vault: Vault, key: Key
    ) -> None:
        vault.create(key)
        with (vault.open(key) / "file").open("wb"):
            with nullcontext() if kind == "plain" else pytest.raises(VaultBusy):
                vault.shred()
            with pytest.raises(VaultError, match="no vault"):
                vault.open(key)
        vault.shred()
        assert is_gone(vault)


def replace(path: Path, odd: str) -> None:
    """There is something else."""
    path.unlink(missing_ok=True)
    if odd == "pipe":
        os.mkfifo(path)
    elif odd == "directory":
        path.mkdir()
        (path / "file").touch()
    elif odd == "link":
        path.symlink_to("nowhere")
    elif odd == "large":
        path.touch()
        os.truncate(path, 2**36)


class TestDamage:
    def test_any_damage_of_the_header_is_told_from_a_wrong_key(self, vault: Vault, where: Path, key: Key) -> None:
        vault.create(key)
        vault.recovery(key)
        path = where / "vault.json"
        good = path.read_bytes()
        for at in range(len(good)):
            path.write_bytes(good[:at] + bytes([good[at] ^ (1 << at % 8)]) + good[at + 1 :])
            with pytest.raises(VaultDamaged):
                vault.open(key)
        assert is_gone(vault)
        path.write_bytes(good)
        vault.open(key)

    @pytest.mark.parametrize("bad", [b"", b"{}", b"null", b"[" * 10_000, b"\xff" * 100, b"{" + b" " * 2**20])
    def test_a_file_that_is_no_header_is_damage(self, vault: Vault, where: Path, key: Key, bad: bytes) -> None:
        vault.create(key)
        (where / "vault.json").write_bytes(bad)
        with pytest.raises(VaultDamaged, match=r"vault\.json"):
            vault.open(key)
        assert is_gone(vault)

    def test_a_header_that_is_no_file_is_an_error(self, vault: Vault, where: Path, key: Key) -> None:
        vault.create(key)
        path = where / "vault.json"
        path.rename(where / "elsewhere.json")
        path.symlink_to("elsewhere.json")
        with pytest.raises(VaultDamaged):
            vault.open(key)
        path.unlink()
        os.mkfifo(path)
        with pytest.raises(VaultDamaged):
            vault.open(key)
        path.unlink()
        path.mkdir()
        with pytest.raises(VaultDamaged):
            vault.open(key)

    @MOUNTED
    @pytest.mark.parametrize("lost", ["open", "open/clear"])
    def test_a_mount_point_that_is_missing_is_made_again(self, vault: Vault, where: Path, key: Key, lost: str) -> None:
        vault.create(key)
        (vault.open(key) / "file").write_text("kept")
        vault.close()
        shutil.rmtree(where / lost)
        assert not vault.is_open
        assert (vault.open(key) / "file").read_text() == "kept"
        assert all(path.stat().st_mode & 0o077 == 0 for path in (where / "open", where / "open" / "clear"))
        vault.close()
        assert is_gone(vault)

    @MOUNTED
    def test_encrypted_data_that_is_missing_is_damage(self, vault: Vault, where: Path, key: Key) -> None:
        vault.create(key)
        shutil.rmtree(where / "lower")
        with pytest.raises(VaultDamaged, match="lower"):
            vault.open(key)
        vault.shred()

    @pytest.mark.parametrize("kind", ["gocryptfs", "fscrypt", "ecryptfs"], indirect=True)
    def test_a_link_in_place_of_the_clear_directory_leads_nowhere(
        self, vault: Vault, where: Path, key: Key, tmp_path: Path
    ) -> None:
        vault.create(key)
        clear, mine = vault.parent / "clear", tmp_path / "mine"
        mine.mkdir(mode=0o755)
        (mine / "file").write_text("keep this")
        clear.rmdir()
        clear.symlink_to(mine)
        with pytest.raises(VaultError):
            vault.open(key)
        assert not vault.is_open
        vault.close()
        assert vault.repair() is Found.CLOSED
        vault.shred()
        assert [path.name for path in where.iterdir()] == ["vault.lock"]
        assert (mine / "file").read_text() == "keep this"
        assert mine.stat().st_mode & 0o777 == 0o755

    @pytest.mark.parametrize("odd", ["pipe", "directory", "link", "large", "absent"])
    def test_whatever_stands_in_the_header_s_place_the_vault_is_shredded(
        self, vault: Vault, where: Path, key: Key, odd: str
    ) -> None:
        vault.create(key)
        (vault.open(key) / "file").write_text("kept")
        for name in ("vault.json", "vault.json.new"):
            replace(where / name, odd)
        vault.shred()
        assert is_gone(vault)
        assert [path.name for path in where.iterdir()] == ["vault.lock"]

    @pytest.mark.parametrize("odd", ["pipe", "directory", "link", "large"])
    def test_whatever_stands_beside_the_header_is_removed_when_it_is_opened_or_repaired(
        self, vault: Vault, where: Path, key: Key, odd: str
    ) -> None:
        vault.create(key)
        for act in (lambda: vault.open(key), vault.repair):
            replace(where / "vault.json.new", odd)
            act()
            assert list(where.glob("*.new")) == []

    def test_the_header_of_another_vault_opens_nothing_of_this_one(
        self, kind: str, vault: Vault, where: Path, key: Key
    ) -> None:
        vault.create(key)
        other = make_vault(kind)(where / "other")
        other.create(key)
        (where / "vault.json").write_bytes((where / "other" / "vault.json").read_bytes())
        with nullcontext() if kind == "plain" else pytest.raises(VaultError):
            vault.open(key)
        assert is_gone(vault) == (kind != "plain")


def test_a_process_that_is_not_python_sees_the_open_vault(vault: Vault, key: Key) -> None:
    vault.create(key)
    clear = vault.open(key)
    subprocess.run([sys.executable, "-c", "open('file', 'w').write('theirs')"], cwd=clear, check=True)
    assert (clear / "file").read_text() == "theirs"


def test_a_key_that_changes_while_another_is_made_is_lost_to_neither(tmp_path: Path) -> None:
    vault, key = PlainVault(tmp_path / "vault"), Key.random()
    vault.create(key)
    codes: list[RecoveryCode] = []

    class Slow(Passphrase):
        def stretch(self, salt: bytes, cost: Cost) -> Key:
            if not codes:
                codes.append(vault.recovery(key))
            return super().stretch(salt, cost)

    vault.rekey(key, Slow("correct horse"))
    vault.check(Passphrase("correct horse"))
    vault.check(codes[0])
    with pytest.raises(WrongKey):
        vault.check(key)
