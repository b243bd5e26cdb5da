"""The table of what a served lab costs, the plain client, and the figure: what of that measurement needs no lab."""

from __future__ import annotations

import math
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest

from emlab import plots
from emlab.clock import ManualClock
from emlab.errors import BadReply, CloudGone, ConfigError
from emlab.measure import Samples, waking
from emlab.measure import gateway_costs as costs
from emlab.measure.gateway import Way

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"


def give(value: float) -> float:
    if math.isinf(value):
        raise CloudGone("it went")
    return value


def samples(
    measure: str, ours: Sequence[float], raw: Sequence[float] = (), *, unit: str = "s", clouds: int = 1, each: int = 1
) -> pd.DataFrame:
    """A frame of these values by round, or several in each round; inf is an attempt that fails."""
    taken = Samples("process", clock=ManualClock())
    for arm, values in (("emlab", ours), ("raw", raw)):
        for number, value in enumerate(values):
            taken.take(measure, arm, number // each, lambda value=value: give(value), unit=unit)  # type: ignore[misc]
    return taken.frame().assign(clouds=clouds)


def row(frame: pd.DataFrame, number: int = 0) -> dict[object, object]:
    return dict(costs.costs(frame).iloc[number])


class TestCosts:
    def test_a_row_has_percentiles_of_both_arms_and_their_ratio(self) -> None:
        found = row(samples(costs.WAKE, [k / 1000 for k in range(1, 101)], [0.025] * 100, clouds=10))
        assert (found["clouds"], found["n"], found["failed"], found["raw_failed"]) == (10, 100, 0, 0)
        assert (found["p50"], found["p95"], found["p99"]) == (0.050, 0.095, 0.099)
        assert (found["raw_p50"], found["raw_p99"], found["against"]) == (0.025, 0.025, "raw")
        assert found["ratio"] == pytest.approx(2.02)
        assert (found["target"], found["met"]) == (1.1, False)

    def test_a_failed_attempt_never_ended(self) -> None:
        found = row(samples(costs.WAKE, [0.01] * 95 + [math.inf] * 5, [0.01] * 99 + [math.inf]))
        assert (found["failed"], found["raw_failed"]) == (5, 1)
        assert (found["p50"], found["p95"], found["p99"]) == (0.01, 0.01, math.inf)
        assert (found["ratio"], found["met"]) == (1.0, True)

    def test_requests_at_once_count_each_for_percentiles_and_as_rounds_for_certainty(self) -> None:
        found = row(samples(costs.WAKE_ALL, [0.01, 0.03, 0.01, 0.03], [0.01] * 4, each=2))
        assert (found["n"], found["p50"], found["p95"]) == (4, 0.01, 0.03)
        assert (found["ratio"], found["low"], found["high"]) == (2.0, 2.0, 2.0)

    def test_a_rate_costs_the_time_per_request(self) -> None:
        rates = [8000.0] * 10 + [16_000.0] * 11
        found = row(samples(costs.ALONE, rates, [20_000.0] * 21, unit=costs.PER_S))
        assert (found["p50"], found["p95"]) == (16_000.0, 8000.0)
        assert (found["raw_p50"], found["against"]) == (20_000.0, "at least 8000 requests/s")
        assert (found["ratio"], found["met"]) == (0.5, True)
        slow = row(samples(costs.ALONE, [4000.0, 4000.0, math.inf], [20_000.0] * 3, unit=costs.PER_S))
        assert (slow["ratio"], slow["met"], slow["p99"]) == (2.0, False, 0.0)

    def test_what_the_gateway_adds_is_the_difference_in_each_round(self) -> None:
        frame = samples(costs.ANSWER, [0.0011, 0.0021, 0.0031, math.inf], [0.001, 0.002, 0.003, 0.004])
        answers, added = costs.costs(frame).to_dict("records")
        assert (answers["measure"], answers["target"], answers["n"]) == (
            costs.ANSWER,
            pytest.approx(math.nan, nan_ok=True),
            4,
        )
        assert (added["measure"], added["n"], added["failed"]) == (costs.ADDED, 4, 1)
        assert added["p50"] == pytest.approx(0.0001)
        assert added["ratio"] == pytest.approx(0.2)

    def test_engines_do_not_mix(self) -> None:
        first = samples(costs.ANSWER, [0.002] * 3, [0.001] * 3, clouds=2)
        second = samples(costs.ANSWER, [0.004] * 5, [0.001] * 5, clouds=40).assign(engine="docker")
        table = costs.costs(pd.concat([first, second], ignore_index=True))
        added = table[table["measure"] == costs.ADDED]
        assert added[["engine", "clouds", "n", "failed"]].to_numpy().tolist() == [
            ["process", 2, 3, 0],
            ["docker", 40, 5, 0],
        ]
        assert added["p50"].tolist() == pytest.approx([0.001, 0.003])

    def test_without_a_raw_arm_there_is_a_limit_or_nothing_to_judge(self) -> None:
        frame = pd.concat([samples(costs.RESTART, [1.0] * 5), samples(costs.WORK, [1e-4] * 5)])
        restart, work = costs.costs(frame).to_dict("records")
        assert (restart["ratio"], restart["against"], restart["met"]) == (0.5, "2 s", True)
        assert math.isnan(work["ratio"])
        assert pd.isna(work["met"])
        assert costs.shown(costs.costs(frame))["measure"].tolist() == ["restart, 1 cloud"]

    def test_paused_clouds_must_use_nothing(self) -> None:
        for share, met in ((0.0, True), (0.2, False)):
            found = row(samples(costs.ASLEEP, [share] * 4, unit="% of a core"))
            assert bool(found["met"]) is met


def test_a_lab_is_measured_with_fewer_clouds_first() -> None:
    assert [number for number, _ in waking._plan(40)] == [1, 10, 40]
    assert [number for number, _ in waking._plan(2)] == [1, 2]
    assert [len(parts) for _, parts in waking._plan(1)] == [9]
    for clouds in (0, 61):
        with pytest.raises(ConfigError, match="1 to 60 clouds"):
            waking.side_by_side("process", clouds=clouds)


class TestFigure:
    def test_every_panel_has_both_arms_and_its_failures(self) -> None:
        wakes = [samples(costs.WAKE, [0.02, math.inf], [0.01, 0.01], clouds=clouds) for clouds in (1, 10, 40)]
        wakes += [samples(costs.WAKE_ALL, [0.02] * 6, [0.01] * 6, clouds=40)]
        frame = pd.concat([*wakes, samples(costs.WAKE + costs.TLS, [0.1], [0.1]), samples(costs.ANSWER, [1.0], [1.0])])
        figure = plots.waits(frame)
        shown = [axes for axes in figure.axes if axes.get_visible()]
        assert len(shown) == 5
        legend = shown[0].get_legend()
        assert legend is not None
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts == [
            "by the gateway: n = 2, 1 failed,\nmedian 20.0 ms",
            "without emlab: n = 2, 0 failed,\nmedian 10.0 ms",
        ]
        gateway = next(line for line in shown[0].lines if line.get_label() == texts[0])
        assert list(gateway.get_ydata()) == [0.0, 0.5]  # type: ignore[arg-type]

    def test_without_samples_it_is_empty(self) -> None:
        assert plots.waits(samples(costs.ANSWER, [1.0], [1.0])).axes


@contextmanager
def answering(path: Path, *parts: bytes) -> Iterator[Way]:
    """A server that answers the first request of each connection with these parts."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            line, _ = listener.accept()
            with line:
                line.recv(1 << 16)
                for part in parts:
                    line.sendall(part)

        thread = threading.Thread(target=serve)
        thread.start()
        yield Way(str(path), b"GET / HTTP/1.1\r\n\r\n")
        thread.join()


class TestWay:
    def test_an_answer_in_any_parts_is_read_to_its_end(self, tmp_path: Path) -> None:
        for number, parts in enumerate(([OK], [OK[:9], OK[9:38], OK[38:]], [OK[:-1], OK[-1:]])):
            with answering(tmp_path / f"{number}", *parts) as way:
                assert 0 < way.fresh_s() < 10

    @pytest.mark.parametrize(
        "answer",
        [OK.replace(b"200 OK", b"503 Service Unavailable"), OK[:-1], b"", b"HTTP/1.1 200 OK\r\n\r\n"],
        ids=["refused", "cut off", "nothing", "no length"],
    )
    def test_what_is_no_good_answer_is_an_error(self, answer: bytes, tmp_path: Path) -> None:
        with answering(tmp_path / "s", answer) as way, pytest.raises(BadReply):
            way.fresh_s()
