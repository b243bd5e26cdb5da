"""One simulated person: a name, a key, true trips, and the entries that the phone wrote. Reads life and phone."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property
from zoneinfo import ZoneInfo

from emlab.key import Key
from emlab.simulate.entry_form import Entry, to_entries
from emlab.simulate.life import Setting, journeys, settle
from emlab.simulate.phone import charge, track
from emlab.simulate.routes import Journey
from emlab.simulate.seeds import digest
from emlab.simulate.truth import Place, TrueTrip


@dataclass(frozen=True)
class Person:
    """A simulated person; `index` counts from 0 and, with the setting, decides everything.

    Nothing is computed before it is asked for; trips are kept, entries are made anew at each call.
    """

    index: int
    setting: Setting

    @property
    def name(self) -> str:
        """`user-001` for index 0."""
        return f"user-{self.index + 1:03d}"

    @property
    def key(self) -> Key:
        """The key of this person's vault, computed from seed and index: for simulations ONLY.

        Whoever knows the seed has the keys of everybody. A real person's key is `Key.random()`.
        """
        return Key(digest(self.setting.seed, self.index, "key"))

    @property
    def user_id(self) -> str:
        """The e-mission id of this person's entries, 32 hex digits in the form of a random UUID."""
        return uuid.UUID(bytes=digest(self.setting.seed, self.index, "user_id")[:16], version=4).hex

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Home, work and the third place (a café, a gym, a market: somewhere to walk to from work)."""
        return tuple(settle(self.setting, self.index).values())

    @property
    def trips(self) -> tuple[TrueTrip, ...]:
        """Every trip as it truly was, in order of time; this is not what the phone knows."""
        return tuple(made.trip for made in self._journeys)

    def entries(self) -> list[Entry]:
        """What the phone wrote, in order of writing: e-mission entries in the form that its server keeps.

        Keys: background/location, background/filtered_location, background/motion_activity, background/battery,
        statemachine/transition. Between one trip's last still points and the next trip's first, there are no points.
        """
        seen = [*track(self.setting, self.index, self._journeys), *charge(self.setting, self.index)]
        seen.sort(key=lambda observation: (observation.write_ts, observation.key))
        return to_entries(seen, self.user_id, ZoneInfo(self.setting.timezone))

    @cached_property
    def _journeys(self) -> tuple[Journey, ...]:
        places = {place.name: place for place in self.places}
        return tuple(journeys(self.setting, self.index, places))
