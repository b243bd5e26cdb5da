"""Who is not root keeps clouds in encrypting vaults on Docker just so, and they fail closed just so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

import emlab as em
from emlab.engines.rundir import run_root
from emlab.errors import EngineError, Locked
from emlab.parts import make_vault
from emlab.state import CloudSpec, Handle
from tests.contract.ordinary import USER, as_user
from tests.e2e.clouds import entry
from tests.mounting import mounts_below

SOCKET = Path("/var/run/docker.sock")
KEY = "background/filtered_location"


def live(home: Path, vault: str) -> None:
    """The life of a cloud that loses its vault at the worst moment."""
    with em.Lab("docker", vault, home=home, idle=None, default_policy=em.Policy.open()) as lab:
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


@pytest.mark.needs("docker", "fscrypt", "mounting")
def test_an_ordinary_user_s_clouds_are_locked_and_unlocked(cloud_image: str, encrypting_disk: Path) -> None:
    for folder in (encrypting_disk, encrypting_disk.parent):
        folder.chmod(0o711)
    theirs = encrypting_disk / "theirs"
    live(encrypting_disk / "ours", "fscrypt")  # as root; also imports what the user may not be able to read
    theirs.mkdir(mode=0o700)
    os.chown(theirs, USER.pw_uid, USER.pw_gid)

    def act() -> None:
        os.environ["XDG_CACHE_HOME"] = str(theirs / "cache")
        live(theirs, "fscrypt")

    assert as_user(act, groups=[SOCKET.stat().st_gid]) == ""
    assert list((theirs / "labs").iterdir()) == []
    assert mounts_below(theirs) == []
    shutil.rmtree(theirs)
