"""Every recorded session of the real e-mission server, replayed on real clouds and compared field by field."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import emlab as em
from emlab.clock import SYSTEM_CLOCK
from emlab.wire.transport import UnixTransport
from tests.e2e import replay

REAL = pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
SESSIONS = list(replay.sessions(Path(os.environ.get("EMLAB_PHONE_DAYS", "")))) or ["none"]


@contextmanager
def cloud_on(engine_name: str) -> Iterator[tuple[em.UserCloud, UnixTransport]]:
    with em.Lab(engine_name, idle=None) as lab:
        cloud = lab.controller.signup("ann")
        with closing(UnixTransport(cloud.socket)) as line:
            yield cloud, line


@REAL
@pytest.mark.needs("phone-days")
@pytest.mark.parametrize("session", SESSIONS)
def test_a_recorded_session_replays(engine_name: str, home: Path, phone_days: Path, session: str) -> None:
    different = []
    with cloud_on(engine_name) as (cloud, line):
        assert cloud.token is not None
        for call in replay.calls(phone_days, session):
            if call.method == replay.PIPELINE:
                cloud.intake()
            elif call.method != replay.PHASE:
                status, got = replay.send(line, call, cloud.token)
                faults = list(replay.call_faults(call, status, got))
                different += [f"{call.number} {call.path} ({call.note}) {fault}" for fault in faults[:10]]
    assert not different, "\n".join(different)


def test_what_is_excused_is_documented() -> None:
    text = (Path(__file__).parents[2] / "EMISSION.md").read_text(encoding="utf-8")
    found = text.partition("### Found by replaying recorded sessions")[2].partition("### Others")[0]
    rows = {line.split("|")[1].strip() for line in found.splitlines() if line.startswith("| ")} - {"what"}
    excused = {one.row for one in replay.DIFFERENCES} | {*replay.LACKING.values(), *replay.MORE.values()}
    assert rows == excused | {"Points that came out of order", "Entries of one time", "Times of segments"}


@pytest.mark.needs("phone-days")
def test_a_changed_answer_is_noticed(phone_days: Path) -> None:
    """The comparison itself: a session equals itself, and any changed number, name or order shows."""
    checked = 0
    for call in replay.calls(phone_days, "shankari_2015-aug-27"):
        response = call.response
        entries = response.get("phone_data") if isinstance(response, dict) else None
        if replay.difference(call) is not None or not isinstance(entries, list) or not entries:
            continue
        assert list(replay.faults(response, response)) == []
        for name, wrong in (("ts", 5.0), ("extra", 1), ("start_ts", "text")):
            changed = [{**entries[0], "data": {**entries[0]["data"], name: wrong}}, *entries[1:]]
            assert list(replay.faults(response, {"phone_data": changed})) != []
        assert list(replay.faults(response, {"phone_data": [*entries, entries[0]]})) != []
        checked += 1
    assert checked >= 5


@REAL
def test_a_request_of_100_mb_is_refused_and_the_cloud_still_answers(engine_name: str, home: Path) -> None:
    with cloud_on(engine_name) as (cloud, line):
        call = replay.Call(1, "POST", "/usercache/put", "x" * 100_000_000, 400, None, "")
        began = SYSTEM_CLOCK.monotonic()
        status, _ = replay.send(line, call, "")
        assert status in (400, 413)
        assert SYSTEM_CLOCK.monotonic() - began < 10
        again = replay.Call(2, "POST", "/profile/create", {"user": cloud.token}, 200, None, "")
        assert replay.send(line, again, "")[0] == 200


@pytest.mark.needs("phone-days", "mongod")
@pytest.mark.parametrize("session", SESSIONS)
def test_metrics_of_a_real_day_are_those_of_the_real_pipelines_sections(
    home: Path, phone_days: Path, session: str
) -> None:
    recorded = json.loads((phone_days.parent / "pipeline" / f"{session}.json").read_bytes())["sections"]
    upload = next(call for call in replay.calls(phone_days, session) if "in RAW phone form" in call.note)
    asked = {"start_time": 0, "end_time": 2e9, "freq": "Y", "is_return_aggregate": False}
    with cloud_on("process") as (cloud, line):
        asked |= {"user": cloud.token, "metric_list": ["count", "distance", "duration"]}
        assert replay.send(line, upload, str(cloud.token))[0] == 200
        cloud.intake()
        call = replay.Call(0, "POST", "/result/metrics/timestamp", asked, 200, None, "")
        status, answer = replay.send(line, call, "")
    assert status == 200
    assert isinstance(answer, dict)
    (counts,), (metres,), (seconds,) = answer["user_metrics"]
    modes = {section["inferred_mode"] for section in recorded}
    assert modes == {name for name in counts if name.isupper()}
    for mode in modes:
        mine = [section for section in recorded if section["inferred_mode"] == mode]
        assert counts[mode] == len(mine)
        assert metres[mode] == pytest.approx(sum(section["distance"] for section in mine), rel=0.001, abs=0.1)
        assert seconds[mode] == pytest.approx(sum(section["duration"] for section in mine), abs=1)
