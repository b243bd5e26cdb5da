"""The simulator: many people of one setting, made one at a time. Imports pandas when the truth is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from emlab.simulate.bounds import (
    check_box,
    check_district,
    check_number,
    check_shares,
    check_timezone,
    check_whole,
    parse_start,
)
from emlab.simulate.city import City, city_named
from emlab.simulate.person import Person
from emlab.simulate.setting import District, Setting
from emlab.simulate.streets import Lattice
from emlab.simulate.transit import network
from emlab.simulate.truth import LonLat
from emlab.simulate.truth_table import section_rows, stay_rows, trip_rows

if TYPE_CHECKING:
    import pandas as pd

MAX_USERS, MAX_DAYS = 100_000, 366


@dataclass(frozen=True)
class Simulator:
    """People with days of trips and phone entries, the same ones for the same seed.

    Iterating makes one person after the other and keeps none. Person k is the same in a population of any size, and
    lives through the same first days however many follow. On the first day everybody leaves home.

    Args:
        n_users: people, 1 to 100,000.
        days: local days for each, 1 to 366.
        seed: whole number, 0 to 2**63 - 1.
        start: the first day, YYYY-MM-DD, 1971 to 2098.
        city: how streets, buses, trains and habits are: a name in `CITIES` or a `City`.
        timezone, center, box_m: instead of the city's: the IANA name of the clock that people live by, (longitude,
            latitude) in degrees of the box that holds all places, and its side in metres, 3,000 to 200,000.
        trips_per_day: of a person, on average over a week, 1 to 5.
        workers, students: shares of all people, 0 to 1 and no more than 1 together; the rest has neither job nor
            school.
        district: a part of the city with its own shares of homes and workplaces; None: there is none.
        ios_share: of phones that are ios, and note positions by distance instead of time; 0 to 1.
        period_s: seconds from one position of an android phone to the next, 5 to 60: the volume of data. An ios phone
            notes one each 50 m at 30 s, and in proportion. Above 40 s, e-mission's pipeline no longer sees trips end.
        noise: factor of all errors of positions, 0 to 5.
        upload: when phones send: "hourly", "trips" (after each one) or "nightly".
    Raises:
        ConfigError: an argument is out of these bounds; says which one.
    """

    n_users: int
    days: int
    seed: int
    _: KW_ONLY
    start: str = "2026-03-02"
    city: City | str = "bay"
    timezone: str | None = None
    center: LonLat | None = None
    box_m: float | None = None
    trips_per_day: float = 3.4
    workers: float = 0.5
    students: float = 0.22
    district: District | None = None
    ios_share: float = 0.3
    period_s: float = 30.0
    noise: float = 1.0
    upload: str = "hourly"

    def __post_init__(self) -> None:
        check_whole("n_users", self.n_users, 1, MAX_USERS)
        check_whole("days", self.days, 1, MAX_DAYS)
        check_whole("seed", self.seed, 0, 2**63 - 1)
        parse_start(self.start)
        setting = self.setting
        check_timezone(setting.timezone)
        check_box(setting.center, setting.box_m)
        check_number("trips_per_day", self.trips_per_day, 1, 5)
        check_number("ios_share", self.ios_share, 0, 1)
        check_number("period_s", self.period_s, 5, 60)
        check_number("noise", self.noise, 0, 5)
        check_shares(self.workers, self.students, self.upload)
        check_district(setting)

    def __len__(self) -> int:
        return self.n_users

    def __iter__(self) -> Iterator[Person]:
        return (self.person(index) for index in range(self.n_users))

    @property
    def setting(self) -> Setting:
        """What all of these people share, nothing left to the city's defaults; their number is not part of it."""
        city = city_named(self.city)
        return Setting(
            seed=self.seed,
            days=self.days,
            start=parse_start(self.start),
            timezone=city.timezone if self.timezone is None else self.timezone,
            city=city,
            center=city.center if self.center is None else self.center,
            box_m=city.box_m if self.box_m is None else self.box_m,
            trips_per_day=self.trips_per_day,
            workers=self.workers,
            students=self.students,
            ios_share=self.ios_share,
            district=self.district,
            period_s=self.period_s,
            noise=self.noise,
            upload=self.upload,
        )

    def person(self, index: int) -> Person:
        """The person with that index, from 0. Raises ConfigError."""
        check_whole("index", index, 0, self.n_users - 1)
        return Person(index, self.setting)

    def lines(self) -> dict[str, object]:
        """The stops of the city's buses and trains as a GeoJSON FeatureCollection, as `intake.run` takes it.

        With them, intake can tell buses and trains from cars. A feature is a network: a MultiPoint of its stops, with
        the property `route`, "bus" or "train".
        """
        setting = self.setting
        return network(Lattice(setting.city, setting.center), setting.box_m)

    def truth(self) -> pd.DataFrame:
        """Every true trip of everybody, one row each, by user and time.

        Columns: user (name), trip (from 0 for each user), start_ts and end_ts (UTC seconds), mode (what a phone senses
        on most of the way: WALKING, BICYCLING, IN_VEHICLE), distance_m (along the path, without noise), start_place and
        end_place (home, work, ...), start_lon, start_lat, end_lon, end_lat (degrees), true_mode (WALKING, BICYCLING,
        CAR, BUS, TRAIN), purpose (what one does at its end), sections (how many).
        """
        import pandas as pd

        return pd.DataFrame.from_records([row for person in self for row in trip_rows(person.name, person.trips)])

    def truth_sections(self) -> pd.DataFrame:
        """Every section of every true trip, one row each, by user and time.

        Columns: user, trip (as in `truth`), section (from 0 in its trip), start_ts, end_ts, mode, true_mode,
        distance_m, start_lon, start_lat, end_lon, end_lat.
        """
        import pandas as pd

        return pd.DataFrame.from_records([row for person in self for row in section_rows(person.name, person.trips)])

    def truth_stays(self) -> pd.DataFrame:
        """Every stay between two true trips of everybody, one row each, by user and time.

        Columns: user, place, purpose, enter_ts (NaN for the first), exit_ts (NaN for the last), lon, lat.
        """
        import pandas as pd

        return pd.DataFrame.from_records([row for person in self for row in stay_rows(person.name, person.trips)])
