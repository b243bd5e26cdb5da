"""A person's travel: a map of the trips, and the days as bars. Drawn offline; imports matplotlib when drawing."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from emlab.geo import EARTH_RADIUS_M
from emlab.plots.frame import INK, empty, title

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# From dark to light, with a line and a hatch of each one's own, for greyscale.
MODES = {
    "CAR": ("#3b1f6b", "-", ""),
    "TRAIN": ("#14506e", (0, (5, 1)), "xx"),
    "SUBWAY": ("#14506e", (0, (3, 1)), "xx"),
    "LIGHT_RAIL": ("#14506e", (0, (2, 1)), "xx"),
    "TRAM": ("#14506e", (0, (1, 1)), "xx"),
    "AIR_OR_HSR": ("#7d5a3c", "-.", "++"),
    "BUS": ("#c8442f", "--", "//"),
    "BICYCLING": ("#2a8a76", "-", "\\\\"),
    "WALKING": ("#e8a33d", "-", ""),
    "UNKNOWN": ("#8a8a8a", ":", ".."),
}
STAY, STAY_COLOUR = "stay", "#e6e6e6"
DAY_S = 86_400.0


def trip_map(sections: pd.DataFrame, places: pd.DataFrame, track: pd.DataFrame | None = None) -> Figure:
    """Where somebody went: each section in its mode's colour, each place a dot whose size is the time spent there.

    Args:
        sections, places: of `UserCloud.sections()` and `.places()`, whole or a part of the rows.
        track: of `UserCloud.entries("analysis/recreated_location")`, whose points between a section's ends are its
            line; None draws sections as straight lines.
    """
    figure = empty(width=8.0, height=7.0)
    axes = figure.add_subplot()
    plane = _Plane.around(sections, places)
    for row in sections.to_dict("records"):
        colour, line, _ = MODES.get(row["mode"], MODES["UNKNOWN"])
        east, north = plane.km(*_way(row, track))
        axes.plot(east, north, color=colour, linestyle=line, linewidth=2.0, label=row["mode"])
    stays_h = places["duration_s"].fillna(0.0) / 3600
    east, north = plane.km(places["lon"], places["lat"])
    size = 30 + 20 * stays_h.clip(upper=24)
    label = "stay (larger: longer)"
    axes.scatter(east, north, s=size, color="white", edgecolor=INK, linewidth=1.4, zorder=3, label=label)
    axes.set(xlabel="east (km)", ylabel="north (km)")
    axes.set_aspect("equal", adjustable="datalim")
    axes.grid(visible=True, color="#ececec", linewidth=0.7)
    axes.set_axisbelow(True)
    _legend(axes)
    distance_km = sections["distance_m"].sum() / 1000
    origin = f"origin: latitude {plane.lat:.4f}, longitude {plane.lon:.4f}"
    title(axes, "Trips and places", f"{len(sections)} sections, {distance_km:,.1f} km, {len(places)} stays; {origin}")
    return figure


def days(sections: pd.DataFrame, places: pd.DataFrame) -> Figure:
    """When somebody travelled and how: one row for each local day, the modes as bars, stays in grey.

    Args:
        sections, places: as for `trip_map`. Hours are those of the clock where the section or stay began.
    """
    sections_of = zip(sections["start_local"], sections["duration_s"], sections["mode"], strict=True)
    stays_of = (
        (local, duration_s, STAY) for local, duration_s in zip(places["enter_local"], places["duration_s"], strict=True)
    )
    pieces = [piece for bar in (*sections_of, *stays_of) for piece in _by_day(*bar)]
    shown = sorted({day for day, _, _, _ in pieces})
    figure = empty(width=9.0, height=1.6 + 0.34 * max(1, len(shown)))
    axes = figure.add_subplot()
    for day, hour, hours, mode in pieces:
        _bar(axes, -shown.index(day), hour, hours, mode)
    axes.set(xlim=(0, 24), xticks=range(0, 25, 3), xlabel="hour of the local day")
    axes.set_yticks([-n for n in range(len(shown))], [f"{day:%a %Y-%m-%d}" for day in shown])
    axes.tick_params(axis="y", length=0)
    _legend(axes)
    moving_h = sections["duration_s"].sum() / 3600
    title(axes, "Days of travel", f"{len(shown)} days, {len(sections)} sections, {moving_h:,.1f} h on the way")
    return figure


class _Plane(NamedTuple):
    """The map's origin; near it the earth is flat."""

    lon: float
    lat: float

    @classmethod
    def around(cls, sections: pd.DataFrame, places: pd.DataFrame) -> _Plane:
        """The middle of all that is to be drawn."""
        lons = [*sections["start_lon"], *sections["end_lon"], *places["lon"]]
        lats = [*sections["start_lat"], *sections["end_lat"], *places["lat"]]
        return cls((min(lons) + max(lons)) / 2, (min(lats) + max(lats)) / 2) if lons else cls(0.0, 0.0)

    def km(self, lons: Iterable[float], lats: Iterable[float]) -> tuple[list[float], list[float]]:
        """Kilometres east and north of the origin."""
        degree_km = math.radians(1.0) * EARTH_RADIUS_M / 1000
        east_km = degree_km * math.cos(math.radians(self.lat))
        return [(lon - self.lon) * east_km for lon in lons], [(lat - self.lat) * degree_km for lat in lats]


def _way(row: Mapping[Hashable, Any], track: pd.DataFrame | None) -> tuple[list[float], list[float]]:
    """The longitudes and latitudes of a section's way."""
    lons: list[float] = []
    lats: list[float] = []
    if track is not None and "section" in track:
        inner = track[track["section"].map(lambda link: link == {"$oid": row["section"]})]
        lons, lats = list(inner["longitude"]), list(inner["latitude"])
    return [row["start_lon"], *lons, row["end_lon"]], [row["start_lat"], *lats, row["end_lat"]]


def _by_day(local: object, duration_s: float, mode: str) -> Iterator[tuple[date, float, float, str]]:
    """(day, hour of beginning, hours, mode), cut at midnight; nothing of what lacks its beginning or end.

    Args:
        local: time with offset, as text; its clock is what is shown.
    """
    if not isinstance(local, str) or math.isnan(duration_s):
        return
    start = datetime.fromisoformat(local).replace(tzinfo=None)
    left_s = duration_s
    while left_s > 0:
        midnight = datetime.combine(start.date(), time.min)
        at_s = (start - midnight).total_seconds()
        piece_s = min(left_s, DAY_S - at_s)
        yield start.date(), at_s / 3600, piece_s / 3600, mode
        left_s -= piece_s
        start = midnight + timedelta(days=1)


def _bar(axes: Axes, y: int, hour: float, hours: float, mode: str) -> None:
    if mode == STAY:
        axes.barh([y], [hours], left=hour, height=0.5, color=STAY_COLOUR, label=STAY, zorder=1)
        return
    colour, _, hatch = MODES.get(mode, MODES["UNKNOWN"])
    bars = axes.barh([y], [hours], left=hour, height=0.72, label=mode, zorder=2, color=colour, hatch=hatch)
    for bar in bars:
        bar.set(edgecolor="white", linewidth=0.4)


def _legend(axes: Axes) -> None:
    """Each label once, beside the axes."""
    handles, labels = axes.get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    if once:
        axes.legend(
            list(once.values()), list(once), loc="upper left", bbox_to_anchor=(1.01, 1.0), frameon=False, fontsize=9
        )
