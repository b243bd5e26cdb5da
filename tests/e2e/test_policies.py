"""Policies of real clouds: what is known of them outside of the vault, at sign-up and afterwards."""

from __future__ import annotations

import logging
import struct
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

import emlab as em
from emlab.ask import Envelope
from emlab.clock import wait_until
from emlab.engines.base import SOCKET
from emlab.policy import Policy
from emlab.provision import PROVISION, Provision
from emlab.wire.client import CloudClient
from emlab.wire.transport import UnixTransport
from tests.e2e.clouds import entry, run_dir, world_of
from tests.programs import docker_client

engines = pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
WEST, SOUTH, EAST, NORTH = 13.1234577, 52.7654331, 13.1244877, 52.7664331
NAME = "not-at-quince-lane"
ZONE = "Pacific/Pitcairn"
HIDDEN = [*(str(one) for one in (WEST, SOUTH, EAST, NORTH)), NAME, ZONE]


def secretive(**changes: object) -> Policy:
    place = em.Region.box(WEST, SOUTH, EAST, NORTH)
    policy = Policy.open(excluded_places=[place], excluded_hours=[(3, 4)], zone=ZONE, name=NAME)
    return policy.but(**changes)  # type: ignore[arg-type]


def needles() -> list[bytes]:
    """What is looked for: text, and the numbers as databases keep them."""
    numbers = [struct.pack(order, one) for one in (WEST, SOUTH, EAST, NORTH) for order in ("<d", ">d")]
    return [*(text.encode() for text in HIDDEN), *numbers]


def traces(files: list[Path]) -> list[str]:
    return [f"{file.name}: {one!r}" for file in files for one in needles() if one in file.read_bytes()]


def files_outside(home: Path, vault: Path) -> list[Path]:
    return [path for path in home.rglob("*") if path.is_file() and not path.is_relative_to(vault)]


@engines
def test_nothing_of_an_excluded_place_is_written_outside_the_vault(
    engine_name: str, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with em.Lab(engine_name, home=home, idle=None, name="quiet") as lab:
        ann = lab.controller.signup("ann", policy=secretive())
        world = world_of(lab)
        ann.store([entry(number) for number in range(3)])
        with closing(CloudClient(UnixTransport(run_dir(lab, ann) / SOCKET))) as client:
            client.call("ask", Envelope, world.request(world.ask(), cloud=ann.id))
            ann.policy = secretive(min_users=50)
            assert not ann.explain(world.ask()).permitted
            with pytest.raises(em.PolicyRefused) as refused:
                client.call("ask", Envelope, world.request(world.ask(), cloud=ann.id))
        with pytest.raises(em.BadQuery) as wrong:
            ann.policy = msgspec.structs.replace(secretive(), excluded_places=(_bow_tie(),))
        assert ann.policy.excluded_places[0] == em.Region.box(WEST, SOUTH, EAST, NORTH)
        said = [ann.logs(10_000), str(refused.value), str(wrong.value), repr(ann), ann._repr_html_()]
        said += [repr(ann.policy).replace(NAME, ""), lab.recorder.frame().to_json(), _container(lab, ann)]
        vault = lab.path / "clouds" / ann.id  # a plain vault's files lie there, open or closed
        outside = files_outside(home, vault)
        outside += [path for path in run_dir(lab, ann).iterdir() if path.is_file()]
        names = {path.name for path in outside}
        assert {"registry.sqlite", PROVISION, "providers.json"} <= names
        assert traces(outside) == []
        ann.lock()
        assert traces(files_outside(home, vault)) == []
        assert traces([path for path in vault.rglob("*") if path.is_file()])  # where it is, it is found
        said += [record.getMessage() for record in caplog.records]
        assert [text for text in HIDDEN for one in said if text in one] == []


def _bow_tie() -> em.Region:
    return em.Region(((((WEST, SOUTH), (EAST, NORTH), (EAST, SOUTH), (WEST, NORTH), (WEST, SOUTH)),),))


def _container(lab: em.Lab, cloud: em.UserCloud) -> str:
    if lab.engine != "docker":
        return ""
    with docker_client() as client:
        found = client.containers.list(all=True, filters={"label": "emlab.lab=quiet"})
        assert found, "the cloud's container is there"
        return str([one.attrs for one in found])


@engines
def test_a_cloud_never_starts_with_more_than_a_closed_policy(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name, home=home, idle=None, default_policy=Policy.open()) as lab:
        ann = lab.controller.signup("ann")
        provision = msgspec.json.decode((run_dir(lab, ann) / PROVISION).read_bytes(), type=Provision)
        assert provision.policy == Policy.closed()
        assert ann.policy == msgspec.structs.replace(Policy.open(), version=1)
        key = ann.key
        assert key is not None
        ann.lock()
        ann.unlock(key)
        assert ann.policy == msgspec.structs.replace(Policy.open(), version=1)
        with pytest.raises(em.BadQuery):
            lab.controller.signup("bob", policy=msgspec.structs.replace(Policy.open(), excluded_places=(_bow_tie(),)))
        assert [cloud.user for cloud in lab.controller.clouds()] == ["ann"]
        assert len(lab.controller.engine.find(lab.name)) == 1


def test_a_policy_that_refuses_the_lab_s_vaults_makes_no_cloud(home: Path) -> None:
    with em.Lab("memory", home=home, idle=None) as lab:
        with pytest.raises(
            em.ConfigError, match="gocryptfs, fscrypt, ecryptfs vaults, and those of this lab are plain"
        ):
            lab.controller.signup("ann", policy=Policy.careful())
        assert len(lab.controller.clouds()) == 0
        lab.controller.signup("ann", policy=Policy.careful(vaults=["plain"]))


def test_a_sweep_pauses_and_locks_as_an_owner_wants_it_and_leaves_others(home: Path) -> None:
    with em.Lab("memory", home=home, idle=None) as lab:
        ann = lab.controller.signup("ann", policy=Policy.open(pause_after_s=1.0, lock_after_s=2.0))
        bob = lab.controller.signup("bob", policy=Policy.open())
        swept: list[str] = []

        def sweep() -> bool:
            swept.extend(lab.controller.sweep())
            return len(swept) >= 2

        wait_until(sweep, timeout_s=10.0)
        assert swept == ["ann", "ann"]
        assert not ann.status.vault_open
        assert (bob.state, ann.state) == (em.CloudState.RUNNING, em.CloudState.STOPPED)
        assert ann.key is not None
        ann.unlock(ann.key)
        ann.policy = Policy.open()
        with ann.lease(60.0):
            assert lab.controller.sweep() == []


def test_an_owner_forbids_whom_the_roster_names_no_more(home: Path) -> None:
    with em.Lab("memory", home=home, idle=None) as lab:
        planner, other = (lab.controller.register_provider(name) for name in ("planner", "other"))
        ann = lab.controller.signup("ann")
        ann.permit(planner, other, aggregators=[lab.aggregator])
        assert len(lab.controller.roster(planner.token, planner.public)) == 1
        assert ann.forbid(planner).providers == (other.public,)
        assert lab.controller.roster(planner.token, planner.public) == []
        assert len(lab.controller.roster(other.token, other.public)) == 1


@pytest.mark.parametrize("engine_name", ["process"], indirect=True)
def test_a_cloud_that_runs_on_deletes_what_is_too_old_by_itself(
    engine_name: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emlab.engines.process.PROGRAM", "tests.e2e.hasty")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with em.Lab(engine_name, home=home, idle=None) as lab:
        ann = lab.controller.signup("ann", policy=Policy.open())
        ann.store([entry(number) for number in range(3)])
        ann.policy = Policy.open(retention_days=1)
        assert wait_until(lambda: ann.counts() == {}, 10.0)
        assert list(ann.log().frame()["kind"]).count("deleted") == 1
