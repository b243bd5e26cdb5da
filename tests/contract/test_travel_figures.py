"""The figures of a person's travel: lines where the way led, bars at the hours of the local day."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from emlab.geo import haversine_m
from emlab.plots import travel

SECTION = "5ba1d7e8000000000000000a"
SECTIONS = pd.DataFrame(
    {
        "section": [SECTION, "5ba1d7e8000000000000000b"],
        "mode": ["BICYCLING", "ZEPPELIN"],
        "start_local": ["2015-08-27T23:00:00-07:00", "2015-08-29T08:00:00-07:00"],
        "duration_s": [7200.0, 1800.0],
        "distance_m": [2000.0, 1000.0],
        "start_lon": [-122.10, -122.08],
        "start_lat": [37.30, 37.32],
        "end_lon": [-122.08, -122.07],
        "end_lat": [37.32, 37.31],
    }
)
PLACES = pd.DataFrame(
    {
        "enter_local": [None, "2015-08-28T01:00:00-07:00", "2015-08-29T08:30:00-07:00"],
        "duration_s": [math.nan, 3600.0, math.nan],
        "lon": [-122.10, -122.08, -122.07],
        "lat": [37.30, 37.32, 37.31],
    }
)
TRACK = pd.DataFrame(
    {"section": [{"$oid": SECTION}, {"$oid": "another"}], "longitude": [-122.09, 0.0], "latitude": [37.30, 0.0]}
)


def lines(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """The points of each line, in km, by its label."""
    return {str(line.get_label()): np.asarray(line.get_xydata()).tolist() for line in figure.axes[0].lines}


def bars(figure: Figure) -> list[tuple[str, float, float, str]]:
    """(day, first hour, hours, label) of each bar."""
    axes = figure.axes[0]
    days = {tick: label.get_text() for tick, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)}
    return [
        (days[round(bar.get_y() + bar.get_height() / 2)], bar.get_x(), bar.get_width(), str(group.get_label()))
        for group in axes.containers
        for bar in group
    ]


def test_a_map_leads_each_section_along_its_track_at_true_distances() -> None:
    drawn = lines(travel.trip_map(SECTIONS, PLACES, TRACK))
    assert {name: len(points) for name, points in drawn.items()} == {"BICYCLING": 3, "ZEPPELIN": 2}
    (start, _, end) = drawn["BICYCLING"]
    assert math.dist(start, end) * 1000 == pytest.approx(haversine_m(-122.10, 37.30, -122.08, 37.32), rel=1e-3)


def test_a_map_has_a_dot_for_each_place_and_larger_ones_for_longer_stays() -> None:
    (dots,) = travel.trip_map(SECTIONS, PLACES).axes[0].collections
    assert isinstance(dots, PathCollection)
    shown = dots.get_sizes()
    assert len(np.asarray(dots.get_offsets())) == 3
    assert shown[1] > shown[0] == shown[2] > 0


def test_days_are_cut_at_local_midnight_and_nothing_is_lost() -> None:
    assert bars(travel.days(SECTIONS, PLACES)) == [
        ("Thu 2015-08-27", 23.0, 1.0, "BICYCLING"),
        ("Fri 2015-08-28", 0.0, 1.0, "BICYCLING"),
        ("Sat 2015-08-29", 8.0, 0.5, "ZEPPELIN"),
        ("Fri 2015-08-28", 1.0, 1.0, "stay"),
    ]


@pytest.mark.parametrize("draw", [travel.trip_map, travel.days])
def test_somebody_who_went_nowhere_has_a_figure(draw: object) -> None:
    assert callable(draw)
    figure = draw(SECTIONS.iloc[:0], PLACES.iloc[:0])
    assert "0 sections" in "".join(text.get_text() for text in figure.axes[0].texts)
