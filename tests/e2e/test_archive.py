"""An owner takes everything out of a real cloud and into another one: nothing is lost, nothing is widened."""

from __future__ import annotations

import gzip
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings

import emlab as em
from emlab import files
from emlab.errors import BadEntry, BadQuery, ConfigError, NotPermitted
from emlab.ledger import Row
from emlab.loss import Loss, Spent
from emlab.store.archive import COLLECTIONS
from emlab.wire.archive import MAX_ROWS, AdoptRequest, ArchiveHead, Page, PageRequest, RestoreRequest
from emlab.wire.table import LedgerReport
from tests.e2e.clouds import entry

Archive = dict[str, Any]
LABELS = {"mode": {"e-bike": 3}, "purpose": {}}


@pytest.fixture(scope="module")
def lab(need: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[em.Lab]:
    need("mongod")
    with em.Lab("process", idle=None, home=tmp_path_factory.mktemp("home")) as opened:
        yield opened


@pytest.fixture
def alice(lab: em.Lab) -> Iterator[em.UserCloud]:
    yield from _cloud(lab, "alice")


@pytest.fixture
def bob(lab: em.Lab) -> Iterator[em.UserCloud]:
    yield from _cloud(lab, "bob")


@pytest.fixture(scope="module")
def anybody(lab: em.Lab) -> Iterator[em.UserCloud]:
    """A cloud for what is refused, which leaves nothing behind."""
    yield from _cloud(lab, "anybody")


def _cloud(lab: em.Lab, user: str) -> Iterator[em.UserCloud]:
    cloud = lab.controller.signup(user)
    yield cloud
    lab.controller.discard(user)


def raw(number: int, key: str = "background/battery") -> dict[str, Any]:
    """A raw entry of a phone."""
    told = {"key": key, "platform": "android", "type": "sensor-data", "write_ts": 1_700_000_000.0 + number}
    return {"metadata": {**told, "time_zone": "Europe/Berlin"}, "data": {"battery_status": 3, "battery_level_pct": 7}}


def trip(number: int) -> dict[str, Any]:
    """A computed entry, which refers to another one."""
    computed = entry(number, key="analysis/cleaned_trip")
    computed["data"] = {"start_ts": 1.5, "end_ts": 2.5, "start_place": {"$oid": "a" * 24}, "empty": {}, "none": None}
    return computed


def document(collection: str, number: int, **fields: object) -> RestoreRequest:
    """A document of another collection, on its way in."""
    made = {"_id": {"$oid": f"{number:024x}"}, "user_id": {"$uuid": "0" * 32}, **fields}
    return RestoreRequest(collection=collection, documents=[msgspec.Raw(msgspec.json.encode(made))])


def fill(cloud: em.UserCloud) -> None:
    """Something of everything that a cloud can hold."""
    cloud.store([*map(entry, range(700)), *map(raw, range(5)), trip(900), {**entry(901), "invalid": True}])
    failed = msgspec.Raw(msgspec.json.encode(raw(77)))
    cloud._call("restore", em.StoreReport, RestoreRequest(collection="Stage_timeseries_error", documents=[failed]))
    profile = document("Stage_Profiles", 1, mode=LABELS["mode"], create_ts={"$date": 1_700_000_000_123})
    cloud._call("restore", em.StoreReport, profile)
    stage = document("Stage_pipeline_state", 2, pipeline_stage=9, last_processed_ts=1.5)
    cloud._call("restore", em.StoreReport, stage)
    adopt(cloud, 250_000, [row("a" * 32, 250_000)])


def row(ask: str, micro: int, ts: float = 5.0) -> Row:
    loss = Loss(epsilon_micro=micro)
    return Row(id=ask, provider="p", query="CountUsers", purpose="", ts=ts, loss=loss, answered=True)


def adopt(cloud: em.UserCloud, spent_micro: int, rows: list[Row]) -> LedgerReport:
    return cloud._call("adopt", LedgerReport, AdoptRequest(spent=Spent(micro=spent_micro), rows=rows))


def content(path: Path) -> Archive:
    packed = path.read_bytes()
    read: Archive = json.loads(gzip.decompress(packed) if path.suffix == ".gz" else packed)
    return read


def but_whose(found: Archive) -> Archive:
    """An archive without what says whose it is and when it was made, and without the log of its own cloud."""
    cloud = found["emlab"]["cloud"]
    text = json.dumps(found).replace(cloud, "0" * 32)
    same: Archive = json.loads(text)
    del same["emlab"]["exported_ts"], same["emlab"]["head"], same["log"]
    return same


def test_everything_comes_out_and_into_another_cloud(alice: em.UserCloud, bob: em.UserCloud, tmp_path: Path) -> None:
    fill(alice)
    alice.policy = em.Policy.open(total_epsilon=7.0)
    path = alice.export(tmp_path / "alice.json.gz")
    found = content(path)
    assert {name: len(found[name]) for name in found} == {
        "emlab": 9,
        "log": 6,
        "phone_data": 707,
        "rejected": 1,
        "documents": 2,
    }
    report = bob.import_(path, with_policy=True)
    assert (report.received, report.inserted, report.rejected) == (710, 710, {})
    again = bob.export(tmp_path / "bob.json")
    assert but_whose(content(again)) == but_whose(found)
    assert {one["user_id"]["$uuid"] for one in content(again)["phone_data"]} == {bob.id}
    assert bob.ledger == alice.ledger
    assert bob.policy == alice.policy
    assert bob.counts() == alice.counts()


def test_an_archive_moves_from_any_engine_to_another(
    engine_name: str, home: Path, bob: em.UserCloud, tmp_path: Path
) -> None:
    with em.Lab(engine_name, home=home, idle=None) as other:
        carol = other.controller.signup("carol")
        fill(carol)
        path = carol.export(tmp_path / "carol.json.gz")
        bob.import_(path)
        out, back = but_whose(content(path)), but_whose(content(bob.export(tmp_path / "bob.json")))
        assert all(back[part] == out[part] for part in ("phone_data", "rejected", "documents"))
        assert back["emlab"]["rows"] == out["emlab"]["rows"]
        dave = other.controller.signup("dave")
        dave.import_(tmp_path / "bob.json")
        assert dave.counts() == carol.counts()


def test_importing_again_changes_nothing(alice: em.UserCloud, tmp_path: Path) -> None:
    fill(alice)
    path = alice.export(tmp_path / "alice.json")
    report = alice.import_(path)
    assert (report.received, report.inserted, report.replaced) == (710, 0, 710)
    assert but_whose(content(alice.export(tmp_path / "again.json"))) == but_whose(content(path))


def test_every_collection_of_a_used_cloud_comes_back(lab: em.Lab, alice: em.UserCloud) -> None:
    fill(alice)
    held = alice._call("archive", ArchiveHead).documents
    assert held.keys() == set(COLLECTIONS)


def test_e_missions_tools_read_an_archive_as_an_answer(alice: em.UserCloud, tmp_path: Path) -> None:
    alice.store(map(entry, range(3)))
    found = list(files.read(alice.export(tmp_path / "alice.json")))
    assert [one["_id"]["$oid"] for one in found] == [f"{number:024x}" for number in range(3)]  # type: ignore[index]


def test_an_archive_is_for_its_owners_eyes(alice: em.UserCloud, lab: em.Lab, tmp_path: Path) -> None:
    path = alice.export(tmp_path / "alice.json")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert alice.token is not None
    assert alice.token not in path.read_text()
    for token in (None, "emo_wrong"):
        other = lab.controller.cloud("alice", token=token)
        with pytest.raises(NotPermitted):
            other.export(tmp_path / "x.json")
        with pytest.raises(NotPermitted):
            other.import_(path)
    assert not (tmp_path / "x.json").exists()


def test_an_archive_does_not_widen_a_policy_unasked(alice: em.UserCloud, bob: em.UserCloud, tmp_path: Path) -> None:
    alice.policy = em.Policy.open()
    before = bob.policy
    bob.import_(alice.export(tmp_path / "alice.json"))
    assert bob.policy == before


def test_what_was_spent_is_what_all_debits_are_together_and_each_is_kept_once(alice: em.UserCloud) -> None:
    adopt(alice, 500_000, [row("a" * 32, 500_000, ts=2.0)])
    report = adopt(alice, 300_000, [row("a" * 32, 500_000, ts=2.0), row("b" * 32, 300_000, ts=1.0)])
    assert report.spent_micro == 800_000
    assert [one.id for one in report.rows] == ["b" * 32, "a" * 32]
    assert report.remaining_micro == 3_000_000 - 800_000


def test_a_ledger_without_bounds_is_refused(alice: em.UserCloud) -> None:
    adopt(alice, 0, [row(f"{number:032x}", 1) for number in range(MAX_ROWS)])
    with pytest.raises(BadQuery, match="at most"):
        adopt(alice, 0, [row("f" * 32, 1)])
    with pytest.raises(BadQuery):
        adopt(alice, 2**63, [])


@pytest.mark.parametrize("named", ["Stage_nothing", "emlab", "system.users", "Stage_uuids", ""])
def test_only_what_an_archive_has_is_restored(anybody: em.UserCloud, named: str) -> None:
    with pytest.raises(BadEntry, match="an archive has no"):
        anybody._call("restore", em.StoreReport, document(named, 1))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"_id": {"$oid": "0"}}', "an unknown or malformed extended form"),
        ('{"metadata": {}}', "_id is missing"),
        (f'{{"_id": {{"$oid": "{1:024x}"}}, "mode": {{"$where": "1"}}}}', r"starts with \$"),
        ("[]", "is no JSON object"),
    ],
)
def test_a_document_that_the_database_would_not_take_is_refused(anybody: em.UserCloud, text: str, said: str) -> None:
    request = RestoreRequest(collection="Stage_Profiles", documents=[msgspec.Raw(text.encode())])
    with pytest.raises(BadEntry, match=said):
        anybody._call("restore", em.StoreReport, request)
    counted = anybody._call("restore", em.StoreReport, msgspec.structs.replace(request, partial=True))
    assert (counted.received, counted.rejected_total) == (1, 1)


def test_pages_are_bounded_and_complete(alice: em.UserCloud) -> None:
    alice.store([{**entry(number), "note": "x" * 5000} for number in range(200)])
    sizes, after = [], None
    while True:
        page = alice._call("page", Page, PageRequest(collection="Stage_timeseries", after=after))
        sizes.append(len(page.documents))
        if (after := page.after) is None:
            break
    assert sum(sizes) == 200
    assert max(sizes) < 60
    with pytest.raises(BadQuery, match="24 hex digits"):
        alice._call("page", Page, PageRequest(collection="Stage_timeseries", after="x"))
    with pytest.raises(BadQuery, match="none of e-mission's"):
        alice._call("page", Page, PageRequest(collection="kept"))


def test_of_a_broken_file_nothing_is_stored(alice: em.UserCloud, tmp_path: Path) -> None:
    whole = json.dumps([entry(number) for number in range(1200)])
    (tmp_path / "cut.json").write_text(whole[:-100])
    with pytest.raises(BadEntry, match=r"cut\.json: character \d+: the file ends early"):
        alice.import_(tmp_path / "cut.json", partial=True)
    (tmp_path / "bad.json").write_text(json.dumps([entry(0), {"data": {}}, entry(1)]))
    with pytest.raises(BadEntry, match=r"bad\.json: entry 1 \(no key\): metadata is missing") as caught:
        alice.import_(tmp_path / "bad.json")
    assert caught.value.position == 1
    assert alice.counts() == {}


def test_the_good_entries_of_a_file_may_be_stored_and_the_others_counted(alice: em.UserCloud, tmp_path: Path) -> None:
    things: list[object] = [entry(0), {"data": {}}, 7, None, {**entry(1), "data": {"ts": float("nan")}}, entry(2)]
    (tmp_path / "mixed.json").write_text(json.dumps(things))
    report = alice.import_(tmp_path / "mixed.json", partial=True)
    assert (report.received, report.inserted, report.replaced, report.rejected_total) == (6, 2, 0, 4)
    assert [one.position for one in report.examples] == [1, 2, 3, 4]
    assert alice.counts() == {"background/location": 2}


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"format": 2}, "of a newer emlab"),
        ({"format": 1, "policy": None}, "head is malformed"),
        ({"spent": {"micro": 2**63}}, "head is malformed"),
        (7, "head is malformed"),
    ],
)
def test_a_head_that_is_not_one_is_refused(anybody: em.UserCloud, tmp_path: Path, head: object, said: str) -> None:
    found = content(anybody.export(tmp_path / "alice.json"))
    found["emlab"] = {**found["emlab"], **head} if isinstance(head, dict) else head
    (tmp_path / "edited.json").write_text(json.dumps(found))
    with pytest.raises(BadEntry, match=said):
        anybody.import_(tmp_path / "edited.json")


def test_an_export_that_cannot_be_written_leaves_what_was_there(alice: em.UserCloud, tmp_path: Path) -> None:
    for name in ("absent/alice.json", "alice.csv"):
        with pytest.raises(ConfigError):
            alice.export(tmp_path / name)
    assert not list(tmp_path.iterdir())


def walk() -> list[dict[str, Any]]:
    """Twenty fixes of one place, half a minute apart."""
    return [entry(number * 30, key="background/filtered_location") for number in range(20)]


def test_tracks_come_in_as_entries(alice: em.UserCloud, tmp_path: Path) -> None:
    fixes = walk()
    files.write(tmp_path / "walk.gpx", fixes)
    report = alice.import_(tmp_path / "walk.gpx", zone="America/Los_Angeles")
    assert report.inserted == report.received == 20 + 2 + 3  # all; the first and the last; how the phone moved
    assert alice.import_(tmp_path / "walk.gpx", zone="America/Los_Angeles").replaced == report.received
    frame = alice.entries("background/location")
    assert list(frame["ts"]) == [fix["data"]["ts"] for fix in fixes]
    assert set(frame["metadata_time_zone"]) == {"America/Los_Angeles"}


def test_the_positions_alone_come_out_as_tracks(alice: em.UserCloud, tmp_path: Path) -> None:
    alice.store(walk())
    path = alice.export(tmp_path / "alice.gpx")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    kept: list[Any] = list(files.read(path))
    again = [one for one in kept if one["metadata"]["key"] == "background/location"]
    assert [one["data"]["ts"] for one in again] == [one["data"]["ts"] for one in walk()]


def test_intake_goes_on_in_the_new_cloud_where_it_was(alice: em.UserCloud, bob: em.UserCloud, tmp_path: Path) -> None:
    alice.store(em.Simulator(1, 2, 5).person(0).entries())
    found = alice.intake()
    assert found.trips > 0
    bob.import_(alice.export(tmp_path / "alice.json.gz"))
    again = bob.intake()
    assert (again.written, again.removed) == (0, 0)
    assert bob.trips().equals(alice.trips())


def test_a_checkpoint_that_is_none_makes_intake_begin_anew(alice: em.UserCloud) -> None:
    alice.store(em.Simulator(1, 1, 5).person(0).entries())
    found = alice.intake().trips
    for kept in (5, {"marks": 7}, {"marks": [{"checkpoint": 3, "older": 1}]}, {"other": 1}):
        alice._call("restore", em.StoreReport, document("Stage_pipeline_state", 2, pipeline_stage=17, emlab=kept))
        assert alice.intake().trips == found


@pytest.mark.needs("phone-days")
def test_real_days_come_back_from_a_cloud_as_they_were(alice: em.UserCloud, tmp_path: Path) -> None:
    day = Path(os.environ["EMLAB_PHONE_DAYS"]) / "shankari_2016-08-10.json.gz"
    alice.import_(day)
    before = {one["_id"]["$oid"]: one for one in json.loads(gzip.decompress(day.read_bytes()))}
    after = content(alice.export(tmp_path / "alice.json.gz"))["phone_data"]
    assert len(after) == len(before)
    for one in after:
        whose = before[one["_id"]["$oid"]]["user_id"]
        assert {**one, "user_id": whose} == before[one["_id"]["$oid"]]


scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
)
values = st.recursive(scalars | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
fields = st.dictionaries(st.text("abcdefgh_", min_size=2, max_size=5), values, max_size=4)
stored = st.lists(st.tuples(st.sampled_from(["formatted", "raw", "trip"]), st.integers(0, 30), fields), max_size=12)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(things=stored)
def test_export_and_import_keep_whatever_was_stored(
    lab: em.Lab, things: list[tuple[str, int, dict[str, object]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    makers = {"formatted": entry, "raw": raw, "trip": trip}
    first, second = lab.controller.signup("first"), lab.controller.signup("second")
    try:
        made: list[Any] = [(makers[kind](number), more) for kind, number, more in things]
        first.store([{**one, "data": {**one["data"], **more}} for one, more in made])
        out = first.export(folder / "first.json")
        second.import_(out)
        assert but_whose(content(second.export(folder / "second.json"))) == but_whose(content(out))
    finally:
        lab.controller.discard("first")
        lab.controller.discard("second")
