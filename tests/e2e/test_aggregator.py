"""The aggregator beside real clouds: as a process, in a container, and where each cloud draws its own noise."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import msgspec
import psutil
import pytest

import emlab as em
from emlab.aggregate import LOCAL, Release
from emlab.apps.aggregator import ADDRESS_FILE
from emlab.apps.listening import Address
from emlab.clock import wait_until
from emlab.errors import TooFewUsers
from emlab.releases import KEYS
from emlab.remote import ControllerClient
from emlab.remote_aggregator import AggregatorClient
from emlab.store.memory import MemoryStore
from tests.e2e.aggregating import aggregating, asked, settings
from tests.e2e.clouds import pid_of
from tests.e2e.served import Served, lab_file, served

REAL = pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
PROCESS = pytest.mark.parametrize("engine_name", ["process"], indirect=True)
DOCKER = pytest.mark.parametrize("engine_name", ["docker"], indirect=True)
QUERY = em.SumDistance(0.0, 2e9, 10_000_000)
USERS = 3


@pytest.fixture(scope="module")
def people() -> list[em.Person]:
    return list(em.Simulator(USERS, 1, seed=4))


@pytest.fixture
def lab(engine_name: str, home: Path, tmp_path: Path) -> Iterator[Served]:
    with served(home, lab_file(tmp_path / "lab.toml", engine_name)) as running:
        yield running
    em.Lab(engine_name, name="served", keep=False, home=home, idle=None).start().close()


@pytest.fixture
def admin(lab: Served, people: list[em.Person]) -> Iterator[ControllerClient]:
    """An admin's client of the lab, with these people's days in their clouds."""
    with lab.client() as client:
        for person in people:
            client.signup(person.name, policy=em.Policy.open()).store(person.entries())
        yield client


def contribution(person: em.Person) -> int:
    """What the person's cloud contributes, computed by the query itself on a store of the same data."""
    store = MemoryStore(UUID(int=1))
    store.put([msgspec.Raw(msgspec.json.encode(entry)) for entry in person.entries()])
    (value,) = QUERY.contribution(store)
    return value


@REAL
def test_central_and_local_asks_of_real_clouds_leave_no_exact_number_anywhere(
    lab: Served, admin: ControllerClient, people: list[em.Person], tmp_path: Path
) -> None:
    token = admin.issue("aggregator", "trust").token
    totals = [contribution(person) for person in people]
    assert min(totals) > 1000
    config = settings(tmp_path / "aggregator.toml", lab.address, token)
    with aggregating(config) as running, running.client() as client:
        planner = admin.register_provider("planner", aggregator=client)
        for person in people:
            admin.pause(person.name)
        central, local = (
            planner.ask(QUERY, epsilon=1.0, model=model, min_users=USERS, progress=False, timeout_s=60.0)
            for model in ("central", "local")
        )
        assert (central.answered, local.answered) == (USERS, USERS)
        assert ("Example trust" in central.trust, local.trust) == (True, LOCAL)
        for release in (central, local):  # fails by chance with a probability of 1e-9 each
            low, high = release.interval(1e-9)
            assert low <= sum(totals) <= high
            assert release.value != sum(totals)  # but for a chance of 1e-7
        lonely = asked(admin, planner, client, QUERY, min_users=100)
        with pytest.raises(TooFewUsers) as caught:
            client.release(lonely.ask, lonely.outcomes, signature=lonely.signature)
        keys = json.loads((running.folder / KEYS).read_bytes())
        folder = [path for path in running.folder.rglob("*") if path.is_file() and path.name != KEYS]
        said = [path.read_bytes() for path in (*folder, running.log, lab.log)]
        assert any(client.about.trust.encode() in text for text in said)  # the releases are among them
        said += [str(caught.value).encode(), msgspec.json.encode(central), msgspec.json.encode(local)]
        said += [repr(vars(planner)).encode(), repr(vars(client)).encode()]
        process = Path(f"/proc/{running.process.pid}")
        said += [(process / "environ").read_bytes(), (process / "cmdline").read_bytes()]
    for secret in (*map(str, totals), str(sum(totals)), *keys.values(), token):
        assert not any(secret.encode() in text for text in said), secret


@DOCKER
def test_it_runs_in_a_container_and_its_secrets_are_in_no_environment_argument_or_label(
    lab: Served, admin: ControllerClient, cloud_image: str, tmp_path: Path
) -> None:
    token = admin.issue("aggregator", "trust").token
    place = tmp_path / "aggregator"
    place.mkdir(mode=0o700)
    ca = place / "lab-ca.pem"
    ca.write_bytes(Path(lab.address.ca or "").read_bytes())
    config = settings(place / "aggregator.toml", lab.address, token, folder="kept", ca=ca.name)
    name = f"emlab-test-aggregator-{os.getpid()}"
    hardened = ["--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    user = ["--user", f"{os.getuid()}:{os.getgid()}"]
    command = ["docker", "run", "--rm", "--detach", "--name", name, *hardened, *user, "--network", "host"]
    command += ["--volume", f"{place}:{place}", "--entrypoint", "python3", cloud_image]
    command += ["-OO", "-P", "-m", "emlab.apps.aggregator", "--config", str(config)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        address = place / "kept" / ADDRESS_FILE
        assert wait_until(address.exists, 60), docker("logs", name)
        found = msgspec.json.decode(address.read_bytes(), type=Address)
        with AggregatorClient(found.url, ca=found.ca) as client:
            planner = admin.register_provider("planner", aggregator=client)
            release = planner.ask(QUERY, epsilon=1.0, min_users=USERS, progress=False)
            assert (release.answered, "Example trust" in release.trust) == (USERS, True)
        keys = json.loads((place / "kept" / KEYS).read_bytes())
        shown = docker("inspect", name) + docker("logs", name)
        assert not any(secret in shown for secret in (token, *keys.values()))
        docker("stop", "--time", "20", name)
        assert not address.exists()  # it ended in order
    finally:
        subprocess.run(["docker", "rm", "--force", name], check=False, capture_output=True)


def docker(*words: str) -> str:
    done = subprocess.run(["docker", *words], check=True, capture_output=True, text=True)
    return done.stdout + done.stderr


@PROCESS
def test_a_cloud_that_draws_noise_does_not_keep_what_draws_it(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name, default_policy=em.Policy.open(), idle=None) as lab:
        cloud = lab.controller.signup("ann")
        planner = lab.controller.register_provider("planner")
        release = planner.ask(em.CountUsers(None, 0.0, 2e9), epsilon=1.0, model="local", min_users=1, progress=False)
        assert isinstance(release, Release)
        custodian = psutil.Process(pid_of(lab, cloud, "custodian"))
        assert not [one.path for one in custodian.memory_maps() if "opendp" in one.path or "numpy" in one.path]
        assert [child.name() for child in custodian.children()] == ["mongod"]
        assert cloud.ledger.spent_micro == 1_000_000
