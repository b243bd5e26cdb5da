"""What is GocryptfsVault's own: a daemon that can die, data that must not change, a user who is not root."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from emlab import provision
from emlab.clock import SYSTEM_CLOCK, wait_until
from emlab.errors import DiskFull, StoreError, VaultBusy, VaultDamaged, VaultError
from emlab.key import Key
from emlab.mongod import Mongod
from emlab.vaults import mounts
from emlab.vaults.base import Found
from emlab.vaults.gocryptfs import GocryptfsVault
from emlab.vaults.keyed import BUSY_WAIT_S
from tests.canary import search_bytes
from tests.contract.ordinary import USER, as_user, give_device, mount_for_itself
from tests.mounting import daemon, kill_daemon, namespace, slow_path

pytestmark = pytest.mark.needs("gocryptfs")

WAIT_S = 10.0


def use_it(vault: GocryptfsVault) -> None:
    """All that can be done with a vault, by an ordinary user."""
    assert os.geteuid() != 0
    assert GocryptfsVault.missing() is None
    key = Key.random()
    vault.create(key)
    with (vault.open(key) / "file").open("w") as file:
        with pytest.raises(VaultBusy, match=str(os.getpid())):
            vault.close()
        file.write("kept")
    vault.close()
    assert not vault.is_open
    assert list(vault.clear.iterdir()) == []
    assert vault.clear.stat().st_mode & 0o777 == 0o500
    assert (vault.open(key) / "file").read_text() == "kept"
    kill_daemon(vault.clear)
    assert vault.repair() is Found.DEAD
    assert (vault.open(key) / "file").read_text() == "kept"
    vault.shred()


def prepare(folder: Path) -> None:
    """In a mount namespace of this process's own, everybody may use FUSE, and the folder is the user's."""
    mount_for_itself()
    give_device(folder)
    (folder / "home").mkdir()
    os.chown(folder / "home", USER.pw_uid, USER.pw_gid)
    folder.chmod(0o711)


@pytest.fixture
def vault(tmp_path: Path, key: Key) -> Iterator[GocryptfsVault]:
    made = GocryptfsVault(tmp_path / "vault")
    made.create(key)
    yield made
    made.close()


@contextmanager
def in_use(path: Path) -> Iterator[int]:
    """A file that is open, and whose daemon may die meanwhile."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        yield file
    finally:
        with suppress(OSError):
            os.close(file)


def refusing_s(vault: GocryptfsVault) -> float:
    """How long it took to say that it cannot be closed."""
    begun = SYSTEM_CLOCK.monotonic()
    with pytest.raises(VaultBusy):
        vault.close()
    return SYSTEM_CLOCK.monotonic() - begun


def die_while_opening(vault: GocryptfsVault, key: Key) -> None:
    """A process is killed as soon as it has given gocryptfs the key."""

    def die(process: subprocess.Popen[bytes], given: bytes, _timeout_s: float) -> None:
        assert process.stdin is not None
        process.stdin.write(given)
        process.stdin.close()
        os.kill(os.getpid(), signal.SIGKILL)

    pid = os.fork()
    if pid == 0:
        try:
            subprocess.Popen.communicate = die  # type: ignore[assignment, method-assign]
            vault.open(key)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL


class TestOrphan:
    """The lock of a process that is killed while it opens a vault ends with it; the daemon that it began does not."""

    @pytest.fixture
    def orphan(self, vault: GocryptfsVault, key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
        """A daemon that has the key and will mount the vault."""
        with monkeypatch.context() as patch:
            patch.setenv("PATH", slow_path(tmp_path, 0.5))
            die_while_opening(vault, key)
        (pid,) = with_key(vault)
        assert not vault.is_open
        return pid

    def test_the_vault_is_mounted_once(self, vault: GocryptfsVault, key: Key, orphan: int) -> None:
        vault.open(key)
        assert wait_until(lambda: orphan not in with_key(vault), WAIT_S)
        assert len(mounts.at(vault.clear)) == 1
        (vault.clear / "file").write_text("kept")
        vault.close()
        assert (vault.open(key) / "file").read_text() == "kept"

    @pytest.mark.parametrize("act", [GocryptfsVault.close, GocryptfsVault.repair, GocryptfsVault.shred])
    def test_what_closes_it_closes_what_is_mounted_late(
        self, vault: GocryptfsVault, orphan: int, act: Callable[[GocryptfsVault], object]
    ) -> None:
        act(vault)
        assert with_key(vault) == []
        assert not vault.is_open


def with_key(vault: GocryptfsVault) -> list[int]:
    """The processes that were started for this vault."""
    return [pid for pid, command in mounts.commands() if os.fsencode(vault._source) in command]


class TestDaemon:
    def test_a_dead_daemon_is_noticed_and_its_mount_closed(self, vault: GocryptfsVault, key: Key) -> None:
        (vault.open(key) / "file").write_text("kept")
        kill_daemon(vault.clear)
        assert not vault.is_open
        with pytest.raises(OSError, match="not connected"):
            (vault.clear / "file").read_text()
        assert vault.repair() is Found.DEAD
        assert vault.repair() is Found.CLOSED
        assert mounts.at(vault.clear) == []
        assert (vault.open(key) / "file").read_text() == "kept"

    def test_opening_replaces_a_dead_mount(self, vault: GocryptfsVault, key: Key) -> None:
        with in_use(vault.open(key) / "file") as file:
            os.write(file, b"kept")
            os.fsync(file)
            kill_daemon(vault.clear)
            assert (vault.open(key) / "file").read_bytes() == b"kept"
            assert len(mounts.at(vault.clear)) == 1
            with pytest.raises(OSError, match="not connected"):
                os.write(file, b"to nobody")
        assert vault.is_open

    def test_closing_a_dead_mount_is_closing(self, vault: GocryptfsVault, key: Key) -> None:
        with in_use(vault.open(key) / "file"):
            kill_daemon(vault.clear)
            vault.close()
        assert mounts.at(vault.clear) == []

    def test_an_interrupt_does_not_reach_it(self, vault: GocryptfsVault, key: Key) -> None:
        vault.open(key)
        assert os.getsid(daemon(vault.clear)) != os.getsid(0)
        assert os.getpgid(daemon(vault.clear)) != os.getpgid(0)

    def test_it_ends_when_the_vault_is_closed(self, vault: GocryptfsVault, key: Key) -> None:
        vault.open(key)
        pid = daemon(vault.clear)
        vault.close()
        assert not Path(f"/proc/{pid}/cmdline").exists() or Path(f"/proc/{pid}/cmdline").read_bytes() == b""

    def test_others_see_no_key_of_it(self, vault: GocryptfsVault, key: Key) -> None:
        vault.open(key)
        header = vault._header.read("gocryptfs")
        data_key = header.unlock(key)
        secrets = [data_key.raw(), data_key.derive("gocryptfs"), key.raw()]
        for name in ("cmdline", "environ"):
            text = Path(f"/proc/{daemon(vault.clear)}/{name}").read_bytes()
            assert text
            assert search_bytes(text, secrets) == []
        assert search_bytes(Path("/proc/self/mountinfo").read_bytes(), secrets) == []


class TestDamage:
    def test_a_changed_byte_is_an_error_and_not_garbage(self, vault: GocryptfsVault, key: Key) -> None:
        (vault.open(key) / "file").write_bytes(b"0123456789" * 2000)
        vault.close()
        (lower,) = [path for path in (vault._lower).iterdir() if not path.name.startswith("gocryptfs.")]
        raw = bytearray(lower.read_bytes())
        raw[9000] ^= 1
        lower.write_bytes(raw)
        with (vault.open(key) / "file").open("rb", buffering=0) as file:
            assert file.read(4096) == (b"0123456789" * 410)[:4096]
            with pytest.raises(OSError, match="Input/output") as caught:
                file.read()
            assert caught.value.errno == errno.EIO

    @pytest.mark.parametrize("bad", [b"", b"{}", b"\0" * 100])
    def test_a_damaged_header_of_its_own_is_named(self, vault: GocryptfsVault, key: Key, bad: bytes) -> None:
        conf = vault._lower / "gocryptfs.conf"
        conf.chmod(0o600)
        conf.write_bytes(bad)
        with pytest.raises(VaultDamaged, match=r"gocryptfs\.conf .*restore it"):
            vault.open(key)
        assert not vault.is_open

    @pytest.mark.parametrize("name", ["gocryptfs.conf", "gocryptfs.diriv"])
    def test_a_part_that_is_missing_is_named(self, vault: GocryptfsVault, key: Key, name: str) -> None:
        (vault.open(key) / "file").write_text("kept")
        vault.close()
        (vault._lower / name).rename(vault._home / "away")
        with pytest.raises(VaultDamaged, match=rf"{name} is missing"):
            vault.open(key)
        (vault._home / "away").rename(vault._lower / name)
        assert (vault.open(key) / "file").read_text() == "kept"

    @pytest.mark.parametrize("left", [0, 4096, 8192])
    def test_a_disk_without_room_for_a_new_one_is_full(self, small_disk: Path, key: Key, left: int) -> None:
        found = os.statvfs(small_disk)
        (small_disk / "large").write_bytes(bytes(found.f_bavail * found.f_frsize - left))
        vault = GocryptfsVault(small_disk / "vault")
        with pytest.raises(DiskFull, match="bytes free"):
            vault.create(key)
        assert [path.name for path in (small_disk / "vault").iterdir()] == ["vault.lock"]

    def test_a_lower_directory_of_another_vault_is_named(self, vault: GocryptfsVault, tmp_path: Path, key: Key) -> None:
        other = GocryptfsVault(tmp_path / "other")
        other.create(key)
        vault._lower.rename(tmp_path / "away")
        other._lower.rename(vault._lower)
        with pytest.raises(VaultError, match="does not fit"):
            vault.open(key)
        assert not vault.is_open


class TestMountPoint:
    def test_what_lies_in_the_bare_mount_point_is_not_hidden(self, vault: GocryptfsVault, key: Key) -> None:
        (vault.clear / "stray").touch()
        with pytest.raises(VaultError, match="'stray'"):
            vault.open(key)
        (vault.clear / "stray").unlink()
        vault.open(key)

    def test_a_link_in_its_place_is_not_followed(self, vault: GocryptfsVault, tmp_path: Path, key: Key) -> None:
        (tmp_path / "elsewhere").mkdir()
        vault.clear.rmdir()
        vault.clear.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(VaultError, match="no directory"):
            vault.open(key)
        assert mounts.at(tmp_path / "elsewhere") == []

    @pytest.mark.needs("mounting")
    def test_something_else_that_is_mounted_there_is_named(self, vault: GocryptfsVault, key: Key) -> None:
        subprocess.run(["mount", "-t", "tmpfs", "strange", str(vault.clear)], check=True)
        try:
            with pytest.raises(VaultError, match=r"something else .* tmpfs of strange"):
                vault.open(key)
            with pytest.raises(VaultError, match="something else"):
                vault.close()
        finally:
            subprocess.run(["umount", str(vault.clear)], check=True)
        vault.open(key)

    @pytest.mark.needs("mounting")
    def test_a_mount_on_top_of_it_is_closed_with_it(self, vault: GocryptfsVault, key: Key) -> None:
        vault.open(key)
        subprocess.run(["mount", "--bind", str(vault.clear), str(vault.clear)], check=True)
        assert len(mounts.at(vault.clear)) == 2
        vault.close()
        assert mounts.at(vault.clear) == []

    @pytest.mark.needs("mounting", "mongod")
    def test_a_database_does_not_begin_anew_in_it(self, vault: GocryptfsVault, key: Key) -> None:
        clear, marker = vault.open(key), provision.new_marker()
        provision.write_marker(clear, marker)
        assert (clear / provision.DATABASE_DIR).stat().st_mode & 0o777 == 0o700
        provision.check_marker(clear, marker)  # what a cloud does, and then the mount is taken away
        assert mounts.unmount(clear)
        with tempfile.TemporaryDirectory(prefix="em-") as run_dir, pytest.raises(StoreError, match="cannot use"):
            Mongod(clear / provision.DATABASE_DIR, Path(run_dir)).start()
        assert list(clear.iterdir()) == []

    def test_it_gives_no_rights_to_programs_and_devices(self, vault: GocryptfsVault, key: Key) -> None:
        vault.open(key)
        assert mounts.at(vault.clear)[0].flags >= {"nosuid", "nodev", "noexec"}


@pytest.mark.needs("mounting")
class TestNamespaces:
    """A container has a mount namespace of its own, in which a mount can outlive the one here."""

    @pytest.mark.parametrize("propagation", ["private", "slave"])
    def test_what_another_namespace_keeps_open_is_not_called_closed(
        self, vault: GocryptfsVault, key: Key, propagation: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("emlab.vaults.mounted.STARTING_WAIT_S", 0.1)
        vault.open(key)
        with namespace(propagation) as other:
            assert wait_until(lambda: mounts.elsewhere(vault._is_mine) != [], WAIT_S)
            with pytest.raises(VaultBusy, match=rf"(unshare|sh|cat) \(process {other.pid}\)"):
                vault.close()
            assert vault.is_open
            assert (vault.clear / "file").write_text("still here") == 10
        vault.close()
        assert not vault.is_open

    def test_a_copy_of_the_mount_that_goes_by_itself_is_waited_for(self, vault: GocryptfsVault, key: Key) -> None:
        """As a container has one that is being started, whosever it is."""
        vault.open(key)
        with namespace("private") as other, ThreadPoolExecutor(1) as pool:
            assert wait_until(lambda: mounts.elsewhere(vault._is_mine) != [], WAIT_S)
            closing = pool.submit(vault.close)
            with pytest.raises(TimeoutError):
                closing.result(BUSY_WAIT_S + 0.5)
            assert other.stdin is not None
            other.stdin.close()
            closing.result(WAIT_S)
        assert not vault.is_open

    def test_a_mount_that_was_given_to_another_namespace_is_waited_for_no_longer_than_a_file(
        self, vault: GocryptfsVault, key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("emlab.vaults.mounted.STARTING_WAIT_S", 10 * WAIT_S)
        clear, given = vault.open(key), tmp_path / "given"
        given.mkdir()
        with (clear / "file").open("w"):
            assert refusing_s(vault) < WAIT_S
        with namespace("private", f'mount --bind "{clear}" "{given}" && umount "{clear}"'):
            assert wait_until(lambda: any(holder.moved for holder in mounts.elsewhere(vault._is_mine)), WAIT_S)
            assert refusing_s(vault) < WAIT_S
        vault.close()

    def test_a_namespace_that_follows_lets_go_with_us(self, vault: GocryptfsVault, key: Key) -> None:
        top = str(vault.parent)
        subprocess.run(["mount", "--bind", top, top], check=True)
        subprocess.run(["mount", "--make-shared", top], check=True)
        try:
            vault.open(key)
            with namespace("slave"):
                assert wait_until(lambda: mounts.elsewhere(vault._is_mine) != [], WAIT_S)
                vault.close()
                assert mounts.elsewhere(vault._is_mine) == []
        finally:
            subprocess.run(["umount", top], check=True)


class TestWithoutRoot:
    @pytest.mark.needs("mounting")
    def test_an_ordinary_user_needs_no_more_than_the_device(self) -> None:
        with tempfile.TemporaryDirectory(prefix="em-") as name:
            vault = GocryptfsVault(Path(name, "home", "vault"))
            assert as_user(lambda: use_it(vault), before=lambda: prepare(Path(name))) == ""

    def test_what_is_missing_is_said(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("emlab.vaults.gocryptfs.DEVICE", tmp_path / "fuse")
        assert "chmod 666" in str(GocryptfsVault.missing())
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "apt-get install gocryptfs" in str(GocryptfsVault.missing())
        for name in ("gocryptfs", "fusermount"):
            assert GocryptfsVault.missing() is not None
            (tmp_path / name).touch(mode=0o755)
        assert "fuse cannot be opened" in str(GocryptfsVault.missing())


def test_a_daemon_that_never_answers_is_ended(
    vault: GocryptfsVault, key: Key, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gocryptfs").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "gocryptfs").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        patch.setattr("emlab.vaults.gocryptfs.TIMEOUT_S", 0.2)
        with pytest.raises(VaultError, match=r"did not end within 0\.2 s"):
            vault.open(key)
    assert not vault.is_open
    vault.open(key)


def test_a_helper_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "fusermount3").write_text("#!/bin/sh\nexec sleep 1000\n")
    (tmp_path / "fusermount3").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("emlab.vaults.mounts.UNMOUNT_TIMEOUT_S", 0.2)
    with pytest.raises(VaultError, match=r"cannot unmount .* did not end within 0\.2 s"):
        mounts.unmount(tmp_path)
