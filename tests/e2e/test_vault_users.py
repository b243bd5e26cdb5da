"""Who is not root keeps clouds in encrypting vaults just so, and they fail closed just so.

Not on Docker with gocryptfs: Docker's root sees no FUSE mount of another user's, unless /etc/fuse.conf has
user_allow_other, which is the machine's to decide. With eCryptfs see tests/guest/test_helper_container.py.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import emlab as em
from emlab.engines.rundir import run_root
from emlab.errors import EngineError, Locked
from emlab.parts import make_vault
from emlab.state import CloudSpec, Handle
from tests.contract.ordinary import USER, as_user, give_device, give_programs, mount_for_itself
from tests.e2e.clouds import entry
from tests.mounting import mounts_below

SOCKET = Path("/var/run/docker.sock")
KEY = "background/filtered_location"


def live(home: Path, engine_name: str, vault: str) -> None:
    """The life of a cloud that loses its vault at the worst moment."""
    with em.Lab(engine_name, vault, home=home, idle=None, default_policy=em.Policy.open()) as lab:
        ann = lab.controller.signup("ann")
        assert isinstance(ann.key, em.Key)
        ann.store([entry(1, key=KEY)])
        ann.pause()
        planner = lab.controller.register_provider("planner")
        assert planner.ask(em.CountUsers(None, 0.0, 2e9), epsilon=1.0, min_users=1).answered == 1
        life, engine = lab.controller.life("ann"), lab.controller.engine
        with pytest.raises(em.VaultBusy):
            life.vault.close()
        ann.unlock(ann.key)
        ann.lock()
        with pytest.raises(Locked):
            ann.counts()
        with pytest.raises(em.WrongKey):
            ann.unlock(em.Key.random())
        real = engine.start

        def late(spec: CloudSpec) -> Handle:
            make_vault(vault)(spec.vault_parent.parent).close()
            return real(spec)

        engine.start = late  # type: ignore[method-assign]
        with pytest.raises(EngineError, match="no marker"):
            ann.unlock(ann.key)
        engine.start = real  # type: ignore[method-assign]
        assert not life.is_open
        ann.unlock(ann.key)
        assert ann.counts() == {KEY: 1}
        ann.delete()
    run_root(home).rmdir()


@pytest.fixture
def place(vault: str, request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty directory that everybody can enter, on a file system that the vault works on."""
    with tempfile.TemporaryDirectory(prefix="em-") as name:
        folder = Path(request.getfixturevalue("encrypting_disk") if vault == "fscrypt" else name)
        for each in (folder, folder.parent if vault == "fscrypt" else folder):
            each.chmod(0o711)
        yield folder


@pytest.mark.needs("mounting")
@pytest.mark.parametrize(
    ("engine_name", "vault"), [("docker", "fscrypt"), ("process", "fscrypt"), ("process", "gocryptfs")], indirect=True
)
def test_an_ordinary_user_s_clouds_are_locked_and_unlocked(engine_name: str, vault: str, place: Path) -> None:
    theirs, programs = place / "theirs", place / "programs"
    for folder in (theirs, programs):
        folder.mkdir(mode=0o700)
    os.chown(theirs, USER.pw_uid, USER.pw_gid)

    def before() -> None:
        mount_for_itself()
        give_programs(programs)
        if vault == "gocryptfs":
            give_device(place)

    def act() -> None:
        os.environ["XDG_CACHE_HOME"] = str(theirs / "cache")
        live(theirs, engine_name, vault)

    assert as_user(act, before=before, groups=[SOCKET.stat().st_gid] if engine_name == "docker" else []) == ""
    assert list((theirs / "labs").iterdir()) == []
    assert mounts_below(theirs) == []
    shutil.rmtree(theirs)
