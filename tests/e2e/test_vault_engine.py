"""A Docker engine that is killed with its clouds running: nothing is forgotten, and what was acknowledged is there."""

from __future__ import annotations

import gc
import shutil
import ssl
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPSConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import emlab as em
from emlab.clock import wait_until
from emlab.errors import CloudGone, EngineError, InUse
from emlab.parts import make_engine
from emlab.remote import ControllerClient
from tests.e2e.clouds import entry
from tests.e2e.served import lab_file, served
from tests.e2e.test_vault_faults import KEY, found_again, key_of, killed
from tests.guest import dockerd
from tests.guest.dockerd import Dockerd
from tests.mounting import mounts_below
from tests.programs import what_runs

pytestmark = [
    pytest.mark.needs("docker", "mongod", "mounting"),
    pytest.mark.parametrize("vault", ["gocryptfs"], indirect=True),
    # the docker SDK drops a socket unclosed when nobody listens
    pytest.mark.filterwarnings("ignore:.*socket:pytest.PytestUnraisableExceptionWarning"),
]
MANY = 20


@pytest.fixture(scope="module")
def loaded(cloud_image: str) -> Iterator[Dockerd]:
    """An engine of these tests' own, which has the image."""
    folder = Path(tempfile.mkdtemp(prefix="em-"))
    engine = Dockerd(folder / "data", folder)
    try:
        engine.start()
        engine.load(dockerd.saved_image())
        yield engine
    finally:
        engine.clear()
        engine.stop()
        left = engine.processes()
        shutil.rmtree(folder)
    assert left == []


@pytest.fixture
def engine(loaded: Dockerd, vault_home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dockerd]:
    """It, as the engine of labs; at the end it has no container."""
    monkeypatch.setenv("DOCKER_HOST", loaded.address)
    yield loaded
    gc.collect()
    assert loaded.containers() == []
    assert mounts_below(vault_home) == []


def test_an_open_lab_says_that_its_engine_is_gone_and_goes_on_with_the_next(engine: Dockerd, vault: str) -> None:
    with em.Lab("docker", vault, default_policy=em.Policy.open(), idle=None) as lab:
        ann, bob, cid = clouds = [lab.controller.signup(user) for user in ("ann", "bob", "cid")]
        for cloud in clouds:
            cloud.store([entry(number, key=KEY) for number in range(MANY)])
        bob.pause()
        cid.lock()
        engine.kill()
        acts: list[Callable[[], object]] = [ann.wake, ann.pause, bob.wake, bob.lock, lambda: cid.unlock(key_of(cid))]
        for act in acts:
            with pytest.raises(EngineError) as caught:
                act()
            assert not isinstance(caught.value, CloudGone)
        assert lab.controller.clouds().frame()["state"].tolist() == ["unknown"] * 3
        engine.start()
        assert ann.counts() == {KEY: MANY}
        for cloud in (bob, cid):
            cloud.unlock(key_of(cloud))
            assert cloud.counts() == {KEY: MANY}
        ann.lock()
        ann.unlock(key_of(ann))
        assert ann.counts() == {KEY: MANY}


def test_a_new_lab_finds_the_clouds_of_a_killed_one_on_a_killed_engine(engine: Dockerd, vault: str) -> None:
    key = em.Key.random()
    token = killed("docker", vault, key)
    engine.kill()
    with pytest.raises(EngineError), found_again("docker"):
        raise AssertionError("no lab without an engine")
    engine.start()
    with found_again("docker") as lab:
        ann = lab.controller.cloud("ann", token=token)
        assert ann.counts() == {KEY: 1}
        ann.lock()
        ann.unlock(key)
        assert ann.counts() == {KEY: 1}


def test_an_engine_that_hangs_is_unknown_before_its_callers_give_up_and_clouds_that_run_answer(
    engine: Dockerd, vault: str, vault_home: Path, tmp_path: Path
) -> None:
    with (
        served(vault_home, lab_file(tmp_path / "lab.toml", "docker", vault=vault)) as running,
        running.client() as admin,
    ):
        ann, bob = [admin.signup(user) for user in ("ann", "bob")]
        ann.store([entry(number, key=KEY) for number in range(MANY)])
        bob.pause()
        with engine.hanging(), ThreadPoolExecutor(12) as pool:
            looks = [pool.submit(admin.stats, user) for user in ("ann", "bob") * 6]
            assert [one.state for one in admin.clouds().statuses()] == ["unknown", "unknown"]
            assert ann.counts() == {KEY: MANY}
            assert {type(look.exception(60)) for look in looks} == {EngineError}
        assert [one.state for one in admin.clouds().statuses()] == ["running", "paused"]
        for cloud in (ann, bob):
            cloud.delete()
    em.Lab("docker", vault, name="served", keep=False, home=vault_home, idle=None).start().close()


def test_a_served_lab_goes_on_with_an_engine_that_was_killed_alone_or_together_with_it(
    engine: Dockerd, vault: str, vault_home: Path, tmp_path: Path
) -> None:
    config = lab_file(tmp_path / "lab.toml", "docker", vault=vault)
    owned: dict[str, em.UserCloud] = {}

    def check(admin: ControllerClient) -> None:
        """No cloud is lost, none is left over, no lease, entry or debit is forgotten."""
        for user, cloud in owned.items():
            mine = admin.cloud(user, token=cloud.token)
            mine.unlock(key_of(cloud))
            assert mine.counts() == {KEY: MANY}
            assert mine.ledger.spent_micro == 500_000
        assert wait_until(lambda: [one.leases for one in admin.clouds().statuses()] == [1, 0], 10.0)
        with pytest.raises(InUse):
            admin.pause("ann")
        admin.pause("bob")
        handles = make_engine("docker", vault_home).find()
        assert {handle.cloud for handle in handles} == {one.cloud for one in admin.clouds().statuses()}
        assert what_runs("docker", vault_home) == {handle.ref for handle in handles}

    with served(vault_home, config) as running, running.client() as admin:
        for user in ("ann", "bob"):
            owned[user] = admin.signup(user, policy=em.Policy.open())
            owned[user].store([entry(number, key=KEY) for number in range(MANY)])
        planner = admin.register_provider("planner")
        assert planner.ask(em.CountUsers(None, 0.0, 2e9), epsilon=0.5, min_users=1).answered == 2
        admin.lease("ann", 3600.0)
        admin.pause("bob")
        engine.kill()
        assert [one.state for one in admin.clouds().statuses()] == ["unknown", "unknown"]
        where, trusting = urlsplit(str(owned["bob"].url)), ssl.create_default_context(cafile=running.address.ca)
        with closing(HTTPSConnection(where.netloc, context=trusting, timeout=60)) as line:
            line.request(
                "GET", f"{where.path.rstrip('/')}/policy", headers={"Authorization": f"Bearer {owned['bob'].token}"}
            )
            answer = line.getresponse()
            assert (answer.status, answer.headers["retry-after"] is not None) == (503, True)
        engine.start()
        check(admin)
        running.kill()
    engine.kill()
    engine.start()
    with served(vault_home, config) as running, running.client() as admin:
        check(admin)
    em.Lab("docker", vault, name="served", keep=False, home=vault_home, idle=None).start().close()
