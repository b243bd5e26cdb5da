"""Receipts, the log, the owner's view and deletion on every engine; and `emlab verify` on what came of it."""

from __future__ import annotations

import gzip
import json
import logging
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import emlab as em
from emlab import archive, receipt
from emlab.aggregate import release
from emlab.chain import MemoryChain
from emlab.clock import SYSTEM_CLOCK, ManualClock, wait_until
from emlab.custodian import Custodian
from emlab.errors import BadEntry, NotPermitted
from emlab.key import SigningKey
from emlab.ledger import MemoryLedger
from emlab.provision import Provision
from emlab.receipt import Receipt
from emlab.store import MemoryStore
from emlab.verifying import verify
from tests.e2e.clouds import entry, gone, pid_of, reaches
from tests.unit.asks import CLOUD, NOW, World

EVER = em.CountUsers(None, 0.0, 2e9)


@pytest.fixture
def told(engine_name: str, home: Path) -> Any:
    """Three clouds on an engine, and a provider; two have answered, and one has refused."""
    with em.Lab(engine_name, default_policy=em.Policy.open()) as lab:
        clouds = [lab.controller.signup(name) for name in ("ann", "bob", "eve")]
        for cloud in clouds:
            cloud.store(map(entry, range(20)))
        clouds[2].policy = em.Policy.open(total_epsilon=0.1)
        planner = lab.controller.register_provider("planner")
        made = planner.ask(EVER, epsilon=0.5, min_users=2, purpose="bus lines", progress=False)
        yield lab, clouds, planner, made


def test_a_release_its_receipt_and_an_archive_are_verified_together(told: Any, tmp_path: Path) -> None:
    lab, (ann, _, eve), planner, made = told
    given: Receipt = made.receipt
    keys = lab.controller._registry.public_keys(planner.public)
    assert given.verify(made, aggregators=[lab.aggregator.signing_public], clouds=keys).demand()
    assert (given.asked, given.answered, given.refused) == (3, 2, {"BudgetExhausted": 1})
    # of answers in the same second an archive might not know yet
    assert wait_until(lambda: SYSTEM_CLOCK.now() >= int(given.made_ts) + 1, 2.0)
    files = [made.save(tmp_path / "release.json"), ann.export(tmp_path / "a.json.gz"), eve.export(tmp_path / "e.json")]
    verdicts = verify(files)
    assert all(verdicts.values()), verdicts
    assert "it tells of each of its answers in the receipts" in str(verdicts[files[1]])
    assert "receipts" not in str(verdicts[files[2]])  # eve refused


def test_an_owner_sees_who_asked_what_it_cost_and_what_was_refused(told: Any) -> None:
    _, (ann, _, eve), planner, _ = told
    me = ann.me()
    assert me.verified
    (use,) = me.providers
    assert (use.provider, use.key, use.asked, use.answered, use.refused) == ("planner", planner.public, 1, 1, 0)
    assert (use.epsilon, use.remaining, me.remaining) == (0.5, 99.5, 99.5)
    assert me.frame()["provider"].tolist() == ["planner"]
    her = eve.me()
    assert [(one.provider, one.query, one.purpose, one.why) for one in her.refusals] == [
        ("planner", "CountUsers", "bus lines", "BudgetExhausted")
    ]
    page = her._repr_html_()
    assert all(word in page for word in ("planner", "BudgetExhausted", "bus lines", "all holds"))
    assert {"policy", "started", "refused"} <= set(her.log.frame()["kind"])


def test_whom_an_owner_revokes_gets_no_answer_from_then_on(told: Any) -> None:
    lab, (ann, bob, _), planner, _ = told
    for cloud in (ann, bob):
        cloud.policy = em.Policy.research([planner], [lab.aggregator], min_users=1)
    ann.revoke(planner)
    later = planner.ask(EVER, epsilon=0.1, min_users=1, progress=False)
    assert (later.asked, later.answered) == (2, 2)  # bob and eve
    assert [one.permitted for one in ann.me().providers] == [False]
    bob.policy = em.Policy.open()
    with pytest.raises(em.BadQuery, match="anyone"):
        bob.revoke(planner)


def test_of_a_deleted_period_no_ask_sees_anything(told: Any) -> None:
    _, (ann, *_), _, _ = told
    at = [float(one) for one in ann.entries("background/location")["ts"]]
    deleted = ann.delete_period(at[5], at[9])
    assert deleted.removed == {"Stage_timeseries": 5}
    assert len(ann.entries("background/location")) == 15
    assert ann.counts() == {"background/location": 15}
    me = ann.me()
    assert me.verified
    assert [link.facts for link in me.log.links if link.kind == "deleted"] == [{"documents": 5}]
    assert str(at[5]) not in str(me.log.links)
    with pytest.raises(em.BadQuery):
        ann.delete_period(2.0, 1.0)


def test_a_provider_cannot_read_the_log_nor_delete(told: Any) -> None:
    lab, _, planner, _ = told
    stranger = lab.controller.cloud("ann", token=planner.token)
    for act in (stranger.me, stranger.log, lambda: stranger.delete_period(0.0, 1.0)):
        with pytest.raises(NotPermitted):
            act()


def test_a_log_is_as_it_was_after_pause_stop_and_start(told: Any) -> None:
    _, (ann, *_), _, _ = told
    before = ann.log()
    ann.pause()
    ann.lock()
    ann.unlock(ann.key)
    after = ann.log(earlier=[before.head])
    assert after.verdict.demand()
    assert after.links[: len(before.links)] == before.links
    assert [link.kind for link in after.links[len(before.links) :]] == ["started"]


@pytest.mark.parametrize("engine_name", ["process"], indirect=True)
@pytest.mark.parametrize("program", ["custodian", "mongod"])
def test_a_log_survives_the_death_of_a_cloud_and_goes_on(told: Any, program: str) -> None:
    lab, (ann, *_), planner, _ = told
    before = ann.log()
    pid = pid_of(lab, ann, program)
    os.kill(pid, signal.SIGKILL)
    assert gone(pid)
    assert reaches(ann, [em.CloudState.FAILED, em.CloudState.STOPPED])
    planner.ask(EVER, epsilon=0.1, min_users=1, progress=False)
    after = ann.log(earlier=[before.head])
    assert after.verdict.demand()
    assert [link.kind for link in after.links[len(before.links) :]] == ["started", "answered"]


def test_nothing_that_was_answered_or_sealed_is_in_a_log_or_a_line_that_was_printed(
    told: Any, caplog: pytest.LogCaptureFixture
) -> None:
    lab, (ann, *_), planner, _ = told
    with caplog.at_level(logging.DEBUG):
        again = planner.ask(EVER, epsilon=0.1, min_users=1, progress=False)
    texts = [str(ann.me().log.links), caplog.text, ann.logs(1000)]
    for public in lab.controller._registry.public_keys(planner.public).values():
        assert not any(public in text for text in (*texts, str(again.receipt.signed())))
    secret = lab.controller._registry.secret("aggregator-signing").hex()
    assert not any(secret in text for text in texts)


# -- emlab verify, on memory: it reads files only ----------------------------------------------------------------


@pytest.fixture
def files(home: Path, tmp_path: Path) -> dict[str, Path]:
    """A release, and two archives of a cloud, one after the other."""
    with em.Lab("memory", default_policy=em.Policy.open()) as lab:
        ann = lab.controller.signup("ann")
        ann.store(map(entry, range(5)))
        planner = lab.controller.register_provider("planner")
        first = ann.export(tmp_path / "first.json")
        saved = planner.ask(EVER, epsilon=0.5, min_users=1, progress=False).save(tmp_path / "release.json")
        return {"first": first, "release": saved, "second": ann.export(tmp_path / "second.json")}


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "emlab.cli", "verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_good_files_give_status_0_and_each_check_in_words(files: dict[str, Path]) -> None:
    done = run(*files.values())
    assert (done.returncode, done.stderr) == (0, "")
    assert "it goes on from 1 earlier heads" in done.stdout
    assert "FALSE" not in done.stdout
    as_json = [json.loads(line) for line in run("--json", *files.values()).stdout.splitlines()]
    assert {row["file"] for row in as_json} == {str(path) for path in files.values()}
    assert all(row["holds"] for row in as_json)


def test_an_aggregator_that_is_not_trusted_gives_status_1(files: dict[str, Path]) -> None:
    trusted = Receipt.load(files["release"]).aggregator
    assert run("--trust", trusted, files["release"]).returncode == 0
    done = run("--trust", "0" * 64, files["release"], "--json")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    wrong = [row for row in map(json.loads, done.stdout.splitlines()) if not row["holds"]]
    assert [row["check"] for row in wrong] == ["the aggregator is one that you trust"]


Edit = Callable[[dict[str, Any]], object]


def _drop_answered(archive: dict[str, Any]) -> None:
    archive["log"] = [link for link in archive["log"] if link["kind"] != "answered"]


EDITS: dict[str, Edit] = {
    "a link dropped": _drop_answered,
    "the first link dropped": lambda a: a["log"].pop(0),
    "the last link dropped": lambda a: a["log"].pop(),
    "a link doubled": lambda a: a["log"].insert(1, a["log"][1]),
    "two links exchanged": lambda a: a["log"].insert(0, a["log"].pop(1)),
    "a fact changed": lambda a: a["log"][-2]["facts"].update(epsilon_micro=1),
    "a fact added": lambda a: a["log"][0]["facts"].update(more=1),
    "a time changed": lambda a: a["log"][0].update(ts=1.0),
    "the head of before": lambda a: a["emlab"]["head"].update(seq=a["emlab"]["head"]["seq"] - 1),
    "another hash in the head": lambda a: a["emlab"]["head"].update(hash="0" * 64),
    "no log": lambda a: a.pop("log"),
    "a debit dropped": lambda a: a["emlab"].update(rows=[]),
    "a debit made cheaper": lambda a: a["emlab"]["rows"][0]["loss"].update(epsilon_micro=1),
    "another policy": lambda a: a["emlab"]["policy"].update(total_epsilon_micro=1),
    "another cloud": lambda a: a["emlab"].update(cloud="0" * 32),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_archive_that_was_edited_is_not_to_be_trusted(files: dict[str, Path], edit: str) -> None:
    path = files["second"]
    archive = json.loads(path.read_bytes())
    EDITS[edit](archive)
    path.write_text(json.dumps(archive))
    assert not verify([path])[path]


def test_a_log_that_was_set_back_is_told_from_a_receipt_or_an_earlier_archive(tmp_path: Path) -> None:
    """The log that was set back is whole in itself: that it is all there is, is what the other files contradict."""
    world, ledger, chain, clock = World(), MemoryLedger(), MemoryChain(CLOUD), ManualClock(NOW)
    provision = Provision(
        lab="lab",
        cloud=CLOUD,
        generation=1,
        owner_tokens=[],
        controller=world.controller.public,
        policy=em.Policy.open(),
        marker="0" * 64,
    )

    def export(kept: MemoryChain, name: str) -> Path:
        custodian = Custodian(provision, MemoryStore(uuid.UUID(CLOUD)), ledger, chain=kept, clock=clock)
        archive.export(_caller(custodian), tmp_path / name)
        return tmp_path / name

    custodian = Custodian(provision, MemoryStore(uuid.UUID(CLOUD)), ledger, chain=chain, clock=clock)
    ask = world.ask()
    envelope = custodian.ask(world.request(ask))
    bare = release(ask, [(1,)], [], trust="test")
    saved = replace(bare, receipt=receipt.make(ask, bare, [envelope], [], SigningKey(), NOW)).save(tmp_path / "r.json")
    clock.advance(60)
    true, forged = export(chain, "true.json"), export(MemoryChain(CLOUD), "forged.json")
    assert all(verify([true, saved]).values())
    assert verify([forged])[forged]
    assert not verify([forged, saved])[forged]
    both = verify([true, forged])
    assert not both[true]  # which goes on from what is not its beginning
    assert not both[forged]  # which ends before it did once
    clock.advance(60)
    assert not verify([true, later := export(MemoryChain(CLOUD), "later.json")])[later]


def _caller(custodian: Custodian) -> Any:
    def call(name: str, response: type, request: object = None, *, timeout_s: float = 0.0) -> object:
        return getattr(custodian, name)(*([] if request is None else [request]))

    return call


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\x1f\x8b\x08 not gzip",
        b'{"emlab": 3}',
        b'{"emlab": {"format": 1}}',
        b'{"a": 1}',
        b"\xff" * 99,
    ],
)
def test_a_file_of_another_kind_is_an_error_in_words_and_no_traceback(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(BadEntry, match=r"x\.json"):
        verify([path])


def test_errors_of_the_command_are_sentences(files: dict[str, Path], tmp_path: Path) -> None:
    cut = tmp_path / "cut.json.gz"
    cut.write_bytes(gzip.compress(files["second"].read_bytes())[:-40])
    for path in (cut, tmp_path / "absent", tmp_path):
        done = run(path)
        assert done.returncode == 1
        assert done.stderr.startswith("emlab: ")
        assert "Traceback" not in done.stderr
