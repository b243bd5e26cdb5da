"""How well and how fast intake finds trips: real days against e-mission's pipeline, made-up ones against the truth.

    scores = [*intake.score_days(phone_days), *intake.score_people(Simulator(n_users=20, days=7, seed=1))]
    intake.table(scores)

Imports of emlab intake, the simulator, the pipeline with a mongod of its own; pandas when there is something to read.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from emlab import intake
from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.demo import read_day
from emlab.entries import JsonObject
from emlab.entries.codes import Mode
from emlab.errors import BadEntry, ConfigError
from emlab.intake.formatting import format_entry
from emlab.measure.intake_report import figure, write_report
from emlab.measure.intake_scores import Score, Section, Trip, score, table
from emlab.measure.samples import Samples

if TYPE_CHECKING:
    import pandas as pd
    from pymongo import MongoClient

    from emlab.simulate import Simulator, TrueTrip
    from emlab.store import Store

__all__ = [
    "Score",
    "figure",
    "found",
    "observe",
    "score_days",
    "score_people",
    "some_days",
    "speed",
    "table",
    "write_report",
]

PIPELINE, TRUTH = "e-mission's pipeline", "the truth"
_NUMBERS = {
    "background/filtered_location": ("latitude", "longitude", "altitude", "accuracy", "sensed_speed", "heading"),
    "background/motion_activity": ("type", "confidence"),
    "statemachine/transition": ("curr_state", "transition"),
}


def observe(entries: Iterable[JsonObject]) -> intake.Observed:
    """Entries of one person, raw or formatted, as intake takes them; others than it reads are left out.

    An entry that cannot be formatted is left out too, as the pipeline would leave it out.
    """
    kept: dict[str, list[JsonObject]] = {key: [] for key in _NUMBERS}
    inputs: list[JsonObject] = []
    for number, entry in enumerate(entries):
        key = str(cast(JsonObject, entry["metadata"]).get("key"))
        if key in kept or key in intake.INPUT_KEYS:
            try:
                formatted = {"_id": {"$oid": f"{number:024x}"}, **format_entry(entry)}
            except BadEntry:
                continue
            kept.get(key, inputs).append(formatted)
    frames = [_frame(kept[key], numbers) for key, numbers in _NUMBERS.items()]
    return intake.Observed(frames[0], frames[1], frames[2], inputs)


def _frame(entries: Sequence[JsonObject], numbers: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    rows = [_row(entry, numbers) for entry in entries]
    columns = ["_id", "ts", "write_ts", *numbers, "filter", "platform", "time_zone"]
    frame = pd.DataFrame(rows, columns=columns).astype(dict.fromkeys(["ts", "write_ts", *numbers], "float64"))
    return frame.sort_values("ts", kind="stable", ignore_index=True)


def _row(entry: JsonObject, numbers: Sequence[str]) -> list[object]:
    data, metadata = cast("dict[str, Any]", entry["data"]), cast("dict[str, Any]", entry["metadata"])
    oid = cast("dict[str, str]", entry["_id"])["$oid"]
    values = [data.get(name) for name in numbers]
    texts = [data.get("filter"), metadata.get("platform"), metadata.get("time_zone")]
    return [oid, data.get("ts"), metadata.get("write_ts"), *values, *texts]


def found(entries: Iterable[JsonObject], *, lines: Mapping[str, object] | None = None) -> list[Trip]:
    """The trips that intake finds in a person's entries, with the lines that it is told of; see `intake.run`."""
    outcome = intake.run(observe(entries), checkpoint=None, now=SYSTEM_CLOCK.now(), lines=lines)
    by_key: dict[str, list[dict[str, Any]]] = {}
    for entry in outcome.documents:
        by_key.setdefault(str(cast(JsonObject, entry["metadata"])["key"]), []).append(cast("dict[str, Any]", entry))
    sections: dict[str, list[Section]] = {}
    for each in by_key.get("analysis/inferred_section", []):
        data = each["data"]
        section = Section(data["start_ts"], data["end_ts"], Mode(data["sensed_mode"]))
        sections.setdefault(data["trip_id"]["$oid"], []).append(section)
    return [
        Trip(
            trip["data"]["start_ts"],
            trip["data"]["end_ts"],
            trip["data"]["distance"],
            tuple(sections.get(trip["_id"]["$oid"], ())),
        )
        for trip in by_key.get("analysis/cleaned_trip", [])
    ]


def days_of(folder: str) -> Iterator[tuple[str, list[JsonObject], Path]]:
    """Each real day of a folder: its name, its entries, and the file of what e-mission's pipeline made of it.

    Args:
        folder: of NAME.json.gz; beside it, in `pipeline`, NAME.json with trips and sections. Days without are left out.
    """
    days = Path(folder)
    for file in sorted(days.glob("*.json.gz")):
        name = file.name.removesuffix(".json.gz")
        result = days.parent / "pipeline" / f"{name}.json"
        if result.is_file():
            yield name, cast("list[JsonObject]", read_day(file)), result


def score_days(folder: str) -> list[Score]:
    """Real days against what e-mission's pipeline made of them; see `days_of`. "" gives none.

    Raises:
        ConfigError: the folder has no such day, or a result is none.
    """
    if not folder:
        return []
    scores = [score(name, PIPELINE, _expected(result), found(day)) for name, day, result in days_of(folder)]
    if not scores:
        raise ConfigError(f"{folder} has no NAME.json.gz with a pipeline/NAME.json beside the folder")
    return scores


def _expected(file: Path) -> list[Trip]:
    try:
        result = json.loads(file.read_text(encoding="utf-8"))
        sections: dict[int, list[Section]] = {}
        for each in result["sections"]:
            section = Section(each["start_ts"], each["end_ts"], Mode[each["inferred_mode"]])
            sections.setdefault(each["trip"], []).append(section)
        trips: list[Mapping[str, float]] = result["trips"]
        return [
            Trip(trip["start_ts"], trip["end_ts"], trip["distance"], tuple(sections.get(number, ())))
            for number, trip in enumerate(trips)
        ]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise ConfigError(f"{file.name} is no result of a pipeline: {exc}") from exc


def score_people(people: Simulator, *, lines: Mapping[str, object] | None = None) -> list[Score]:
    """Simulated people against their true trips.

    Args:
        lines: public transport that intake is told of, a GeoJSON FeatureCollection; then it has to tell buses and
            trains from cars.
    """
    against = TRUTH if lines is None else f"{TRUTH}, lines known"
    return [
        score(
            person.name,
            against,
            [_true(trip) for trip in person.trips],
            found(person.entries(), lines=lines),
            lines_known=lines is not None,
        )
        for person in people
    ]


def _true(trip: TrueTrip) -> Trip:
    sections = (Section(section.start_ts, section.end_ts, section.mode) for section in trip.sections)
    return Trip(trip.start_ts, trip.end_ts, trip.distance_m, tuple(sections))


def some_days(folder: str, people: Simulator) -> dict[str, list[JsonObject]]:
    """Entries to take the time of, by name: the real days of a folder, or else those of the first simulated person.

    Raw ones, so that formatting is timed too; for real days where `rest/NAME.phone_to_server.json.gz` is beside the
    folder.
    """
    if folder:
        return {name: _raw_day(Path(folder), name) or day for name, day, _ in days_of(folder)}
    person = people.person(0)
    return {person.name: list(person.raw_entries())}


def _raw_day(folder: Path, name: str) -> list[JsonObject]:
    file = folder.parent / "rest" / f"{name}.phone_to_server.json.gz"
    return cast("list[JsonObject]", read_day(file)) if file.is_file() else []


def speed(days: Mapping[str, Sequence[JsonObject]], *, n: int, clock: Clock = SYSTEM_CLOCK) -> pd.DataFrame:
    """How long the whole pipeline takes on each day: formatting, intake, and everything that a mongod reads and writes.

    Args:
        days: entries by name. n: times that each day is digested, by somebody of whom nothing is known yet; 0: none.
    Returns:
        samples, as the other measurements return them; the measure is the name. Starting the mongod, loading libraries
        and making collections with their indexes are not in it. A time that failed is a sample too.
    """
    from emlab.mongod import Mongod
    from emlab.store import MongoStore

    samples = Samples("", clock=clock)
    if not n:
        return samples.frame()
    run_dir = Path(tempfile.mkdtemp(prefix="em-"))
    try:
        data_dir = run_dir / "data"
        data_dir.mkdir()
        with Mongod(data_dir, run_dir) as mongod, mongod.client() as client:
            store = MongoStore(client, uuid.uuid4(), data_dir=data_dir)
            for name, entries in days.items():
                _time(samples, name, n, store, lambda entries=entries: _fill(client, store, entries))  # type: ignore[misc]
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)
    return samples.frame()


def _time(samples: Samples, name: str, n: int, store: Store, fill: Callable[[], object]) -> None:
    from emlab import pipeline

    fill()
    pipeline.digest(store)  # makes what all later times find made
    for number in range(n):
        samples.time(name, "emlab", number, lambda: pipeline.digest(store), before=fill)


def _fill(client: MongoClient[dict[str, object]], store: Store, entries: Sequence[JsonObject]) -> None:
    _empty(client)
    store.put(entries, partial=True)  # real phones write entries that no server keeps


def _empty(client: MongoClient[dict[str, object]]) -> None:
    """All collections stand there without a document."""
    database = client["Stage_database"]
    for name in database.list_collection_names():
        database[name].delete_many({})
