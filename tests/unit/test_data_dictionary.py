"""DATA.md against what is really written: every key and field stands there with its type, and none in vain."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import re
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from emlab import diary, files, pipeline
from emlab.clock import ManualClock
from emlab.files import gpx
from emlab.intake.formatting import format_entry
from emlab.intake.keys import KEYS
from emlab.simulate import Simulator, truth
from emlab.store import MemoryStore
from emlab.store.base import ANALYSIS, TIMESERIES

PAGE = Path(__file__).parents[2] / "DATA.md"
HEADING = re.compile(r"### `(.+)`")
ROW = re.compile(r"\| `([^`]+)` \| ([^|]+?) \| ([^|]*) \| ([^|]*) \| `(.+)` \|")
MANUAL = {"manual/purpose_confirm": "manual/mode_confirm", "manual/replaced_mode": "manual/mode_confirm"}
Entry = dict[str, Any]
Fields = dict[str, tuple[str, bool, str]]  # type, whether it may be missing, example


@functools.cache
def dictionary() -> dict[str, Fields]:
    """Of each key (and "metadata") the fields that the page has."""
    page: dict[str, Fields] = {}
    fields: Fields = {}
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = HEADING.fullmatch(line)
            fields = page.setdefault(heading[1], {}) if heading else {}
        elif (row := ROW.fullmatch(line)) is not None and row[2] != "in JSON":
            fields[row[1]] = (row[2].removesuffix("?"), row[2].endswith("?"), row[5])
    return page


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_entry(value: object) -> bool:
    return isinstance(value, dict) and value.keys() >= {"metadata", "data"}


def is_point(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"type", "coordinates"} and len(value["coordinates"]) == 2


KINDS: dict[str, Callable[[object], bool]] = {
    "time": is_number,
    "seconds": is_number,
    "number": is_number,
    "int": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "bool": lambda value: isinstance(value, bool),
    "text": lambda value: isinstance(value, str),
    "null": lambda value: value is None,
    "point": is_point,
    "id": lambda value: isinstance(value, dict) and value.keys() == {"$oid"},
    "date": lambda value: isinstance(value, dict) and value.keys() == {"$date"},
    "user": lambda value: isinstance(value, dict) and value.keys() == {"$uuid"},
    "object": lambda value: isinstance(value, dict),
    "entry": is_entry,
}


def is_of(kind: str, value: object) -> bool:
    """Whether a value has the type that the page says."""
    if " or " in kind:
        return any(is_of(one, value) for one in kind.split(" or "))
    if kind.endswith(" list"):
        return isinstance(value, list) and all(is_of(kind.removesuffix(" list"), one) for one in value)
    return KINDS[kind](value)


def unlisted(fields: Fields, found: Entry) -> Iterator[str]:
    """What is wrong with the fields that were found."""
    triples = {name.removesuffix("ts") for name, (kind, _, _) in fields.items() if kind == "time"}
    for name, value in found.items():
        part = next((end for end in ("local_dt", "fmt_time") if name.endswith(end)), "")
        if part and name.removesuffix(part) in triples:
            continue
        if name not in fields:
            yield f"{name} does not stand there"
        elif not is_of(fields[name][0], value):
            yield f"{name} is {fields[name][0]} there, but {value!r:.60}"
    yield from (f"{prefix}ts lacks the rest of its time" for prefix in triples if lacks_rest(found, prefix))
    yield from (f"{name} is missing" for name, (_, optional, _) in fields.items() if not optional and name not in found)


def lacks_rest(found: Entry, prefix: str) -> bool:
    return f"{prefix}ts" in found and not {f"{prefix}local_dt", f"{prefix}fmt_time"} <= found.keys()


def with_inner(entries: Iterable[Entry]) -> Iterator[Entry]:
    """These entries, and those within them."""
    for entry in entries:
        yield entry
        values = entry["data"].values()
        inner = [one for value in values for one in (value if isinstance(value, list) else [value]) if is_entry(one)]
        yield from with_inner(inner)


def faults(entries: Iterable[Entry]) -> dict[str, set[str]]:
    """What the page lacks of these entries and those within them, by key."""
    wrong: dict[str, set[str]] = defaultdict(set)
    for entry in with_inner(entries):
        key = entry["metadata"]["key"]
        listed = dictionary().get(MANUAL.get(key, key))
        if listed is None:
            wrong[key].add("does not stand there")
            continue
        wrong[key].update(unlisted(listed, entry["data"]), unlisted(dictionary()["metadata"], entry["metadata"]))
    return {key: reasons for key, reasons in wrong.items() if reasons}


def computed(entries: Iterable[object]) -> list[Entry]:
    """These entries as the cloud keeps them, and what the pipeline makes of them."""
    store = MemoryStore(uuid.UUID(int=7))
    store.put(list(entries))
    pipeline.digest(store, clock=ManualClock(2e9))
    return [*store.page(TIMESERIES), *store.page(ANALYSIS)]


def answer(entries: list[Entry]) -> Entry:
    """What somebody says of the first trip of these."""
    trip = next(one["data"] for one in entries if one["metadata"]["key"] == "analysis/cleaned_trip")
    told = {"key": "manual/mode_confirm", "platform": "android", "type": "message", "write_ts": trip["end_ts"] + 60}
    return {"metadata": told, "data": {"start_ts": trip["start_ts"], "end_ts": trip["end_ts"], "label": "bike"}}


@functools.cache
def simulated() -> list[Entry]:
    """All of an android and an ios phone on a simulated day, whose owners said something of a trip."""
    people = {person.platform: person.entries() for person in Simulator(6, 1, 5)}
    assert people.keys() == {"android", "ios"}
    return [one for entries in people.values() for one in computed([*entries, answer(computed(entries))])]


def test_everything_of_a_simulated_person_stands_in_the_dictionary() -> None:
    assert faults(simulated()) == {}


def test_a_simulated_person_says_and_gets_what_the_dictionary_promises() -> None:
    keys = {entry["metadata"]["key"] for entry in simulated()}
    seldom = {key for key in KEYS if key.endswith(("untracked", "stop"))}
    assert keys >= set(KEYS) - seldom | {"manual/mode_confirm"}


def test_what_a_track_becomes_stands_in_the_dictionary(tmp_path: Path) -> None:
    fixes = [one for one in simulated() if one["metadata"]["key"] == gpx.FILTERED]
    files.write(tmp_path / "tracks.gpx", fixes)
    assert faults(list(files.read(tmp_path / "tracks.gpx"))) == {}  # type: ignore[arg-type]


@pytest.mark.needs("phone-days")
def test_everything_of_real_phones_stands_in_the_dictionary() -> None:
    kept: list[Entry] = []
    for file in sorted(Path(os.environ["EMLAB_PHONE_DAYS"]).glob("*.json.gz")):
        if "ground_truth" not in file.name:
            kept += computed(files.read(file))
    for file in sorted((Path(os.environ["EMLAB_PHONE_DAYS"]).parent / "rest").glob("*.phone_to_server.json.gz")):
        kept += map(format_entry, files.read(file))  # type: ignore[arg-type]
    assert faults(kept) == {}
    of_entries = [fields for key, fields in dictionary().items() if "/" in key]
    told = {name for entry in with_inner(kept) for name in (entry["metadata"]["key"], *entry["data"])}
    promised = {name for fields in of_entries for name in fields}
    assert promised - told <= set(dictionary()["metadata"]) | {"label"}  # nothing stands there in vain


@pytest.mark.parametrize(
    ("name", "columns"),
    [
        ("cloud.trips()", diary.TRIP_COLUMNS),
        ("cloud.sections()", diary.SECTION_COLUMNS),
        ("cloud.places()", diary.PLACE_COLUMNS),
    ],
)
def test_tables_have_the_columns_of_the_dictionary(name: str, columns: tuple[str, ...]) -> None:
    assert tuple(dictionary()[name]) == columns


@pytest.mark.parametrize("kind", [truth.TrueTrip, truth.TrueSection])
def test_the_truth_has_the_fields_of_the_dictionary(kind: type) -> None:
    derived = {name for name, value in vars(kind).items() if isinstance(value, property)}
    assert dictionary()[kind.__name__].keys() == {field.name for field in dataclasses.fields(kind)} | derived


def test_every_key_of_the_pipeline_stands_in_the_dictionary() -> None:
    assert set(KEYS) <= dictionary().keys()


@pytest.mark.parametrize("key", sorted(dictionary()))
def test_every_example_is_of_its_type(key: str) -> None:
    assert dictionary()[key]
    for name, (kind, _, example) in dictionary()[key].items():
        value = example if "text" in kind else json.loads(example)
        assert is_of(kind, value), f"{key} {name}: {example} is no {kind}"


def test_a_field_that_does_not_stand_there_is_noticed() -> None:
    metadata = {"key": "manual/mode_confirm", "platform": "ios", "write_ts": 1.5, "time_zone": "UTC"}
    entry = format_entry({"metadata": metadata, "data": {"start_ts": 1.5, "end_ts": 2.5, "label": 7, "odd": 1}})
    assert faults([entry]) == {
        "manual/mode_confirm": {"odd does not stand there", "label is text there, but 7"},
    }
    assert faults([{"metadata": metadata | {"key": "a/b"}, "data": {}}]) == {"a/b": {"does not stand there"}}
