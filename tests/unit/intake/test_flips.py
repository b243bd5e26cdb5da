"""Which motions of a trip are flips: cases that a person can check, and the whole rule once more, told slowly."""

from __future__ import annotations

import random
import statistics
from dataclasses import dataclass
from itertools import groupby, pairwise

import pytest

from emlab.entries.codes import Mode, Motion, Transition
from emlab.intake import flipflop, sections
from tests.unit.intake.test_method import arrays, ios
from tests.unit.intake.walks import START, Row, data, fix, observed, run, sensed, way

VEHICLE, BICYCLE, FOOT, WALK = 0, 1, 2, 7
FASTEST = {BICYCLE: 8.5, FOOT: 1.7, WALK: 1.7}
SHORTEST = {VEHICLE: 300, BICYCLE: 60}
Point = tuple[float, float]
Sample = tuple[float, int]


@dataclass(eq=False)
class Bit:
    """A time in one motion: the numbers of its first and last sample."""

    first: int
    last: int
    kind: int


@dataclass(eq=False)
class Telling:
    """e-mission's rule, one sentence after the other, without arrays."""

    points: list[Point]
    samples: list[Sample]
    by_distance: bool

    def told(self) -> list[tuple[float, float, int]]:
        bits = self.cut()
        todo = [(group, self.decided(bits, group)) for group in self.streaks(bits)]
        gone: set[int] = set()
        for wanted in ("before", "after", "vehicle", "bicycle"):
            for group, what in todo:
                if what == wanted:
                    gone.update(self.done(bits, group, what))
        return self.united([bit for number, bit in enumerate(bits) if number not in gone])

    def cut(self) -> list[Bit]:
        bits = [Bit(0, 0, self.samples[0][1])]
        for number, ((_, before), (_, after)) in enumerate(pairwise(self.samples), start=1):
            if before != after:
                speeds_up = (after == VEHICLE) or (before in (FOOT, WALK) and after == BICYCLE)
                bits[-1].last = number - speeds_up
                bits.append(Bit(bits[-1].last, 0, after))
        bits[-1].last = len(self.samples) - 1
        return bits

    def streaks(self, bits: list[Bit]) -> list[list[int]]:
        flips = [self.is_flip(bit) for bit in bits]
        last = len(bits) - 1
        if not self.by_distance and last == 1 and bits[1].kind in SHORTEST and bits[1].last - bits[1].first <= 1:
            flips[1] |= not self.is_plausible(bits[1])
        groups = [[number for number, _ in group] for flip, group in groupby(enumerate(flips), lambda x: x[1]) if flip]
        if groups and groups[-1][-1] == last:
            groups[-1] = [last] if last <= 1 else groups[-1][:-1]
        return [group for group in groups if group]

    def seconds(self, bit: Bit) -> float:
        return self.samples[bit.last][0] - self.samples[bit.first][0]

    def within(self, first: Bit, last: Bit) -> list[Point]:
        return [
            point for point in self.points if self.samples[first.first][0] <= point[0] <= self.samples[last.last][0]
        ]

    def speed(self, track: list[Point]) -> float:
        steps = [abs(b[1] - a[1]) / (b[0] - a[0]) for a, b in pairwise(track)]
        return statistics.median([0.0, *steps]) if track else float("nan")

    def is_flip(self, bit: Bit) -> bool:
        if self.seconds(bit) > 0.25 * (self.samples[-1][0] - self.samples[0][0]):
            return False
        few = bit.last - bit.first <= (2 if bit.kind in SHORTEST else 1)
        return few or not self.is_plausible(bit) or not self.within(bit, bit)

    def is_plausible(self, bit: Bit) -> bool:
        too_fast = self.speed(self.within(bit, bit)) > FASTEST.get(bit.kind, float("inf"))
        return self.seconds(bit) >= SHORTEST.get(bit.kind, 0) and not too_fast

    def decided(self, bits: list[Bit], group: list[int]) -> str:
        first, last = bits[group[0]], bits[group[-1]]
        if len(group) > 4:
            return "bicycle"
        if len(group) > 2:
            return "" if all(self.is_plausible(bits[number]) for number in group) else self.towards(bits, group)
        if group[-1] + 1 < len(bits) and self.is_fast_bicycle(first, last, bits[group[-1] + 1]):
            return "vehicle"
        return self.towards(bits, group) if first.kind in SHORTEST or len(self.within(first, first)) <= 1 else ""

    def is_fast_bicycle(self, first: Bit, last: Bit, after: Bit) -> bool:
        whole_s = self.samples[last.first][0] - self.samples[first.first][0]
        return (
            (first.kind, after.kind) == (BICYCLE, VEHICLE)
            and last.first - first.first <= 1
            and after.last - after.first <= 2
            and self.samples[last.first][0] - self.samples[first.last][0] < 60
            and (last.first == first.first or whole_s / (self.seconds(after) + 1) > 0.75)
        )

    def towards(self, bits: list[Bit], group: list[int]) -> str:
        if group[0] == 0:
            return "after"
        if group[-1] + 1 == len(bits):
            return "before"
        before, after = bits[group[0] - 1], bits[group[-1] + 1]
        if before.kind == after.kind:
            return "" if before.kind == VEHICLE and bits[group[0]].kind in (FOOT, WALK) else "before"
        speed = self.speed_of(bits, group, before, after)
        if speed > 1.7 and after.kind in (FOOT, WALK):
            return "before"
        if speed > 1.7 and before.kind in (FOOT, WALK):
            return "after"
        differences = [abs(speed - self.speed(self.within(one, one))) for one in (before, after)]
        return "before" if differences[0] < differences[1] else "after"

    def speed_of(self, bits: list[Bit], group: list[int], before: Bit, after: Bit) -> float:
        own = self.within(bits[group[0]], bits[group[-1]])
        sides = self.within(before, before), self.within(after, after)
        if len(own) > 1:
            return self.speed(own)
        if not sides[0] or not sides[1]:
            return 0.0
        (ts, north), (then, there) = sides[0][-1], sides[1][0]
        return abs(there - north) / (then - ts) if then != ts else float("inf")

    def done(self, bits: list[Bit], group: list[int], what: str) -> list[int]:
        first, last = bits[group[0]], bits[group[-1]]
        if what == "before":
            bits[group[0] - 1].last = last.last
            return group
        if what == "bicycle":
            first.last, first.kind = last.last, BICYCLE
            return group[1:]
        after = bits[group[-1] + 1]
        after.first = first.first
        after.kind = first.kind if what == "vehicle" else after.kind
        return group

    def united(self, bits: list[Bit]) -> list[tuple[float, float, int]]:
        same = [list(group) for _, group in groupby(bits, lambda bit: bit.kind)]
        return [(self.samples[bits[0].first][0], self.samples[bits[-1].last][0], bits[0].kind) for bits in same]


def told_by_emlab(points: list[Point], samples: list[Sample], *, by_distance: bool) -> list[tuple[float, float, int]]:
    confidence = sections.DISTANCE_CONFIDENCE if by_distance else sections.TIME_CONFIDENCE
    fixes, motions, _ = arrays([fix(*point) for point in points], [(*sample, 90.0) for sample in samples])
    found = flipflop.merged(sections._changes(fixes, motions, confidence), fixes, by_distance=by_distance)
    return [(change.start_ts, change.end_ts, change.kind) for change in found]


def wandering(draw: random.Random) -> tuple[list[Point], list[Sample]]:
    """A trip at changing speeds, and samples of motions that hardly fit it."""
    ts, north, speed, points = START, 0.0, 4.0, []
    for _ in range(draw.randrange(8, 60)):
        points.append((ts, north))
        speed = draw.choice([0.2, 1.3, 4.0, 12.0, 25.0]) if draw.random() < 0.1 else speed
        step_s = draw.uniform(15, 45)
        ts, north = ts + step_s, north + speed * step_s * draw.uniform(0.8, 1.2)
    kind, samples, every_s = draw.choice([VEHICLE, BICYCLE, FOOT, WALK]), [], draw.choice([15, 45, 120, 300])
    now = START + 1
    while now < points[-1][0]:
        kind = draw.choice([VEHICLE, BICYCLE, FOOT, WALK]) if draw.random() < 0.3 else kind
        samples.append((now, kind))
        now += draw.expovariate(1 / every_s)
    return points, samples


@pytest.mark.parametrize("by_distance", [False, True])
def test_motions_are_merged_as_the_rule_says(by_distance: bool) -> None:
    draw, longest = random.Random(11), 0
    for _ in range(400):
        points, samples = wandering(draw)
        if len(samples) > 1:
            expected = Telling(points, samples, by_distance).told()
            assert told_by_emlab(points, samples, by_distance=by_distance) == expected
            longest = max(longest, len(expected))
    assert longest > 4


def modes(points: list[dict[str, object]], motions: list[Row]) -> list[tuple[str, int]]:
    stopped = (START + 1_300, 2, int(Transition.STOPPED_MOVING))
    found = data(run(observed(points, motions, [stopped])), "analysis/inferred_section")
    return [(Mode(section["sensed_mode"]).name, round(section["distance"])) for section in found]


def test_ios_tells_a_drive_once_and_it_is_one() -> None:
    points = [fix(START + 5 * k, 6.5 * k) for k in range(24)] + [
        fix(START + 120 + 5 * k, 156 + 60 * k) for k in range(1, 96)
    ]
    motions = [(START + 5, WALK, 100.0), (START + 70, WALK, 100.0), (START + 135, VEHICLE, 100.0)]
    assert modes(ios(points), motions) == [("WALKING", 91), ("CAR", 5_765)]


def rest_of(last: list[Row]) -> list[int]:
    """The motions of twenty minutes by bicycle and of what was sensed last."""
    fixes, known, moves = arrays(way(START, 6_000, 5.0), [*sensed(START + 40, START + 960, Motion.BICYCLING), *last])
    return [part.kind for part in sections.parts(fixes, known, moves, by_distance=False, from_place_m=9_999)]


def test_the_last_of_two_motions_is_a_flip_if_it_rests_on_one_sample() -> None:
    assert rest_of([(START + 1_000, VEHICLE, 90.0)]) == [BICYCLE]
    assert rest_of([(START + 1_000, WALK, 90.0), (START + 1_020, WALK, 90.0)]) == [BICYCLE]


def test_the_last_of_more_motions_stays_because_nothing_tells_what_it_was() -> None:
    assert flipflop._streaks([False, False, True]) == []
    assert flipflop._streaks([False, True, True]) == [(1, 1)]
    assert flipflop._streaks([False, True]) == [(1, 1)]


def test_a_motion_for_more_than_a_quarter_of_the_time_is_no_flip() -> None:
    points = way(START, 12_000, 10.0)
    fixes, _, _ = arrays(points)
    short = flipflop.Change(START + 600, START + 890, 20, 21, BICYCLE, VEHICLE)
    assert not flipflop._is_flip(short, fixes, 290 / 0.26)
    assert flipflop._is_flip(short, fixes, 290 / 0.24)


def test_nobody_takes_a_walk_between_two_vehicles() -> None:
    points = way(START, 12_000, 10.0)
    motions = [
        *sensed(START + 10, START + 460, Motion.IN_VEHICLE),
        (START + 601, WALK, 90.0),
        (START + 606, WALK, 90.0),
        *sensed(START + 610, START + 1_190, Motion.IN_VEHICLE),
    ]
    fixes, known, _ = arrays(points, motions)
    changes = sections._changes(fixes, known, 60.0)
    assert [change.kind for change in changes] == [VEHICLE, WALK, VEHICLE]
    assert [change.kind for change in flipflop.merged(changes, fixes, by_distance=False)] == [VEHICLE, WALK, VEHICLE]
