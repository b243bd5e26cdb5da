"""A Docker engine that is killed with its clouds running: nothing is forgotten, and what was acknowledged is there."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import emlab as em
from emlab.errors import CloudGone, EngineError
from tests.e2e.clouds import entry
from tests.e2e.test_vault_faults import KEY, found_again, key_of, killed
from tests.guest import dockerd
from tests.guest.dockerd import Dockerd
from tests.mounting import mounts_below

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
