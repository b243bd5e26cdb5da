"""Clouds in encrypting vaults: the whole life of one, on processes and Docker."""

from __future__ import annotations

from pathlib import Path

import pytest

import emlab as em
from emlab.cleaning import clean
from emlab.errors import Locked
from emlab.kept import kept_lab, new_cloud
from emlab.parts import choose_vault
from tests.canary import search
from tests.mounting import mounts_below

OLD, NEW = em.Passphrase("the old passphrase"), em.Passphrase("a new passphrase")

pytestmark = [
    pytest.mark.needs("mongod"),
    pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True),
]


@pytest.fixture
def person() -> em.Person:
    return em.Simulator(1, 1, seed=6).person(0)


def test_a_cloud_lives_in_an_encrypted_vault(engine_name: str, vault: str, vault_home: Path, person: em.Person) -> None:
    with em.Lab(engine_name, vault, default_policy=em.Policy.open()) as lab:
        assert f"encrypted by {vault}" in repr(lab)
        cloud = lab.controller.signup(person.name, key=OLD)
        cloud.store(person.entries())
        trips = cloud.intake().trips
        planner = lab.controller.register_provider("planner")
        cloud.pause()
        assert planner.ask(em.CountUsers(None, 0.0, 2e9), epsilon=1.0, min_users=1).answered == 1
        cloud.lock()
        folder = vault_home / "labs" / lab.name / "clouds" / cloud.id
        assert not (folder / "open" / "clear" / ".emlab-vault").exists()
        with pytest.raises(Locked):
            cloud.trips()
        with pytest.raises(em.TooFewUsers, match="0"):
            planner.ask(em.CountUsers(None, 0.0, 2e9), epsilon=1.0, min_users=1)
        with pytest.raises(em.WrongKey):
            cloud.unlock(NEW)
        cloud.unlock(OLD)
        assert len(cloud.trips()) == trips > 0


def test_a_passphrase_is_changed_and_a_code_helps_when_it_is_lost(
    engine_name: str, vault: str, vault_home: Path, person: em.Person
) -> None:
    with em.Lab(engine_name, vault) as lab:
        cloud = lab.controller.signup(person.name, key=OLD)
        cloud.store(person.entries())
        counts = cloud.counts()
        code = cloud.recovery(OLD)
        cloud.rekey(OLD, NEW)
        cloud.lock()
        with pytest.raises(em.WrongKey):
            cloud.unlock(OLD)
        cloud.unlock(NEW)
        cloud.lock()
        cloud.unlock(em.RecoveryCode(code.reveal()))
        assert cloud.counts() == counts


def test_nothing_of_a_forgotten_cloud_is_left(
    engine_name: str, vault: str, vault_home: Path, person: em.Person
) -> None:
    with em.Lab(engine_name, vault) as lab:
        cloud = lab.controller.signup(person.name)
        cloud.store(person.entries())
        folder = vault_home / "labs" / lab.name / "clouds" / cloud.id
        assert (folder / "vault.json").exists()
        cloud.delete()
        assert not folder.exists()
        assert mounts_below(vault_home) == []


def test_a_kept_lab_is_found_again_and_cleaned_with_its_mounts(
    engine_name: str, vault: str, vault_home: Path, person: em.Person
) -> None:
    with em.Lab(engine_name, vault, name="mine", keep=True) as lab:
        cloud = lab.controller.signup(person.name, key=OLD)
        cloud.store(person.entries())
        token, counts = cloud.token, cloud.counts()
    with em.Lab(engine_name, "auto", name="mine") as lab:
        assert lab.vault == vault
        cloud = lab.controller.cloud(person.name, token=token)
        assert cloud.counts() == counts
    clean(vault_home, "mine")
    assert mounts_below(vault_home) == []
    assert not (vault_home / "labs" / "mine").exists()


def test_on_disk_nobody_finds_what_a_phone_noted(
    engine_name: str, vault: str, vault_home: Path, person: em.Person
) -> None:
    entries = [{**entry, "data": {**entry["data"], "note": "canary-of-ann"}} for entry in person.entries()]  # type: ignore[dict-item]
    found = {}
    for kind in (vault, "plain"):
        with em.Lab(engine_name, kind) as lab:
            cloud = lab.controller.signup("ann")
            cloud.store(entries)
            cloud.lock()
            found[kind] = bool(search(vault_home / "labs" / lab.name, ["canary-of-ann"]))
    assert found == {vault: False, "plain": True}


def test_the_best_vault_that_works_is_chosen_and_the_reason_is_said(
    engine_name: str, vault: str, vault_home: Path
) -> None:
    with em.Lab(engine_name, "auto", name="mine", keep=True) as lab:
        assert (lab.vault, lab._vault_reason) == choose_vault(lab.path)
        assert f"({lab.vault} works here" in repr(lab)
    with em.Lab(engine_name, "auto", name="mine", keep=False) as lab:
        assert "(as the lab was made)" in repr(lab)
    with em.Lab(engine_name) as lab:
        assert "nothing is encrypted" in repr(lab)


def test_a_new_key_outlives_a_restart_of_the_lab_and_a_code_is_no_key(
    engine_name: str, vault: str, vault_home: Path
) -> None:
    with em.Lab(engine_name, vault, name="mine", keep=True) as lab:
        cloud = lab.controller.signup("ann")
        assert isinstance(cloud.key, em.Key)
        code = cloud.recovery(cloud.key)
        with pytest.raises(em.ConfigError, match="not RecoveryCode"):
            cloud.rekey(cloud.key, code)  # type: ignore[arg-type]
        cloud.rekey(code, NEW)
        assert cloud.key == NEW
        token = cloud.token
        cloud.lock()
    with em.Lab(engine_name, "auto", name="mine", keep=False) as lab:
        cloud = lab.controller.cloud("ann", token=token)
        cloud.unlock(NEW)
        assert cloud.counts() == {}


def test_nobody_is_signed_up_whose_key_nobody_would_have(
    engine_name: str, vault: str, vault_home: Path, tmp_path: Path
) -> None:
    with em.Lab(engine_name, vault, name="mine", keep=True):
        pass
    with kept_lab("mine") as lab:
        assert lab.vault == vault
        with pytest.raises(em.ConfigError, match="encrypted: sign ann up in Python"):
            new_cloud(lab, "ann", tmp_path / "token")
    assert clean(vault_home, "mine") == ["the lab mine is removed, with 0 clouds"]
