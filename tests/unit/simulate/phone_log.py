"""A simulated phone's entries as a test wants them: by key, and through JSON, as they would travel."""

from __future__ import annotations

import functools
import json
from collections import defaultdict
from typing import Any

from emlab.simulate import Person

LOCATION, FILTERED = "background/location", "background/filtered_location"
MOTION, TRANSITION, BATTERY = "background/motion_activity", "statemachine/transition", "background/battery"
KEYS = {LOCATION, FILTERED, MOTION, TRANSITION, BATTERY}


@functools.lru_cache(maxsize=64)
def through_json(person: Person) -> list[dict[str, Any]]:
    """All entries of the person, written to JSON and read back; made once, so nobody may change them."""
    entries: list[dict[str, Any]] = json.loads(json.dumps(person.entries(), allow_nan=False))
    return entries


def by_key(person: Person) -> dict[str, list[dict[str, Any]]]:
    """The entries of the person under each key, in the order in which they came."""
    log: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for entry in through_json(person):
        log[entry["metadata"]["key"]].append(entry)
    return log


def lonlat(entry: dict[str, Any]) -> tuple[float, float]:
    """Where a location entry is."""
    lon, lat = entry["data"]["loc"]["coordinates"]
    return lon, lat
