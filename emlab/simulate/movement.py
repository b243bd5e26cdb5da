"""Movement in time: many trips at once, as segments with acceleration, cruising, braking and waiting.

Only + - * / and the square root are used (see `arithmetic`). Imports numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from emlab.entries.codes import Mode
from emlab.simulate.routes import COLUMNS, Route

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Movement:
    """Where the travellers of some trips are at each time.

    Attributes, one number for each segment of all trips, in order of time:
        fixed: columns of the routes' segments, by name.
        length_m: its length.
        in_mps, top_mps, out_mps: speeds at its start, while cruising, at its end.
        up_mps2, down_mps2: how it gains and loses speed.
        lasts_s: from its start to the next one's, the wait at its end included.
        trip: the number of its trip among these. first: of each trip its first segment; one more at the end.
    """

    fixed: dict[str, Floats]
    length_m: Floats
    in_mps: Floats
    top_mps: Floats
    out_mps: Floats
    up_mps2: Floats
    down_mps2: Floats
    wait_s: Floats
    trip: Ints
    first: Ints

    @cached_property
    def phases_s(self) -> tuple[Floats, Floats, Floats]:
        """Seconds of gaining speed, of cruising, of losing speed."""
        up_s = (self.top_mps - self.in_mps) / self.up_mps2
        down_s = (self.top_mps - self.out_mps) / self.down_mps2
        return up_s, (self.length_m - self.up_m - self.down_m) / self.top_mps, down_s

    @cached_property
    def up_m(self) -> Floats:
        """Metres within which the speed grows."""
        return (self.top_mps * self.top_mps - self.in_mps * self.in_mps) / (2 * self.up_mps2)

    @cached_property
    def down_m(self) -> Floats:
        """Metres within which the speed falls."""
        return (self.top_mps * self.top_mps - self.out_mps * self.out_mps) / (2 * self.down_mps2)

    @cached_property
    def moves_s(self) -> Floats:
        """Seconds of movement on each segment."""
        up_s, cruise_s, down_s = self.phases_s
        return up_s + cruise_s + down_s

    @cached_property
    def since_start_s(self) -> Floats:
        """Seconds from the start of its trip to the start of each segment."""
        import numpy as np

        ends = np.cumsum(self.moves_s + self.wait_s)
        starts = np.concatenate([[0.0], ends[:-1]])
        return np.asarray(starts - starts[self.first[:-1]][self.trip])

    @cached_property
    def durations_s(self) -> Floats:
        """Seconds from the first to the last movement of each trip."""
        last = self.first[1:] - 1
        return self.since_start_s[last] + self.moves_s[last]

    def gone_m(self, segment: Ints, after_s: Floats) -> Floats:
        """Metres gone on a segment so many seconds after its start."""
        import numpy as np

        up_s, cruise_s, down_s = (phase[segment] for phase in self.phases_s)
        t = np.minimum(np.maximum(after_s, 0.0), up_s + cruise_s + down_s)
        left_s = up_s + cruise_s + down_s - t
        up = self.in_mps[segment] * t + self.up_mps2[segment] / 2 * (t * t)
        cruise = self.up_m[segment] + self.top_mps[segment] * (t - up_s)
        down = self.out_mps[segment] * left_s + self.down_mps2[segment] / 2 * (left_s * left_s)
        length_m = self.length_m[segment]
        gone = np.where(t < up_s, up, np.where(left_s > down_s, cruise, length_m - down))
        return np.asarray(np.minimum(np.maximum(gone, 0.0), length_m))

    def speed_mps(self, segment: Ints, after_s: Floats) -> Floats:
        """The speed so many seconds after the start of a segment; 0 while waiting, before and after the trip."""
        import numpy as np

        up_s, cruise_s, down_s = (phase[segment] for phase in self.phases_s)
        left_s = up_s + cruise_s + down_s - after_s
        up = self.in_mps[segment] + self.up_mps2[segment] * after_s
        down = self.out_mps[segment] + self.down_mps2[segment] * left_s
        speed = np.where(after_s < up_s, up, np.where(left_s > down_s, self.top_mps[segment], down))
        return np.where((after_s < 0) | (left_s < 0), 0.0, speed)

    def reached_s(self, segment: Ints, gone_m: Floats) -> Floats:
        """Seconds after the start of a segment at which so many metres of it are gone."""
        import numpy as np

        up_s, cruise_s, down_s = (phase[segment] for phase in self.phases_s)
        start, end = self.in_mps[segment], self.out_mps[segment]
        up_a, down_a = self.up_mps2[segment], self.down_mps2[segment]
        left_m = self.length_m[segment] - gone_m
        up = (np.sqrt(start * start + 2 * up_a * gone_m) - start) / up_a
        cruise = up_s + (gone_m - self.up_m[segment]) / self.top_mps[segment]
        down = up_s + cruise_s + down_s - (np.sqrt(end * end + 2 * down_a * np.maximum(left_m, 0.0)) - end) / down_a
        reached = np.where(gone_m < self.up_m[segment], up, np.where(left_m > self.down_m[segment], cruise, down))
        return np.asarray(reached)


def move(routes: Sequence[Route], pace: Sequence[float], haste: Sequence[float], uniform: Floats) -> Movement:
    """The movement along these routes, one after the other.

    Args:
        pace, haste: for each route, factors of the speed of people (on foot, by bicycle) and of vehicles.
        uniform: three numbers in [0, 1) for each segment.
    """
    import numpy as np

    columns = np.concatenate([route.segments for route in routes]).T
    fixed = dict(zip(COLUMNS, columns, strict=True))
    counts = np.array([len(route.segments) for route in routes])
    trip = np.repeat(np.arange(len(routes)), counts)
    first = np.concatenate([[0], np.cumsum(counts)])
    own = fixed["mode"] <= Mode.BICYCLING
    factor = np.where(own, np.array(pace)[trip], np.array(haste)[trip]) * (0.96 + 0.08 * uniform[:, 2])
    cruise, accel = fixed["cruise_mps"] * factor, fixed["accel_mps2"]
    length_m = np.abs(fixed["x1"] - fixed["x0"]) + np.abs(fixed["y1"] - fixed["y0"])
    stops = uniform[:, 0] < fixed["stop_share"]
    wait_s = fixed["least_wait_s"] + (fixed["most_wait_s"] - fixed["least_wait_s"]) * uniform[:, 1]
    passing = np.minimum(np.minimum(cruise, np.append(cruise[1:], 0.0)), fixed["pass_mps"])
    out_mps = np.where(stops, 0.0, passing)
    in_mps = np.append(0.0, out_mps[:-1])  # a trip's last segment always ends in a stop
    reachable = np.sqrt(accel * length_m + (in_mps * in_mps + out_mps * out_mps) / 2)
    slowest = np.maximum(in_mps, out_mps)
    top_mps = np.maximum(np.minimum(cruise, reachable), slowest)
    # On a segment too short for its change of speed, the change takes all of it.
    needed = np.abs(in_mps * in_mps - out_mps * out_mps) / (2 * length_m)
    rate = np.where(reachable < slowest, needed, accel)
    waits = np.where(stops, wait_s, 0.0)
    return Movement(fixed, length_m, in_mps, top_mps, out_mps, rate, rate, waits, trip, first)
