"""What people say of their trips reaches the right ones; and the report of what became of entries."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
import pytest

from emlab.intake import IntakeReport, labels
from emlab.intake.labels import additions, said, user_input
from tests.unit.intake.walks import Data, data, rides, run

TRIP = (1_000.0, 2_000.0)


def entry(name: str, start: float, end: float | None, write_ts: float = 9_000.0, **fields: object) -> Data:
    times = {"start_ts": start} if end is None else {"start_ts": start, "end_ts": end}
    return {
        "_id": {"$oid": f"{int(write_ts):024x}"},
        "metadata": {"key": f"manual/{name}", "write_ts": write_ts},
        "data": {**times, **fields},
    }


def matched(*entries: Data, next_ts: float | None = None) -> dict[str, Any]:
    return user_input(said(entries, Counter()), labels.TRIP_NAMES, *TRIP, next_ts)


@pytest.mark.parametrize(
    ("start", "end", "next_ts", "matches"),
    [
        (1_000, 2_000, None, True),
        (1_500, 1_600, None, True),
        (1_000, 2_900, None, True),  # fifteen minutes more are forgiven
        (999, 2_000, None, False),
        (2_001, 2_100, None, False),
        (1_000, 2_901, None, True),  # nothing follows, and it covers the trip
        (1_000, 4_000, 5_000, True),
        (1_000, 6_000, 5_000, False),
        (1_600, 4_000, 5_000, False),  # less than half of the trip
    ],
)
def test_an_input_belongs_to_the_trip_that_it_is_about(
    start: float, end: float, next_ts: float | None, matches: bool
) -> None:
    found = matched(entry("mode_confirm", start, end, label="walk"), next_ts=next_ts)
    assert found == ({"mode_confirm": "walk"} if matches else {})


def test_what_was_said_last_counts() -> None:
    first, last = (entry("mode_confirm", *TRIP, write_ts=ts, label=label) for ts, label in ((1, "walk"), (2, "bike")))
    assert matched(last, first) == {"mode_confirm": "bike"}


def test_a_survey_is_kept_whole_and_a_label_alone() -> None:
    survey = entry("trip_user_input", *TRIP, label="x", xmlResponse="<a/>")
    assert matched(survey, entry("purpose_confirm", *TRIP, label="work")) == {
        "trip_user_input": survey,
        "purpose_confirm": "work",
    }


def test_an_addition_that_was_deleted_is_gone() -> None:
    kept, gone = (entry("trip_addition_input", *TRIP, write_ts=n, match_id=f"m{n}", status="ACTIVE") for n in (1, 2))
    deletion = entry("trip_addition_input", *TRIP, write_ts=3, match_id="m2", status="DELETED")
    inputs = said([deletion, gone, kept], Counter())
    assert additions(inputs, labels.TRIP_ADDITION, *TRIP, None) == [kept]


@pytest.mark.parametrize(
    "bad",
    [{}, {"metadata": 3}, {"metadata": {"key": "manual/x", "write_ts": 1}, "data": {}}, entry("x", float("nan"), 1), 7],
)
def test_an_input_without_times_is_counted(bad: Any) -> None:
    dropped: Counter[str] = Counter()
    assert said([bad], dropped) == []
    assert dropped == {"an input without the times that it is about": 1}


def test_a_label_reaches_the_confirmed_and_the_composite_trip() -> None:
    seen = rides(2)
    trip = data(run(seen), "analysis/cleaned_trip")[0]
    seen.inputs.append(entry("mode_confirm", trip["start_ts"], trip["end_ts"], label="drove"))
    outcome = run(seen)
    for key in ("analysis/confirmed_trip", "analysis/composite_trip"):
        assert [each["user_input"] for each in data(outcome, key)] == [{"mode_confirm": "drove"}, {}]


def test_reports_add_up_and_cross_the_wire() -> None:
    one = IntakeReport(formatted=2, unformatted={"a": 1}, locations=3, dropped={"b": 1}, trips=1, duration_s=0.5)
    both = one.plus(IntakeReport(unformatted={"a": 2}, dropped={"c": 4}, trips=2, written=7, duration_s=0.25))
    assert both == IntakeReport(
        formatted=2, unformatted={"a": 3}, locations=3, dropped={"b": 1, "c": 4}, trips=3, written=7, duration_s=0.75
    )
    assert msgspec.json.decode(msgspec.json.encode(both), type=IntakeReport) == both
    assert both.dropped_total == 5


def test_a_report_names_its_reasons_and_escapes_them() -> None:
    report = IntakeReport(trips=2, dropped={"a <b>": 3}, unformatted={"odd": 1})
    assert "2 trips" in str(report)
    assert "3 x a <b>" in str(report)
    assert "1 x odd" in str(report)
    html = report._repr_html_()
    assert "left out: a &lt;b&gt;" in html
    assert "<td>3</td>" in html
