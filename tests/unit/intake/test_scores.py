"""The scores of intake count what was missed and what was made up, and each trip once."""

from __future__ import annotations

from pathlib import Path

import pytest

from emlab.entries.codes import Mode
from emlab.errors import ConfigError
from emlab.measure import intake as measured
from emlab.measure.intake_scores import Section, Trip, paired, score
from emlab.simulate import Simulator


def trip(start: float, end: float, *modes: Mode, distance: float = 1_000.0) -> Trip:
    length = (end - start) / max(1, len(modes))
    parts = (Section(start + length * n, start + length * (n + 1), mode) for n, mode in enumerate(modes))
    return Trip(start, end, distance, tuple(parts))


def test_a_trip_counts_as_found_once_and_within_five_minutes() -> None:
    expected = [trip(0, 900), trip(2_000, 3_000)]
    assert paired(expected, [trip(300, 900)]) == [(expected[0], trip(300, 900))]
    assert paired(expected, [trip(301, 900)]) == []
    assert len(paired([trip(0, 900), trip(10, 910)], [trip(5, 905)])) == 1


def test_of_two_candidates_the_nearer_one_is_taken() -> None:
    assert paired([trip(0, 900)], [trip(200, 900), trip(10, 905)]) == [(trip(0, 900), trip(10, 905))]


def test_what_was_missed_and_what_was_made_up_stay_in_the_denominators() -> None:
    one = score(
        "a",
        "truth",
        [trip(0, 900, Mode.CAR), trip(5_000, 6_000, Mode.CAR)],
        [trip(0, 900, Mode.CAR), trip(9_000, 9_900)],
    )
    row = measured.table([one]).iloc[0]
    assert (row["trips"], row["found"], row["matched"]) == (2, 2, 1)
    assert (row["recall"], row["precision"], row["sections"]) == (0.5, 0.5, 0.5)
    assert row["modes"] == pytest.approx(900 / 1_900)


def test_modes_are_weighed_by_time() -> None:
    one = score("a", "truth", [trip(0, 1_000, Mode.WALKING, Mode.BUS)], [trip(0, 1_000, Mode.WALKING, Mode.WALKING)])
    assert one.same_mode_s == 500
    assert one.sections_matched == 1


def test_a_bus_counts_as_a_car_where_no_lines_are_known() -> None:
    one = score("a", "truth", [trip(0, 1_000, Mode.TRAIN)], [trip(0, 1_000, Mode.CAR)])
    assert (one.sections_matched, one.same_mode_s) == (1, 1_000)


def test_where_lines_are_known_a_bus_is_no_car() -> None:
    one = score("a", "truth", [trip(0, 1_000, Mode.BUS)], [trip(0, 1_000, Mode.CAR)], lines_known=True)
    assert (one.sections_matched, one.same_mode_s) == (0, 0)


def test_totals_are_of_each_kind_and_not_means_of_shares() -> None:
    few = score("few", "truth", [trip(0, 900)], [])
    many = score(
        "many",
        "truth",
        [trip(1_000 * n, 1_000 * n + 700) for n in range(9)],
        [trip(1_000 * n, 1_000 * n + 700) for n in range(9)],
    )
    other = score("day", "pipeline", [], [trip(0, 900)])
    table = measured.table([few, many, other])
    totals = table[table["name"] == "all"].set_index("against")
    assert totals.loc["truth", "recall"] == 0.9
    assert totals.loc["pipeline", "precision"] == 0
    assert table[table["against"] == "pipeline"]["recall"].isna().all()


def test_the_error_of_a_distance_is_relative_to_what_was_expected() -> None:
    one = score("a", "truth", [trip(0, 900, distance=1_000)], [trip(0, 900, distance=900)])
    assert one.distance_errors == (0.1,)
    none = score("a", "truth", [trip(0, 900, distance=0)], [trip(0, 900, distance=0)])
    assert none.distance_errors == (0.0,)


def test_trips_of_simulated_people_are_found() -> None:
    total = measured.table(measured.score_people(Simulator(n_users=6, days=5, seed=4))).iloc[-1]
    assert total["trips"] > 50
    assert total["recall"] >= 0.97
    assert total["precision"] >= 0.97
    assert total["modes"] >= 0.9
    assert total["distance"] < 0.05


def test_lines_tell_most_of_the_time_in_buses_and_trains_from_that_in_cars() -> None:
    people = Simulator(n_users=8, days=5, seed=4)
    told, untold = (
        sum(
            section.mode in (Mode.BUS, Mode.TRAIN)
            for person in people
            for each in measured.found(person.entries(), lines=lines)
            for section in each.sections
        )
        for lines in (people.lines(), None)
    )
    assert untold == 0
    assert told > 0
    total = measured.table(measured.score_people(people, lines=people.lines())).iloc[-1]
    assert total["against"] == "the truth, lines known"
    assert total["modes"] > 0.6


def test_a_folder_without_days_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no NAME"):
        measured.score_days(str(tmp_path))
    assert measured.score_days("") == []


def test_nothing_is_timed_if_nothing_is_asked_for() -> None:
    assert measured.speed({"a": []}, n=0).empty


def test_the_figure_has_a_row_for_each_kind_and_share() -> None:
    table = measured.table([score("a", "truth", [trip(0, 900)], [trip(0, 900)])])
    labels = [label.get_text() for label in measured.figure(table).axes[0].get_yticklabels()]
    assert labels[0] == "expected trips found, truth, n = 1"
    assert len(labels) == 4
