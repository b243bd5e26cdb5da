"""The actors' logic on MemoryEngine: the same code as on real engines, without programs."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

import emlab as em
from emlab import ask as asking
from emlab import provision, serving
from emlab.cleaning import clean
from emlab.clock import wait_until
from emlab.errors import InUse
from emlab.key import SigningKey
from emlab.lab import read_toml
from emlab.loss import Loss
from emlab.parts import emlab_home
from emlab.registry import Registry, Tombstone
from emlab.state import Handle
from emlab.wire.batches import ONE_REQUEST_BYTES
from emlab.wire.client import CloudClient
from emlab.wire.table import MAX_BODY_BYTES
from tests.e2e.clouds import entry

EVER = em.CountUsers(None, 0.0, 2e9)
LOCATIONS = "background/filtered_location"


@pytest.fixture
def lab(home: Path) -> Iterator[em.Lab]:
    with em.Lab("memory", default_policy=em.Policy.open(), idle=None) as lab:
        yield lab


def test_a_lab_is_to_be_opened_before_its_parts_are_used(home: Path) -> None:
    lab = em.Lab("memory")
    assert "closed" in repr(lab)
    for part in ("controller", "aggregator", "recorder"):
        with pytest.raises(em.ConfigError, match="not open"):
            getattr(lab, part)
    lab.close()


def test_closing_removes_all_of_a_lab_but_a_kept_one(home: Path) -> None:
    with em.Lab("memory", name="gone") as lab:
        lab.controller.signup("ann")
    with em.Lab("memory", name="stays", keep=True):
        pass
    assert [path.name for path in (home / "labs").iterdir()] == ["stays"]
    assert "is kept" in clean(home)[0]
    assert "is removed" in clean(home, "stays")[0]
    with pytest.raises(em.ConfigError, match="no lab 'stays'"):
        clean(home, "stays")
    assert clean(home) == []


def test_a_kept_lab_stays_kept_unless_it_is_said_to_go(home: Path) -> None:
    with em.Lab("memory", name="mine", keep=True):
        pass
    with em.Lab("memory", name="mine") as lab:
        assert lab.keep
    assert lab.path.exists()
    with em.Lab("memory", name="mine", keep=False) as lab:
        assert not lab.keep
    assert not lab.path.exists()


def test_auto_is_the_engine_that_a_lab_has(home: Path) -> None:
    with em.Lab("memory", name="mine", keep=True):
        pass
    with em.Lab("auto", name="mine", keep=False) as lab:
        assert lab.engine == "memory"


def test_a_lease_ends_with_its_lab(home: Path) -> None:
    with em.Lab("memory", name="mine", keep=True, idle=None) as lab:
        ann = lab.controller.signup("ann")
        life, engine = lab.controller.life("ann"), lab.controller.engine
        ann.lease(3600)
    assert engine.state(life.handle) is em.CloudState.PAUSED
    assert "removed" in clean(home, "mine")[0]


@pytest.mark.parametrize(("keep", "verb"), [(True, "pause"), (False, "remove")])
def test_one_cloud_s_failure_at_the_end_is_named_and_stops_no_other(
    home: Path, monkeypatch: pytest.MonkeyPatch, keep: bool, verb: str
) -> None:
    lab = em.Lab("memory", name="mine", keep=keep, idle=None).start()
    names = [f"user-{number:02}" for number in range(40)]  # more than run side by side
    lives = [lab.controller.life(lab.controller.signup(name).user) for name in names]
    handles, engine = [life.handle for life in lives], lab.controller.engine
    real = getattr(engine, verb)

    def broken(handle: Handle) -> None:
        if handle == handles[0]:
            raise RuntimeError("no power")
        real(handle)

    monkeypatch.setattr(engine, verb, broken)
    with pytest.raises(em.EngineError, match=r"user-00: RuntimeError: no power\. .*clean --lab mine"):
        lab.close()
    ended = em.CloudState.PAUSED if keep else em.CloudState.ABSENT
    assert [engine.state(handle) for handle in handles] == [em.CloudState.RUNNING] + [ended] * 39
    assert "closed" in repr(lab)
    assert "is removed, with " in clean(home, "mine")[0]


def test_a_sign_up_that_broke_off_early_spoils_neither_the_table_nor_the_end(lab: em.Lab) -> None:
    lab.controller.signup("ann")
    clouds = lab.controller.clouds()
    lab.controller._lives.by_user.pop("ann")  # as if it had ended before there was a cloud
    assert clouds.frame()["state"].tolist() == ["absent"]
    assert "ann" in lab._repr_html_()
    lab.close()
    assert not lab.path.exists()


def test_sweeping_survives_any_failure(
    home: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with em.Lab("memory", idle=em.PauseAfter(0.05)) as lab:
        real, failed = lab.controller.sweep, threading.Event()

        def broken(ends: Callable[[], bool]) -> list[str]:
            if failed.is_set():
                return real(ends)
            failed.set()
            raise AttributeError("ours")

        monkeypatch.setattr(lab.controller, "sweep", broken)
        ann = lab.controller.signup("ann")
        assert failed.wait(5)
        assert wait_until(lambda: ann.state is em.CloudState.PAUSED, 5)
    assert "AttributeError: ours" in caplog.text


def test_a_lab_whose_engine_is_missing_leaves_nothing_and_one_that_is_there_stays(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-such-socket")
    with em.Lab("memory", name="mine", keep=True):
        pass
    for name in ("mine", "other"):
        with pytest.raises(em.EngineMissing):
            em.Lab("docker", name=name).start()
    assert [path.name for path in (home / "labs").iterdir()] == ["mine"]
    (home / "labs" / "other").mkdir()
    mine = home / "labs" / "other" / "ca.key"
    mine.write_text("kept")
    with pytest.raises(em.EngineMissing):
        em.Lab("docker", name="other").start()
    assert [path.name for path in mine.parent.iterdir()] == [mine.name]


def test_cleaning_leaves_what_it_cannot_judge_and_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("away", "good"):
        em.Lab("memory", name=name, keep=True).start().close()
    registry = Registry(home / "labs" / "away")
    registry.open()
    registry.set("engine", "docker")
    registry.set("keep", "no")
    registry.close()
    registry = Registry(home / "labs" / "good")
    registry.open()
    registry.set("keep", "no")
    registry.close()
    (home / "labs" / "broken").mkdir()
    (home / "labs" / "broken" / "registry.sqlite").write_bytes(b"not a database" * 100)
    (home / "labs" / "stray").write_text("a file")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-such-socket")
    away, broken, good = clean(home)
    assert away == "the lab away cannot be cleaned: it is on the engine docker, which cannot be used now"
    assert "broken cannot be cleaned" in broken
    assert "good is removed" in good
    with pytest.raises(em.EngineMissing, match="cannot be used now"):
        clean(home, "away")
    assert {path.name for path in (home / "labs").iterdir()} == {"away", "broken", "stray"}


def test_cleaning_removes_no_clouds_of_which_nobody_knows_whether_they_were_kept(home: Path) -> None:
    with em.Lab("memory", name="kept", keep=True) as lab:
        vault = lab.controller.life(lab.controller.signup("ann").user).vault
        registry = lab.path / "registry.sqlite"
    registry.unlink()
    for _ in range(2):
        assert clean(home) == [
            f"the lab kept cannot be cleaned: the registry {registry} cannot be opened: there are clouds,"
            " and nothing is in it: restore it, or emlab clean --lab kept"
        ]
        with pytest.raises(em.ConfigError, match="restore it"):
            em.Lab("memory", name="kept").start()
        registry.write_bytes(b"")
    assert vault.parent.exists()

    def refuse() -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        clean(home, "kept", confirm=refuse)
    assert "cannot be cleaned" in clean(home)[0]
    assert vault.parent.exists()
    assert "is removed" in clean(home, "kept")[0]
    assert not vault.parent.exists()


def test_a_lab_that_never_pauses_goes_on_removing_what_could_not_be(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lab.toml"
    file.write_text('engine = "memory"\nidle_s = 0.0')
    monkeypatch.setattr("emlab.lab.SWEEP_S", (0.01, 0.01))
    with em.Lab.load(file) as lab:
        assert lab.idle == em.Never()
        lab.controller.signup("ann")

        def away(*_: object) -> None:
            raise em.EngineError("the engine is away")

        with monkeypatch.context() as there:
            there.setattr(lab.controller.engine, "remove", away)
            with pytest.raises(em.EngineError):
                lab.controller.forget("ann")
        assert wait_until(lambda: len(lab.controller.clouds()) == 0, 10)


@pytest.mark.parametrize("name", ["", "-a", "A", "a b", "../x", "x" * 33])
def test_lab_names_are_checked(home: Path, name: str) -> None:
    with pytest.raises(em.ConfigError, match="lab name"):
        em.Lab("memory", name=name).start()
    assert not (home / "labs").exists()


@pytest.mark.parametrize("name", ["", "-a", "a/b", "..", "a b", "x" * 65, "é", "<b>"])
def test_user_and_provider_names_are_checked(lab: em.Lab, name: str) -> None:
    with pytest.raises(em.ConfigError):
        lab.controller.signup(name)
    with pytest.raises(em.ConfigError):
        lab.controller.register_provider(name)
    assert len(lab.controller.clouds()) == 0


def test_a_sign_up_that_fails_leaves_nothing(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(spec: object) -> object:
        raise em.EngineError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(lab.controller.engine, "start", broken)
        with pytest.raises(em.EngineError, match="no room"):
            lab.controller.signup("ann")
    assert len(lab.controller.clouds()) == 0
    assert list((lab.path / "clouds").iterdir()) == []
    assert lab.controller.signup("ann").state is em.CloudState.RUNNING
    failed = lab.recorder.frame().query("not ok")
    assert set(failed["span"]) == {"start", "signup"}


def test_a_provider_is_the_same_when_registered_twice(lab: em.Lab) -> None:
    planner = lab.controller.register_provider("planner")
    assert lab.controller.register_provider("planner") is planner
    from emlab.key import SigningKey

    with pytest.raises(em.ConfigError, match="another key"):
        lab.controller.register_provider("planner", key=SigningKey())


def test_only_the_owner_s_handle_reads(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    ann.store([entry(1)])
    stranger = lab.controller.cloud("ann")
    for read in (stranger.counts, lambda: stranger.ledger, lambda: stranger.policy, lambda: stranger.entries("x")):
        with pytest.raises(em.NotPermitted, match="owner"):
            read()
    assert lab.controller.cloud("ann", token=ann.token).counts() == {"background/location": 1}


def test_no_repr_shows_a_token_or_a_key(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    planner = lab.controller.register_provider("planner")
    assert ann.token is not None
    assert isinstance(ann.key, em.Key)
    shown = " ".join(
        [repr(ann), ann._repr_html_(), repr(ann.key), repr(planner), lab._repr_html_(), repr(lab.controller)]
    )
    for secret in (ann.token, planner.token, ann.key._raw.hex()):
        assert secret not in shown


def test_entries_come_as_a_frame_also_when_there_are_none(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    assert len(ann.entries("background/location")) == 0
    ann.store([entry(n) for n in range(5)])
    frame = ann.entries("background/location", start_ts=1_700_000_001.0, end_ts=1_700_000_003.0)
    assert frame["ts"].tolist() == [1_700_000_001.0, 1_700_000_002.0, 1_700_000_003.0]
    assert frame["metadata_platform"].unique().tolist() == ["android"]
    with pytest.warns(RuntimeWarning, match="more than 2"):
        assert len(ann.entries("background/location", limit=2)) == 2


def test_more_entries_than_one_request_holds_are_stored_whole_or_not_at_all(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    many = [entry(n) for n in range(2000)]
    assert len(json.dumps(many)) > ONE_REQUEST_BYTES
    many[1500]["data"]["latitude"] = "north"  # type: ignore[index]
    with pytest.raises(em.BadEntry) as caught:
        ann.store(many)
    assert caught.value.position == 1500
    assert ann.counts() == {}
    report = ann.store(many, partial=True)
    assert (report.received, report.inserted, sum(report.rejected.values())) == (2000, 1999, 1)
    assert report.examples[0].position == 1500
    with pytest.raises(em.BadEntry, match="entry 1 cannot be written as JSON"):
        ann.store([entry(1), {"x": object()}])


def test_an_entry_too_deep_or_too_large_is_named_by_its_position(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    deep: list[object] = []
    for _ in range(3000):
        deep = [deep]
    for wrong in (deep, {"note": "x" * MAX_BODY_BYTES}):
        with pytest.raises(em.BadEntry, match="entry 1 ") as caught:
            ann.store([entry(1), wrong])
        assert caught.value.position == 1
    assert ann.counts() == {}


def test_a_use_keeps_a_cloud_awake_and_idleness_pauses_it(home: Path) -> None:
    with em.Lab("memory", idle=em.PauseAfter(0.05)) as lab:
        ann = lab.controller.signup("ann")
        with ann.lease(30):
            assert not wait_until(lambda: ann.state is em.CloudState.PAUSED, 0.3)
        assert wait_until(lambda: ann.state is em.CloudState.PAUSED, 5)
        ann.counts()
        assert ann.state is em.CloudState.RUNNING


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan"), float("inf"), 86_401, True])
def test_a_lease_is_bounded(lab: em.Lab, ttl_s: float) -> None:
    lab.controller.signup("ann")
    with pytest.raises(em.ConfigError, match="lease"):
        lab.controller.lease("ann", ttl_s)


def test_a_leased_cloud_is_neither_paused_nor_locked(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    lease = ann.lease(60)
    for act in (ann.pause, ann.lock):
        with pytest.raises(InUse):
            act()
    lease.release()
    lease.release()
    ann.pause()


def test_each_works_on_all_clouds_and_only_on_what_it_knows(lab: em.Lab) -> None:
    people = [lab.controller.signup(name) for name in ("ann", "bob")]
    lab.controller.each("pause")
    assert {person.state for person in people} == {em.CloudState.PAUSED}
    lab.controller.each("wake", ["ann"])
    assert [person.state for person in people] == [em.CloudState.RUNNING, em.CloudState.PAUSED]
    with pytest.raises(em.ConfigError):
        lab.controller.each("forget")


def test_the_table_of_clouds_has_one_row_each_and_escapes_names(lab: em.Lab) -> None:
    lab.controller.signup("a@b.c")
    frame = lab.controller.clouds().frame()
    assert frame[["user", "generation", "state", "vault_open", "leases"]].to_numpy().tolist() == [
        ["a@b.c", 1, "running", True, 0]
    ]
    assert "a@b.c" in lab.controller._repr_html_()
    assert len(lab.controller.clouds()[:1]) == 1


def test_a_wrong_provider_token_gets_no_roster(lab: em.Lab) -> None:
    planner = lab.controller.register_provider("planner")
    for token in ("", "emp_wrong", "emo_wrong"):
        with pytest.raises(em.NotPermitted):
            lab.controller.roster(token, planner.public)
    with pytest.raises(em.NotPermitted, match="not registered"):
        lab.controller.roster(planner.token, "0" * 64)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan"), 601, True])
def test_a_timeout_is_bounded(lab: em.Lab, timeout_s: float) -> None:
    planner = lab.controller.register_provider("planner")
    with pytest.raises(em.BadQuery, match="timeout_s"):
        planner.ask(EVER, epsilon=1.0, timeout_s=timeout_s)


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"epsilon": 1.0, "offset": 3.0, "alpha": 0.1},
        {"offset": 3.0},
        {"alpha": 0.1},
        {"offset": -1.0, "alpha": 0.1},
        {"offset": 3.0, "alpha": 0.0},
        {"offset": 3.0, "alpha": 1.0},
        {"offset": float("nan"), "alpha": 0.1},
    ],
)
def test_an_ask_says_its_price_in_one_of_two_ways(lab: em.Lab, how: dict[str, float]) -> None:
    planner = lab.controller.register_provider("planner")
    with pytest.raises(em.BadQuery):
        planner.plan(EVER, **how)  # type: ignore[arg-type]
    with pytest.raises(em.BadQuery):
        planner.ask("how many?", epsilon=1.0)  # type: ignore[arg-type]


def test_no_log_line_holds_a_token_an_entry_or_a_sum(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    person = em.Simulator(1, 1, seed=4).person(0)
    with em.Lab("memory", default_policy=em.Policy.open(), aggregator=em.Aggregator(exact=True)) as lab:
        ann = lab.controller.signup("ann")
        ann.store(person.entries())
        planner = lab.controller.register_provider("planner")
        release = planner.ask(em.SumDistance(0.0, 2e9, 1_000_000), epsilon=1.0, min_users=1)
        ann.permit(planner)
    text = caplog.text
    assert "ann" in text
    assert release.value > 1000
    first = json.loads(json.dumps(person.entries()[0]))
    for secret in (ann.token, planner.token, release.value, first["_id"]["$oid"], person.user_id):
        assert str(secret) not in text


def test_a_lab_comes_from_a_file_and_wrong_settings_are_named(home: Path, tmp_path: Path) -> None:
    sample = Path(__file__).parents[2] / "conf" / "lab.toml"
    lab = em.Lab.load(sample)
    assert (lab.name, lab.keep) == ("my-lab", True)
    for text, wrong in (("engin = 'x'", "engin"), ("keep = 'yes'", "keep"), ("= 3", "cannot be read")):
        (tmp_path / "lab.toml").write_text(text)
        with pytest.raises(em.ConfigError, match=wrong):
            em.Lab.load(tmp_path / "lab.toml")


def test_the_home_follows_the_environment(home: Path) -> None:
    assert emlab_home() == home


def test_an_ask_in_another_provider_s_name_is_not_carried(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    evil = lab.controller.register_provider("evil")
    lab.controller.register_provider("city-planner")
    mine = evil._ask(EVER, Loss(epsilon_micro=1000), "central", 1, "")
    ask = msgspec.structs.replace(mine, provider_name="city-planner")
    with pytest.raises(em.NotPermitted, match="another provider"):
        lab.controller.put(ask, asking.sign(ask, evil.key), ann.id, token=evil.token, timeout_s=5.0)
    assert ann.ledger.seq == 0


def test_one_cloud_that_breaks_in_any_way_costs_the_others_nothing(
    lab: em.Lab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("ann", "bob", "eve"):
        lab.controller.signup(name)

    def broken(*, timeout_s: float) -> CloudClient:
        raise FileNotFoundError("run directory")

    planner = lab.controller.register_provider("planner")
    with monkeypatch.context() as patch:
        patch.setattr(lab.controller.life("bob"), "using", broken)
        release = planner.ask(EVER, epsilon=1.0, min_users=1)
    assert (release.answered, release.failed, release.reasons) == (2, 1, {"FileNotFoundError": 1})


def test_an_answer_that_is_not_the_cloud_s_own_is_a_failure_and_sets_no_head(
    lab: em.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann = lab.controller.signup("ann")
    planner = lab.controller.register_provider("planner")

    def forged(
        ask: asking.Ask, values: Sequence[int], cloud: str, key: SigningKey, *, seq: int, version: int, ts: float
    ) -> asking.Envelope:
        return real(ask, values, cloud, SigningKey(), seq=2**40, version=version, ts=ts)

    real = asking.enclose
    with monkeypatch.context() as patch:
        patch.setattr(asking, "enclose", forged)
        with pytest.raises(em.TooFewUsers):
            planner.ask(EVER, epsilon=1.0, min_users=1)
    row = lab.controller._registry.cloud("ann")
    assert row is not None
    assert row.ledger_seq == 0
    ann.lock()
    assert isinstance(ann.key, em.Key)
    ann.unlock(ann.key)  # a forged head of 2**40 would refuse this start


def test_what_is_asked_while_a_person_is_forgotten_is_not_lost(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = em.Policy.open(total_epsilon=10.0)
    lab.controller.signup("ann", policy=policy)
    planner = lab.controller.register_provider("planner")
    real = lab.controller._registry.bury

    def ask_first(user: str, tombstone: Tombstone) -> None:
        with pytest.raises(em.TooFewUsers):  # the cloud takes no more asks
            planner.ask(EVER, epsilon=5.0, min_users=1)
        real(user, tombstone)

    planner.ask(EVER, epsilon=2.0, min_users=1)
    with monkeypatch.context() as patch:
        patch.setattr(lab.controller._registry, "bury", ask_first)
        lab.controller.forget("ann")
    assert lab.controller.signup("ann", policy=policy).ledger.spent_micro == 2_000_000


def test_a_forgotten_cloud_is_found_by_nobody_any_more(lab: em.Lab) -> None:
    lab.controller.signup("ann")
    cloud = lab.controller.status("ann").cloud
    assert lab.controller.life_of(cloud) is lab.controller.life("ann")
    lab.controller.forget("ann")
    assert lab.controller.life_of(cloud) is None


def test_a_refusal_costs_a_forgotten_person_nothing(lab: em.Lab) -> None:
    lab.controller.signup("ann", policy=em.Policy.open(total_epsilon=1.0))
    planner = lab.controller.register_provider("planner")
    with pytest.raises(em.TooFewUsers):
        planner.ask(EVER, epsilon=5.0, min_users=1)
    lab.controller.forget("ann")
    assert lab.controller.signup("ann").ledger.spent_micro == 0


@pytest.mark.parametrize("timeout_s", [0.1, 0.49])
def test_a_timeout_cannot_fall_into_the_slot_of_an_answer(lab: em.Lab, timeout_s: float) -> None:
    planner = lab.controller.register_provider("planner")
    with pytest.raises(em.BadQuery, match="timeout_s"):
        planner.ask(EVER, epsilon=1.0, min_users=1, timeout_s=timeout_s)


def test_too_small_a_group_says_why_and_what_to_do(home: Path) -> None:
    with em.Lab("memory") as lab:
        ann = lab.controller.signup("ann")
        planner = lab.controller.register_provider("planner")
        with pytest.raises(em.TooFewUsers, match=r"0 clouds permit planner.*cloud\.permit\(provider\)"):
            planner.ask(EVER, epsilon=1.0, min_users=1)
        ann.permit(planner)  # but not the aggregator
        with pytest.raises(em.TooFewUsers, match="PolicyRefused 1"):
            planner.ask(EVER, epsilon=1.0, min_users=1)


def test_only_clouds_whose_owners_permit_the_provider_are_asked_and_woken(home: Path) -> None:
    with em.Lab("memory", idle=None) as lab:
        planner, other = (lab.controller.register_provider(name) for name in ("planner", "other"))
        users = ("ann", "bob", "eve")
        ann, bob, eve = (lab.controller.signup(user, policy=em.Policy.research([planner])) for user in users)
        assert planner.plan(EVER, epsilon=1.0, min_users=1).eligible == 3
        assert other.plan(EVER, epsilon=1.0, min_users=1).eligible == 0
        bob.policy = em.Policy.research([other])
        eve.permit(other)
        for cloud in (ann, bob, eve):
            cloud.pause()
        rosters = {one.name: lab.controller.roster(one.token, one.public) for one in (planner, other)}
        aliases = {user: lab.registry.alias(lab.controller.status(user).cloud, planner.public) for user in users}
        assert rosters["planner"] == [aliases["ann"], aliases["eve"]]
        assert len(rosters["other"]) == 2
        assert not set(rosters["planner"]) & set(rosters["other"])
        with pytest.raises(em.TooFewUsers, match="PolicyRefused 2"):  # for its aggregator
            planner.ask(EVER, epsilon=1.0, min_users=1)
        assert [cloud.state for cloud in (ann, bob, eve)] == [
            em.CloudState.RUNNING,
            em.CloudState.PAUSED,
            em.CloudState.RUNNING,
        ]


@pytest.mark.parametrize("what", ["a link", "a pipe", "nonsense", "nothing"])
def test_what_a_cloud_says_of_its_providers_is_not_trusted(home: Path, tmp_path: Path, what: str) -> None:
    with em.Lab("memory", default_policy=em.Policy.open()) as lab:
        planner = lab.controller.register_provider("planner")
        lab.controller.signup("ann")
        said = lab.controller.life("ann").spec.run_dir / provision.PROVIDERS
        assert b'"providers":"anyone"' in said.read_bytes()
        assert len(lab.controller.roster(planner.token, planner.public)) == 1
        said.unlink()
        if what == "a link":
            (tmp_path / "secret").write_text("[]")
            said.symlink_to(tmp_path / "secret")
        elif what == "a pipe":
            os.mkfifo(said)
        elif what == "nonsense":
            said.write_text('["' + "x" * 100 + '"]')
        assert lab.controller.roster(planner.token, planner.public) == []  # until it starts and says so again


def test_a_region_that_makes_no_sense_is_refused_before_anybody_is_asked(lab: em.Lab) -> None:
    lab.controller.signup("ann").pause()
    planner = lab.controller.register_provider("planner")
    bow_tie = em.Region(((((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),),))
    with pytest.raises(em.BadQuery, match="Self-intersection"):
        planner.ask(em.CountUsers(bow_tie, 0.0, 1.0), epsilon=1.0, min_users=1)
    with pytest.raises(em.BadQuery, match="west to east"):
        em.Region.box(1, 1, 0, 0)
    assert lab.controller.cloud("ann").state is em.CloudState.PAUSED


def test_numbers_that_json_does_not_have_are_refused_and_not_made_null(lab: em.Lab) -> None:
    ann = lab.controller.signup("ann")
    for wrong in (float("nan"), float("inf")):
        bad = entry(1) | {"data": {**entry(1)["data"], "extra": [{"deep": wrong}]}}  # type: ignore[dict-item]
        with pytest.raises(em.BadEntry, match="not finite"):
            ann.store([entry(0), bad])
        with pytest.raises(em.BadQuery, match="UTC seconds"):
            ann.entries("background/location", start_ts=wrong)
    ann.store([entry(2) | {"data": {**entry(2)["data"], "extra": None}}])  # type: ignore[dict-item]
    assert ann.counts() == {"background/location": 1}


@pytest.mark.parametrize("what", ["abc", b"abc", {"a": 1}, None, 7])
def test_what_is_no_list_of_entries_is_said_to_be_none(lab: em.Lab, what: object) -> None:
    with pytest.raises(em.BadEntry, match="a list of entries"):
        lab.controller.signup("ann").store(what)  # type: ignore[arg-type]


def test_a_cloud_can_be_looked_at_after_its_end(home: Path) -> None:
    with em.Lab("memory") as lab:
        ann, bob = lab.controller.signup("ann"), lab.controller.signup("bob")
        bob.delete()
        assert "gone" in repr(bob) + bob._repr_html_()
    assert "closed" in repr(ann) + ann._repr_html_()


def test_arguments_of_the_wrong_kind_are_named(home: Path) -> None:
    wrong: list[Callable[[Any], object]] = [
        lambda lab: lab.controller.signup(None),
        lambda lab: lab.controller.signup("k", key="secret"),
        lambda lab: lab.controller.signup("k", policy="open"),
        lambda lab: lab.controller.register_provider(5),
        lambda lab: lab.controller.lease("ann", "x"),
        lambda lab: setattr(lab, "idle", 60),
        lambda lab: em.Lab("memory", default_policy="open").start(),  # type: ignore[arg-type]
        lambda lab: em.Lab("memory", idle=60).start(),  # type: ignore[arg-type]
        lambda lab: em.Lab("memory", name=5).start(),  # type: ignore[arg-type]
    ]
    with em.Lab("memory", idle=None) as lab:
        lab.controller.signup("ann")
        for call in wrong:
            with pytest.raises(em.ConfigError):
                call(lab)
        with pytest.raises(em.BadQuery, match="its public key"):
            em.Policy.research(["planner"])
        with pytest.raises(em.BadQuery, match="a list"):
            em.Policy.research(lab.controller.register_provider("planner"))  # type: ignore[arg-type]
        with pytest.raises(em.NotPermitted) as caught:
            lab.controller.cloud("ann", token="a\nb").counts()
        assert "a\nb" not in str(caught.value)


def test_a_home_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(em.ConfigError, match="EMLAB_HOME"):
        em.Lab("memory", home=tmp_path / "file" / "home").start()


def test_a_lab_s_file_says_when_clouds_are_locked(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text('engine = "memory"\nidle_s = 60.0\nlock_after_s = 3600')
    with em.Lab.load(file) as lab:
        assert lab.idle == em.PauseAfter(60.0, lock_after_s=3600)
    file.write_text("idle_s = 60.0\nlock_after_s = 5")
    with pytest.raises(em.ConfigError, match="at least idle_s"):
        em.Lab.load(file)
    file.write_text("idle_s = 0\nlock_after_s = 3600")
    with pytest.raises(em.ConfigError, match="positive number of seconds"):
        em.Lab.load(file)


def test_the_sample_says_the_defaults() -> None:
    file = Path(__file__).parents[2] / "conf" / "lab.toml"
    raw = read_toml(file)
    assert raw.pop("serve") == msgspec.to_builtins(serving.Settings())
    assert (raw.pop("name"), raw.pop("keep")) == ("my-lab", True)
    told, untold = em.Lab.of(raw, file), em.Lab.of({}, file)
    for lab in (told, untold):
        lab.name = "same"
    assert vars(told).keys() == vars(untold).keys()
    for name, value in vars(told).items():
        if not isinstance(value, threading.Event):
            assert value == vars(untold)[name], name


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("idle_s = 0", em.Never()),
        ("at_most = 3", em.AtMost(3, 60.0)),
        ("at_most = 3\nidle_s = 0", em.AtMost(3)),
        ("histogram = true\nidle_s = 30", em.Histogram(30)),
        ("histogram = false", em.PauseAfter(60.0)),
    ],
)
def test_a_lab_s_file_chooses_the_idle_rule(text: str, rule: em.PauseAfter | None, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(text)
    assert em.Lab.load(file)._idle == rule


@pytest.mark.parametrize("text", ["at_most = 3\nhistogram = true", "at_most = 3\nlock_after_s = 90", "at_most = -1"])
def test_idle_rules_that_make_no_sense(text: str, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(text)
    with pytest.raises(em.ConfigError):
        em.Lab.load(file)


def test_what_an_owner_permits_on_several_devices_at_once_all_holds(lab: em.Lab) -> None:
    cloud = lab.controller.signup("busy", policy=em.Policy.closed())
    keys = [f"{number:064x}" for number in range(12)]
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(cloud.permit, keys))
    assert set(keys) <= set(cloud.policy.providers)
