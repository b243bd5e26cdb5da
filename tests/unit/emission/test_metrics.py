"""Travel by mode and span, against pandas' own grouping, which e-mission's server uses."""

from __future__ import annotations

from typing import cast

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.emission import metrics
from emlab.emission.metrics import Section
from emlab.entries import JsonObject
from emlab.entries.codes import Mode
from emlab.errors import BadQuery

DAY = 86_400.0
START = 1_440_633_600.0  # 2015-08-27, a Thursday, 00:00 UTC


def section(start_ts: float, mode: int = Mode.CAR, *, distance: float = 1.0, speeds: tuple[float, ...] = ()) -> Section:
    moment = pd.Timestamp(start_ts, unit="s", tz="America/Los_Angeles")
    return Section(
        start_ts, moment.year, moment.month, moment.day, "America/Los_Angeles", mode, distance, 60.0, list(speeds)
    )


SECTIONS = st.lists(
    st.tuples(st.floats(START, START + 900 * DAY), st.sampled_from(sorted(Mode)), st.floats(0, 1e6)),
    min_size=1,
    max_size=30,
)


@given(SECTIONS, st.sampled_from([("D", "D"), ("W", "W"), ("M", "ME"), ("Y", "YE")]))
def test_spans_of_utc_time_are_those_of_pandas(drawn: list[tuple[float, Mode, float]], freq: tuple[str, str]) -> None:
    sections = [section(ts, mode, distance=metres) for ts, mode, metres in sorted(drawn)]
    frame = pd.DataFrame({"t": [one.start_ts for one in sections], "metres": [one.distance for one in sections]})
    frame["t"] = pd.to_datetime((frame["t"] * 1e6).round().astype("int64"), unit="us", utc=True)  # as datetime rounds
    wanted = frame.groupby(pd.Grouper(freq=freq[1], key="t"))["metres"].agg(["count", "sum"])
    ours = metrics.by_time(sections, freq[0])
    assert [fields["ts"] for fields, _ in ours] == [int(name.timestamp()) for name in wanted.index]
    assert [len(group) for _, group in ours] == wanted["count"].tolist()
    sums = [sum(one.distance for one in group) for _, group in ours]
    assert sums == pytest.approx(wanted["sum"].tolist())


@given(SECTIONS, st.sampled_from([("DAILY", 3), ("MONTHLY", 2), ("YEARLY", 1)]))
def test_local_spans_hold_each_section_once_and_in_order(
    drawn: list[tuple[float, Mode, float]], freq: tuple[str, int]
) -> None:
    sections = [section(ts, mode) for ts, mode, _ in sorted(drawn)]
    ours = metrics.by_local_date(sections, freq[0])
    assert sorted(one for _, group in ours for one in group) == sorted(sections)
    names = [cast(str, fields["fmt_time"]) for fields, _ in ours]
    assert names == sorted(set(names))
    for fields, group in ours:
        parts = cast(JsonObject, fields["local_dt"])
        assert len(parts) == freq[1] + 1
        assert {(one.year, one.month, one.day)[: freq[1]] for one in group} == {tuple(parts.values())[:-1]}
        assert fields["ts"] == int(pd.Timestamp(names[ours.index((fields, group))], tz=group[0].zone).timestamp())


def test_a_summary_names_the_modes_that_were_used() -> None:
    walk, car = section(START, Mode.WALKING, distance=5.0), section(START + 1, Mode.CAR, distance=7.5)
    (day,) = metrics.summary(metrics.by_time([walk, car, car], "d"), "distance")
    assert day == {
        "ts": int(START),
        "local_dt": {
            "year": 2015,
            "month": 8,
            "day": 27,
            "hour": 0,
            "minute": 0,
            "second": 0,
            "weekday": 3,
            "timezone": "UTC",
        },
        "fmt_time": "2015-08-27T00:00:00+00:00",
        "nUsers": 1,
        "WALKING": 5.0,
        "CAR": 15.0,
    }
    assert metrics.summary(metrics.by_time([walk, car, car], "d"), "count")[0]["CAR"] == 2
    assert metrics.summary(metrics.by_time([walk, car, car], "d"), "duration")[0]["CAR"] == 120.0


def test_a_day_without_travel_between_two_others_counts_nobody() -> None:
    days = metrics.summary(metrics.by_time([section(START), section(START + 2 * DAY)], "DAILY"), "count")
    assert [(day["nUsers"], day.get("CAR")) for day in days] == [(1, 1), (0, None), (1, 1)]


def test_the_median_speed_is_that_of_the_sections_medians() -> None:
    sections = [
        section(START, speeds=(0.0, 2.0, 10.0)),
        section(START, speeds=(4.0,)),
        section(START, speeds=(6.0, 8.0)),
    ]
    (day,) = metrics.summary(metrics.by_time(sections, "D"), "median_speed")
    assert day["CAR"] == 4.0
    (still,) = metrics.summary(metrics.by_time([section(START)], "D"), "median_speed")
    assert "CAR" not in still


def test_nothing_travelled_is_no_span() -> None:
    assert metrics.by_time([], "D") == metrics.by_local_date([], "DAILY") == []


@pytest.mark.parametrize("freq", ["", "2D", "hour", "S"])
def test_an_unknown_frequency_is_refused(freq: str) -> None:
    with pytest.raises(BadQuery, match="frequency"):
        metrics.by_time([section(START)], freq)


def test_local_dates_have_no_weeks() -> None:
    with pytest.raises(BadQuery, match="DAILY"):
        metrics.by_local_date([section(START)], "W")


def test_more_spans_than_anybody_lives_are_refused() -> None:
    with pytest.raises(BadQuery, match="spans"):
        metrics.by_time([section(0.0), section(9e10)], "D")


LOCAL = {"year": 2015, "month": 2, "day": 28, "timezone": "Europe/Berlin"}
DATA = {"start_ts": 1.0, "start_local_dt": LOCAL, "sensed_mode": 5, "distance": 2.0, "duration": 3, "speeds": [None, 1]}


def test_a_section_is_read_from_its_entry() -> None:
    assert metrics.section_of({"data": DATA}) == Section(1.0, 2015, 2, 28, "Europe/Berlin", 5, 2.0, 3.0, [1.0])


@pytest.mark.parametrize(
    "change",
    [
        {"start_local_dt": {**LOCAL, "day": 31}},
        {"start_local_dt": {**LOCAL, "timezone": "Mars/Olympus"}},
        {"start_local_dt": {**LOCAL, "timezone": "../etc"}},
        {"start_local_dt": None},
        {"sensed_mode": 77},
        {"distance": None},
        {"speeds": "fast"},
    ],
)
def test_an_entry_that_lacks_what_metrics_need_is_left_out(change: JsonObject) -> None:
    assert metrics.section_of({"data": {**DATA, **change}}) is None
