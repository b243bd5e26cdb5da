"""Who is not root, but may use Docker, keeps clouds in eCryptfs vaults, which a short-lived container mounts."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import emlab as em
from emlab.clock import wait_until
from emlab.engines.rundir import run_root
from emlab.errors import Locked, VaultError
from emlab.key import Key
from emlab.vaults import ecryptfs_token as token
from emlab.vaults import helper, mounts
from emlab.vaults.base import Found
from emlab.vaults.ecryptfs import EcryptfsVault, _keys
from emlab.vaults.helper import Helper
from tests.canary import search, search_bytes
from tests.contract.ordinary import USER, as_user, give_programs, let_go
from tests.e2e.clouds import entry
from tests.mounting import mounts_below
from tests.programs import docker_client

if TYPE_CHECKING:
    from docker import APIClient

pytestmark = [pytest.mark.needs("ecryptfs", "docker", "mongod"), pytest.mark.slow]
WAIT_S = 60.0
SOCKET = Path("/var/run/docker.sock")
KEY = "background/filtered_location"
NEW_NAMESPACE, SLAVE, RECURSIVE = 0x20000, 1 << 19, 1 << 14
Talk = Callable[["APIClient", str, bytes], str]


@pytest.fixture
def place(cloud_image: str) -> Iterator[Path]:
    """A directory on a shared mount, for everybody to enter; at the end no mount in it is left, and no container."""
    with tempfile.TemporaryDirectory(prefix="em-") as name:
        folder = Path(name)
        folder.chmod(0o711)
        subprocess.run(["mount", "--bind", name, name], check=True)
        subprocess.run(["mount", "--make-rshared", name], check=True)
        yield folder
        left = mounts_below(folder)
        assert wait_until(lambda: helpers() == [], WAIT_S), helpers()
        assert left == []
        subprocess.run(["umount", name], check=True)


@pytest.fixture
def theirs(place: Path) -> Path:
    """A directory of the ordinary user's."""
    folder = place / "theirs"
    folder.mkdir(mode=0o700)
    os.chown(folder, USER.pw_uid, USER.pw_gid)
    return folder


def helpers() -> list[str]:
    """The helper containers that there are."""
    with docker_client() as client:
        return [each["Names"][0] for each in client.api.containers(all=True, filters={"label": helper.LABEL})]


def as_member(place: Path, act: Callable[[], object], *, member: bool = True) -> None:
    """A user who may use Docker, or may not, did that, and nothing went wrong."""
    programs = place / "programs"
    programs.mkdir(exist_ok=True)

    def before() -> None:
        assert mounts.libc().unshare(NEW_NAMESPACE) == 0
        mounts.mount("none", Path("/"), "none", SLAVE | RECURSIVE, "")  # what Docker mounts, it goes on to see
        let_go(but=place)
        give_programs(programs)
        os.environ["XDG_CACHE_HOME"] = str(place / "theirs" / "cache")

    said = as_user(act, before=before, groups=[SOCKET.stat().st_gid] if member else [])
    shutil.rmtree(programs)
    assert not said, said


def live(home: Path) -> None:
    """The whole life of a cloud."""
    with em.Lab("docker", "ecryptfs", home=home, idle=None, default_policy=em.Policy.open()) as lab:
        ann = lab.controller.signup("ann")
        assert isinstance(ann.key, em.Key)
        ann.store([entry(1, key=KEY)])
        ann.pause()
        with pytest.raises(em.VaultBusy):
            lab.controller.life("ann").vault.close()
        ann.lock()
        assert mounts_below(home) == []
        with pytest.raises(Locked):
            ann.counts()
        with pytest.raises(em.WrongKey):
            ann.unlock(em.Key.random())
        ann.unlock(ann.key)
        assert ann.counts() == {KEY: 1}
        ann.delete()
    run_root(home).rmdir()


def test_the_life_of_a_cloud(place: Path, theirs: Path) -> None:
    def act() -> None:
        assert os.geteuid() != 0
        assert EcryptfsVault.missing_in(theirs) is None
        assert list(theirs.iterdir()) == [theirs / "cache"]
        live(theirs)

    as_member(place, act)
    assert list((theirs / "labs").iterdir()) == []


def test_what_is_lacking_is_said(place: Path, theirs: Path) -> None:
    def outside() -> None:
        assert "join its group" in str(EcryptfsVault.missing())

    def member() -> None:
        assert EcryptfsVault.missing() is None
        assert "is not on a shared mount" in str(EcryptfsVault.missing_in(Path("/proc")))

    as_member(place, outside, member=False)
    as_member(place, member)


def kill_container(api: APIClient, container: str) -> None:
    api.kill(container)


def pause_container(api: APIClient, container: str) -> None:
    api.pause(container)


def die(*arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after_start(act: Callable[[APIClient, str], None], monkeypatch: pytest.MonkeyPatch) -> Talk:
    """As `helper._talk`, and that happens before the keys are sent."""
    talk = helper._talk

    def struck(api: APIClient, container: str, send: bytes) -> str:
        start = api.start

        def start_and_act(container: str) -> None:
            start(container)
            act(api, container)

        monkeypatch.setattr(api, "start", start_and_act)
        return talk(api, container, send)

    return struck


@pytest.fixture
def vault(place: Path, theirs: Path) -> EcryptfsVault:
    return EcryptfsVault(theirs / "vault")


@pytest.fixture
def key() -> Key:
    return Key.random()


def test_a_helper_that_is_killed_is_an_error_and_nothing_is_mounted(
    place: Path, vault: EcryptfsVault, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "_talk", after_start(kill_container, monkeypatch))

    def act() -> None:
        vault.create(key)
        with pytest.raises(VaultError, match="said: nothing"):
            vault.open(key)
        assert not vault.is_open

    as_member(place, act)
    assert helpers() == []


def test_whoever_is_killed_meanwhile_leaves_a_vault_that_closes_and_opens(
    place: Path, vault: EcryptfsVault, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = helper._listen

    def die_when_answered(stream: socket.socket) -> None:
        listen(stream)
        die()

    def begin() -> None:
        vault.open(key)
        raise AssertionError("it is dead")

    def killed(talk: Callable[..., object] = helper._talk, listen: Callable[[socket.socket], object] = listen) -> None:
        with monkeypatch.context() as there:
            there.setattr(helper, "_talk", talk)
            there.setattr(helper, "_listen", listen)
            as_member(place, begin)

    def leaves(*found: Found) -> None:
        def end() -> None:
            left = vault.repair()
            assert left in found
            assert vault.is_open is (left is Found.OPEN)
            (vault.open(key) / "file").write_text("kept")
            vault.close()

        as_member(place, end)

    as_member(place, lambda: vault.create(key))
    killed(die)  # before the start
    killed(after_start(die, monkeypatch))  # before the keys
    killed(after_start(pause_container, monkeypatch), die)  # they were sent, and are not read
    leaves(Found.CLOSED)
    killed(listen=die_when_answered)
    leaves(Found.OPEN)
    killed(listen=die)  # and the container goes on: it may be quicker than whoever repairs, and mount
    leaves(Found.CLOSED, Found.OPEN)
    (lower,) = vault._lower.iterdir()
    assert "file" not in lower.name
    known = token.known()
    assert not any(name in known for name in vault._known_signatures())


def test_no_key_is_found_in_what_docker_keeps_shows_or_logs(
    cloud_image: str, vault: EcryptfsVault, key: Key, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault.create(key)
    data_key = vault._header.read("ecryptfs").unlock(key)
    keys = _keys(data_key)
    secrets = [key.raw(), data_key.raw(), *(each[:32] for each in keys)]
    frozen: list[tuple[APIClient, str]] = []
    found: list[list[str]] = []
    listen = helper._listen

    def freeze(api: APIClient, container: str) -> None:
        pause_container(api, container)
        frozen.append((api, container))

    def look_and_thaw(stream: socket.socket) -> str:
        """The keys were sent, and the program, which has them or will read them next, stands still."""
        ((api, container),) = frozen
        found.append(look(api, container, secrets))
        told = api.create_container(cloud_image, environment={"TOLD": secrets[0].hex()})["Id"]
        found.append(look(api, told, secrets))
        api.remove_container(told)
        api.unpause(container)
        return listen(stream)

    monkeypatch.setattr(helper, "_talk", after_start(freeze, monkeypatch))
    monkeypatch.setattr(helper, "_listen", look_and_thaw)
    Helper(vault._home).mount(vault._source, vault.clear, keys)
    assert vault.is_open
    vault.close()
    assert found[0] == []
    assert len(found[1]) >= 2  # where a key stands in the environment, it is found


def look(api: APIClient, container: str, secrets: Sequence[bytes]) -> list[str]:
    """Where keys are found: in what Docker says and keeps of a container, in its log, in what processes were given."""
    import docker

    texts = [str(api.inspect_container(container)).encode()]
    with contextlib.suppress(docker.errors.APIError):  # it keeps no log
        texts.append(bytes(api.logs(container)))
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended
            texts += [(process / what).read_bytes() for what in ("cmdline", "environ")]
    if (log := Path("/run/dockerd.log")).exists():
        texts.append(log.read_bytes())
    kept = search(Path(api.info()["DockerRootDir"], "containers", container), secrets)
    return [form for text in texts for form in search_bytes(text, secrets)] + [str(hit) for hit in kept]
