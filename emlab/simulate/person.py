"""One simulated person: a name, a key, true trips, and what the phone wrote. Reads diary, phone, sensing, uploads."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import TYPE_CHECKING

from emlab.key import Key
from emlab.simulate.choices import Choices
from emlab.simulate.diary import Week, places_of, weeks
from emlab.simulate.entry_form import (
    FILTERED_LOCATION,
    LOCATION,
    Entry,
    Fix,
    Observation,
    formatted,
    location,
    to_raw,
)
from emlab.simulate.households import Kind, household_of
from emlab.simulate.phone import Phone, Track, measure, phone_of
from emlab.simulate.seeds import digest
from emlab.simulate.sensing import boots, charge, motions, starts, transitions
from emlab.simulate.setting import Setting
from emlab.simulate.truth import Place, TrueTrip
from emlab.simulate.uploads import Upload, batches

if TYPE_CHECKING:
    import pandas as pd

WRITTEN = attrgetter("write_ts", "key")


@dataclass(frozen=True)
class Person:
    """A simulated person; `index` counts from 0 and, with the setting, decides everything.

    Nothing is computed before it is asked for; trips are kept, all else is made anew at each call, week by week.
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

    @property
    def kind(self) -> Kind:
        """Worker, student or other: what the weekdays turn around."""
        return self._choices.kind

    @property
    def household(self) -> tuple[int, ...]:
        """The indices of all who share this person's home, this one among them."""
        return household_of(self.setting, self.index).members

    @property
    def platform(self) -> str:
        """Of the phone: "android" or "ios"."""
        return self._phone.platform

    @cached_property
    def places(self) -> tuple[Place, ...]:
        """Home and all other places that this person goes to, by kind: shop, market, leisure, friend, work, ..."""
        return places_of(self._choices)

    @cached_property
    def trips(self) -> tuple[TrueTrip, ...]:
        """Every trip as it truly was, in order of time; this is not what the phone knows."""
        return tuple(trip for week in self._weeks() for trip in week.trips)

    def entries(self) -> list[Entry]:
        """What the phone wrote, in order of writing: e-mission entries in the form that its server keeps.

        Keys: background/location, background/filtered_location, background/motion_activity, background/battery,
        statemachine/transition. Between one trip's last still points and the next trip's first, there are no points.
        """
        return list(formatted(self.raw_entries(), self.user_id))

    def raw_entries(self) -> Iterator[Entry]:
        """The same in the raw form in which a phone posts it to /usercache/put: no ids, times as seconds alone."""
        for seen in self._observations():
            yield to_raw(seen, self.platform, self.setting.timezone)

    def uploads(self) -> Iterator[Upload]:
        """The raw entries in the batches in which the phone sends them, by the setting's schedule; see `Simulator`."""
        for upload_ts, seen in batches(self._choices, self._observations()):
            raw = (to_raw(each, self.platform, self.setting.timezone) for each in seen)
            yield Upload(upload_ts, tuple(raw))

    def tracks(self) -> Iterator[Track]:
        """All positions as arrays, week by week."""
        return (measure(self._choices, self._phone, week) for week in self._weeks())

    def track(self) -> pd.DataFrame:
        """All positions, one row each, in order of time.

        Columns: ts and write_ts (UTC seconds), trip (from 0, as in `trips`), longitude, latitude (degrees),
        true_longitude, true_latitude (where the phone was), accuracy (m, 68 % radius), altitude (m), sensed_speed
        (m/s), heading (degrees), filtered (whether it also stands under background/filtered_location).
        """
        import pandas as pd

        frames, before = [], 0
        for week in self._weeks():
            track = measure(self._choices, self._phone, week)
            frames.append(pd.DataFrame({name: getattr(track, field) for name, field in COLUMNS.items()}))
            frames[-1]["trip"] += before
            before += len(week.trips)
        return pd.concat(frames, ignore_index=True)

    @cached_property
    def _choices(self) -> Choices:
        return Choices(self.setting, self.index)

    @cached_property
    def _phone(self) -> Phone:
        return phone_of(self._choices)

    def _weeks(self) -> Iterator[Week]:
        """Week after week, those at home left out."""
        return (week for _, week in weeks(self._choices) if week)

    def _observations(self) -> Iterator[Observation]:
        """All that the phone noted, in order of writing."""
        boot_ts = self.setting.local_ts(-1, 5.0)
        for number, week in weeks(self._choices):
            booted = boots(self._choices, number)
            seen = [*starts(booted, self.platform), *charge(self._choices, number, week, self.platform)]
            if week:
                track = measure(self._choices, self._phone, week)
                seen += _locations(track, [boot_ts, *booted.values()], self.platform)
                seen += motions(self._choices, week, self.platform)
                seen += transitions(self._choices, week, track, self.platform)
            boot_ts = max([boot_ts, *booted.values()])
            seen.sort(key=WRITTEN)
            yield from seen


COLUMNS = {
    "ts": "ts",
    "write_ts": "write_ts",
    "trip": "trip",
    "longitude": "lon",
    "latitude": "lat",
    "true_longitude": "true_lon",
    "true_latitude": "true_lat",
    "accuracy": "accuracy_m",
    "altitude": "altitude_m",
    "sensed_speed": "speed_mps",
    "heading": "heading_deg",
    "filtered": "good",
}


def _locations(track: Track, boot_ts: list[float], platform: str) -> Iterator[Observation]:
    """Every position under `background/location`, the good ones a little later under `filtered_location` too."""
    import numpy as np

    booted = np.array(boot_ts)[np.searchsorted(boot_ts, track.ts) - 1]
    uptime_ns = np.round((track.ts - booted) * 1e3).astype("int64") * 1_000_000
    values = (track.lon, track.lat, track.accuracy_m, track.altitude_m, track.speed_mps, track.heading_deg, uptime_ns)
    columns = [column.tolist() for column in values]
    later_s = 0.6 if platform == "android" else 0.04
    rows = zip(track.ts.tolist(), track.write_ts.tolist(), track.good.tolist(), *columns, strict=True)
    for ts, write_ts, is_good, *row in rows:
        fix = Fix(*row)
        yield location(fix, ts, write_ts, key=LOCATION, platform=platform)
        if is_good:
            yield location(fix, ts, round(write_ts + later_s, 3), key=FILTERED_LOCATION, platform=platform)
