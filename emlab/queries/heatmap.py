"""How many people were in each cell of a grid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import ClassVar, TypeVar

from emlab.errors import BadQuery
from emlab.query import LOCATION, MAX_CELLS, Part, Query, Reading, Region, check_number, check_times, check_whole

MIN_SIDE_DEG = 1e-4  # of a cell, about 11 m
N = TypeVar("N", int, float)


class Heatmap(Query, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="heatmap"):
    """How many people were in each cell of a grid at any time of an interval.

    Each cloud adds 1 to each cell that it holds a `background/filtered_location` of, in at most `per_person` cells:
    those with most of its fixes. Unit: users. Sensitivity: 2 * per_person, as somebody else is in other cells.

    Args:
        west, south, east, north: degrees. The grid's west and south edges belong to it, the others do not.
        rows, columns: equal steps of latitude from the south, and of longitude from the west; together 1..4096 cells of
            at least 0.0001 degrees.
        start_ts, end_ts: UTC seconds, both included.
        per_person: in so many cells a person counts; 1..4096.
    Raises: BadQuery.
    """

    west: float
    south: float
    east: float
    north: float
    rows: int
    columns: int
    start_ts: float
    end_ts: float
    per_person: int

    unit: ClassVar[str] = "users"
    slot_s: ClassVar[float] = 3.0  # a year of fixes takes 0.8 s, more where many clouds work

    def __post_init__(self) -> None:
        check_times(self)
        for name in ("rows", "columns", "per_person"):
            check_whole(self, name, 1, MAX_CELLS, "a whole number")
        if self.rows * self.columns > MAX_CELLS:
            raise BadQuery(f"a grid has at most {MAX_CELLS} cells, not {self.rows} * {self.columns}")
        for name in ("west", "south", "east", "north"):
            check_number(self, name, -180, 180, "degrees")
        Region.box(self.west, self.south, self.east, self.north)
        height, width = self._steps()
        if min(height, width) < MIN_SIDE_DEG:
            raise BadQuery(f"a cell has sides of at least {MIN_SIDE_DEG} degrees, not {width:g} * {height:g}")

    @property
    def parts(self) -> tuple[Part, ...]:
        """Users in each cell, row after row from the south, each from the west. A label is the cell's middle."""
        return (
            Part(name="users", unit=self.unit, cap=1, total=min(self.per_person, self._size), labels=self._labels()),
        )

    @property
    def _size(self) -> int:
        return self.rows * self.columns

    def _steps(self) -> tuple[float, float]:
        return (self.north - self.south) / self.rows, (self.east - self.west) / self.columns

    def _labels(self) -> tuple[str, ...]:
        height, width = self._steps()
        lats = [f"{self.south + (row + 0.5) * height:.5f}" for row in range(self.rows)]
        lons = [f"{self.west + (column + 0.5) * width:.5f}" for column in range(self.columns)]
        return tuple(f"{lat}, {lon}" for lat in lats for lon in lons)

    @property
    def regions(self) -> tuple[Region, ...]:
        """The smallest cell, the one in the west that is nearest to a pole; the others have the same height."""
        height, width = self._steps()
        east = min(self.west + width, self.east)
        if abs(self.north) >= abs(self.south):
            return (Region.box(self.west, max(self.north - height, self.south), east, self.north),)
        return (Region.box(self.west, self.south, east, min(self.south + height, self.north)),)

    def contribution(self, data: Reading) -> list[int]:
        """0 or 1 for each cell."""
        fixes = Counter(self._cells(data))
        visited = sorted(fixes, key=lambda cell: (-fixes[cell], cell))[: self.per_person]
        counts = [0] * self._size
        for cell in visited:
            counts[cell] = 1
        return counts

    def _cells(self, data: Reading) -> list[int]:
        height, width = self._steps()
        west, south, east, north, rows, columns = (
            *(self.west, self.south, self.east, self.north),
            *(self.rows, self.columns),
        )
        return [
            min(int((lat - south) / height), rows - 1) * columns + min(int((lon - west) / width), columns - 1)
            for _, lon, lat in data.track(LOCATION, start_ts=self.start_ts, end_ts=self.end_ts)
            if west <= lon < east and south <= lat < north
        ]

    def matrix(self, values: Sequence[N]) -> list[list[N]]:
        """The values of a release as a list for each row of cells, from the south."""
        return [list(values[row * self.columns : (row + 1) * self.columns]) for row in range(self.rows)]
