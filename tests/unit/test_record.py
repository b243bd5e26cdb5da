"""The recorder: what was done, how long it took, and what failed."""

from __future__ import annotations

import io
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.clock import ManualClock
from emlab.record import DTYPES, Event, Recorder, describe, summarize, three_digits


class SetBack(ManualClock):
    """A clock whose wall time is set back by an hour while the monotonic one goes on."""

    def now(self) -> float:
        return super().now() - 3600.0 * (super().now() > 1_700_000_000.0)


def types(frame: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in frame.dtypes.items()}


def test_a_span_lasts_as_long_as_its_block() -> None:
    clock = ManualClock()
    recorder = Recorder(clock)
    with recorder.span("pause", user="ann", engine="docker"):
        clock.advance(0.25)
    assert recorder.events == (Event("pause", "ann", "docker", 1_700_000_000.0, 0.25, ok=True, error=""),)


def test_a_span_does_not_care_for_a_wall_clock_that_is_set_back() -> None:
    clock = SetBack()
    recorder = Recorder(clock)
    with recorder.span("wake"):
        clock.advance(2.0)
    assert recorder.events[0].duration_s == 2.0


@pytest.mark.parametrize("error", [ValueError("no disk\nsecond line"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failure_is_recorded_and_goes_on(error: BaseException) -> None:
    clock = ManualClock()
    recorder = Recorder(clock)

    def work() -> None:
        with recorder.span("wake", user="ann", engine="docker"):
            clock.advance(1.0)
            raise error

    with pytest.raises(type(error)) as caught:
        work()
    assert caught.value is error
    (event,) = recorder.events
    assert (event.ok, event.duration_s, event.error) == (False, 1.0, describe(error))


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no disk\nsecond line"), "ValueError: no disk"),
        (ValueError("\n  late \n"), "ValueError: late"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (OSError(28, "full"), "OSError: [Errno 28] full"),
    ],
)
def test_an_error_is_told_in_one_line(error: BaseException, line: str) -> None:
    assert describe(error) == line


@given(st.text())
def test_an_error_is_never_empty_long_or_broken_into_lines(message: str) -> None:
    line = describe(RuntimeError(message))
    assert line.startswith("RuntimeError")
    assert len(line) <= 200
    assert len(line.splitlines()) == 1


def test_spans_may_nest_and_stand_in_the_order_of_their_ends() -> None:
    recorder = Recorder(ManualClock())
    with recorder.span("answer"), recorder.span("wake"):
        pass
    assert [event.span for event in recorder.events] == ["wake", "answer"]


def test_no_event_is_lost_between_threads() -> None:
    recorder = Recorder()

    def work(user: str) -> None:
        for _ in range(200):
            with recorder.span("answer", user=user):
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, "abcdefgh"))
    assert recorder.frame().groupby("user").size().to_dict() == dict.fromkeys("abcdefgh", 200)


def test_a_frame_has_the_columns_of_an_event_and_the_same_types_when_empty() -> None:
    empty, full = Recorder(), Recorder()
    full.add(Event("wake", "ann", "docker", 1.0, 2.0, ok=False, error="CloudGone: away"))
    full.add(Event("wake", "bob", "docker", 1.0, 2.0))
    assert list(empty.frame().columns) == [field.name for field in fields(Event)] == list(DTYPES)
    assert types(empty.frame()) == types(full.frame()) == DTYPES
    assert list(full.frame()["error"]) == ["CloudGone: away", ""]
    assert len(empty.frame()) == 0


def test_a_frame_survives_a_parquet_file() -> None:
    for events in [[], [Event("wake", "ann", "docker", 1.0, 2.0, ok=False, error="CloudGone: away")]]:
        recorder = Recorder()
        for event in events:
            recorder.add(event)
        file = io.BytesIO()
        recorder.frame().to_parquet(file)
        pd.testing.assert_frame_equal(pd.read_parquet(io.BytesIO(file.getvalue())), recorder.frame())


def test_a_summary_counts_failures_and_times_the_rest() -> None:
    recorder = Recorder()
    for seconds in (0.1, 0.2, 0.3):
        recorder.add(Event("wake", "ann", "docker", 0.0, seconds))
    recorder.add(Event("wake", "bob", "docker", 0.0, 60.0, ok=False, error="StartTimeout: 60 s"))
    recorder.add(Event("pause", "bob", "docker", 0.0, 9.0, ok=False, error="CloudGone"))
    expected = pd.DataFrame(
        {
            "n": [1, 4],
            "failed": [1, 1],
            "p50_ms": [math.nan, 200.0],
            "p95_ms": [math.nan, 290.0],
            "max_ms": [math.nan, 300.0],
        },
        index=pd.MultiIndex.from_tuples([("pause", "docker"), ("wake", "docker")], names=["span", "engine"]),
    )
    pd.testing.assert_frame_equal(summarize(recorder.frame()), expected, check_index_type=False)


def test_an_empty_recorder_has_an_empty_summary_and_shows_itself() -> None:
    assert len(summarize(Recorder().frame())) == 0
    assert list(summarize(Recorder().frame()).columns) == ["n", "failed", "p50_ms", "p95_ms", "max_ms"]
    assert "<td>" not in Recorder()._repr_html_()


def test_a_recorder_shows_its_spans_and_lets_no_markup_in() -> None:
    recorder = Recorder()
    recorder.add(Event("<wake>", "ann", "docker", 0.0, 0.2))
    recorder.add(Event("pause", "ann", "docker", 0.0, 0.2, ok=False, error="CloudGone"))
    shown = re.findall("<t[dh]>(.*?)</t[dh]>", recorder._repr_html_())
    assert shown[:7] == ["span", "engine", "n", "failed", "p50 (ms)", "p95 (ms)", "max (ms)"]
    assert shown[7:14] == ["&lt;wake&gt;", "docker", "1", "0", "200", "200", "200"]
    assert shown[14:] == ["pause", "docker", "1", "1", "–", "–", "–"]
    assert repr(recorder) == "Recorder(2 events, 1 failed)"


@pytest.mark.parametrize(
    ("value", "text"),
    [(1234.4, "1,234"), (99.96, "100"), (56.72, "56.7"), (13.0, "13.0"), (0.0891, "0.0891"), (0.0, "0.00")],
)
def test_a_number_is_shown_with_three_digits(value: float, text: str) -> None:
    assert three_digits(value) == text


def test_only_the_latest_events_are_kept_and_all_are_counted() -> None:
    recorder = Recorder()
    for name in "abc":
        recorder.add(Event(name, "", "", 0.0, 1.0))
    recorder.keep(2)
    for name in "de":
        recorder.add(Event(name, "", "", 0.0, 1.0))
    assert [event.span for event in recorder.events] == ["d", "e"]
    assert recorder.since(3) == (list(recorder.events), recorder.count)
    assert recorder.since(4) == ([recorder.events[-1]], 5)
    assert recorder.since(0) == (list(recorder.events), 5)
    assert recorder.since(5) == recorder.since(9) == ([], 5)
