"""Simulated people with a cloud each, whom a provider asks, and what the exact answers are.

A budget ends, and an experiment asks often: then a fresh lab with the same people takes the old one's place. Exact
answers come from what the simulated phones wrote, and never from a cloud, a lab or an aggregator. Imports all of emlab
but the concrete engines.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, cast

from emlab.aggregator import Aggregator
from emlab.errors import ConfigError
from emlab.fanout import fan_out
from emlab.lab import Lab
from emlab.policy import Policy
from emlab.privacy import EPSILON_MICRO_MAX
from emlab.provider import Provider
from emlab.query import LOCATION, Region
from emlab.simulate import Person, Simulator

PROVIDER = "researcher"
EVER = (0.0, 2e9)
Box = tuple[float, float, float, float]  # west, south, east, north in degrees
Permits = Callable[[int, Provider, Aggregator], Policy]


def everybody(index: int, provider: Provider, aggregator: Aggregator) -> Policy:
    """Anyone may ask, for the largest budget that there is: nobody here is real."""
    return Policy.open(total_epsilon=100.0)


class Crowd:
    """People with a cloud each, open while the `with` block runs. One thread.

    Args:
        engine: "docker", "process" or "memory". people: simulated.
        permits: the policy of the person with that index, towards this provider and aggregator.
        budget_micro: a fresh lab takes over before more than that was asked of anybody; None: never.
        home: where the labs live meanwhile, instead of $EMLAB_HOME.
    """

    def __init__(
        self,
        engine: str,
        people: Sequence[Person],
        *,
        permits: Permits = everybody,
        budget_micro: int | None = EPSILON_MICRO_MAX,
        home: Path | str | None = None,
    ) -> None:
        self.people = people
        self.labs = 0  # how many there were, the open one included
        self._engine = engine
        self._permits = permits
        self._budget_micro = budget_micro
        self._home = home
        self._asked_micro = 0
        self._lab: Lab | None = None
        self._provider: Provider | None = None

    @property
    def lab(self) -> Lab:
        """The open lab. Raises ConfigError outside of the `with` block."""
        if self._lab is None:
            raise ConfigError("this crowd has no open lab: use `with Crowd(...) as crowd`")
        return self._lab

    @property
    def provider(self) -> Provider:
        """Who asks in the open lab. Raises ConfigError outside of the `with` block."""
        if self._provider is None:
            raise ConfigError("nobody asks yet: use `with Crowd(...) as crowd`")
        return self._provider

    def cover(self, cost_micro: int) -> None:
        """An ask that costs each person so much fits in all budgets, if need be in those of a fresh lab."""
        if self._budget_micro is not None and self._asked_micro + cost_micro > self._budget_micro:
            self._close()
            self._open()
        self._asked_micro += cost_micro

    def _open(self) -> None:
        lab = Lab(self._engine, idle=None, default_policy=Policy.open(), home=self._home).start()
        self._lab, self._provider, self._asked_micro = lab, lab.controller.register_provider(PROVIDER), 0
        self.labs += 1
        fan_out(range(len(self.people)), self._settle, description="people sign up and store")

    def _settle(self, index: int) -> None:
        person = self.people[index]
        policy = self._permits(index, self.provider, self.lab.aggregator)
        self.lab.controller.signup(person.name, key=person.key, policy=policy).store(person.entries())

    def _close(self) -> None:
        lab, self._lab, self._provider = self._lab, None, None
        if lab is not None:
            lab.close()

    def __enter__(self) -> Crowd:
        try:
            self._open()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._close()


# -- what is exact -----------------------------------------------------------------------------------------------------


def positions(person: Person) -> list[tuple[float, float, float]]:
    """(ts, longitude, latitude) of each position that a cloud of this person counts."""
    return [
        (data["ts"], data["longitude"], data["latitude"])
        for entry in person.entries()
        if cast("dict[str, Any]", entry["metadata"])["key"] == LOCATION
        for data in [cast("dict[str, Any]", entry["data"])]
    ]


def was_there(person: Person, box: Box | None, start_ts: float = EVER[0], end_ts: float = EVER[1]) -> bool:
    """Whether the phone wrote a position in the box (None: anywhere) in that time (UTC seconds, both included)."""
    return any(
        start_ts <= ts <= end_ts and (box is None or (box[0] <= lon <= box[2] and box[1] <= lat <= box[3]))
        for ts, lon, lat in positions(person)
    )


def town(people: Simulator, share: float) -> Box:
    """The smallest square of degrees around the city's centre in which so many of the people were at some time.

    Its edge lies halfway between the last one who was there and the first one who was not, so that nobody was on it.

    Args:
        share: of the people, above 0; from 1 on, all of them.
    """
    centre = people.setting.center
    nearest = sorted(
        min(
            (max(abs(lon - centre[0]), abs(lat - centre[1])) for _, lon, lat in positions(person)), default=float("inf")
        )
        for person in people
    )
    nearest = [one for one in nearest if one < float("inf")]
    if not nearest or not share > 0:
        raise ConfigError(f"a town for a share of {share!r} of {len(nearest)} people who went out cannot be found")
    inside = min(len(nearest), max(1, round(share * len(people))))
    beyond = nearest[inside] if inside < len(nearest) else nearest[inside - 1] + 0.02
    half = (nearest[inside - 1] + beyond) / 2
    return (centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half)


def region(box: Box | None) -> Region | None:
    """The same for a query."""
    return None if box is None else Region.box(*box)
