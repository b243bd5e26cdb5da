"""What is wrong with an entry, in words. Imports of emlab entries.view."""

from __future__ import annotations

import functools
import re

from emlab.entries.view import TIME_FIELDS, JsonObject

_LONGEST = 80  # letters of a field's path; unknown fields may have any name
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_.\-]+)*")


class Fault(Exception):
    """What is wrong with an entry; `reason` names the field and holds no value."""

    def __init__(self, field: str, phrase: str, shown: str = "") -> None:
        named = field if len(field) <= _LONGEST else f"{field[:_LONGEST]}..."
        self.reason = f"{named} {phrase}"
        self.sentence = f"{named} {shown} {phrase}" if shown else self.reason
        super().__init__(self.reason)


@functools.lru_cache(maxsize=1024)
def is_key(key: str) -> bool:
    """Whether a text may be a metadata.key: names of letters, digits and _.- between slashes."""
    return _KEY.fullmatch(key) is not None


# How a broken bound reads; msgspec's own words for the rest.
_PHRASES = {
    "latitude": "is not within -90..90",
    "longitude": "is not within -180..180",
    "accuracy": "is not a number of metres, 0 or more",
    "type": "is none of those that e-mission has",
    "platform": "is not android, ios or server",
    "coordinates": "is not [longitude within -180..180, latitude within -90..90]",
    "write_ts": "is no time in seconds since 1970",
    **dict.fromkeys(TIME_FIELDS, "is no time in seconds since 1970"),
}
_STEP = re.compile(r"\.([A-Za-z0-9_$]+)|\[(\d+)\]")


def fault_of(raw: JsonObject, problem: str) -> Fault:
    """msgspec's message, as a sentence with the value that it is about."""
    said, _, place = problem.partition(" - at ")
    path = [name or int(index) for name, index in _STEP.findall(place.strip("`")[1:])]
    missing = re.search(r"missing required field `(.+)`", said)
    if missing:
        return Fault(".".join(map(str, [*path, missing[1]])), "is missing")
    while path and type(path[-1]) is int:
        path.pop()
    value: object = raw
    for step in path:
        value = value.get(step) if type(value) is dict else None
    phrase = _PHRASES.get(str(path[-1]) if path else "") or f"is not as it should be: {said.replace('`', '').lower()}"
    return Fault(".".join(map(str, path)) or "the entry", phrase, shown(value))


def message(raw: object, position: int, fault: Fault) -> str:
    """The whole sentence: which entry, of which key, and what is wrong with it."""
    metadata = raw.get("metadata") if type(raw) is dict else None
    key = metadata.get("key") if type(metadata) is dict else None
    name = key if type(key) is str and len(key) <= 128 and is_key(key) else "no key"
    return f"entry {position} ({name}): {fault.sentence}"


def shown(value: object) -> str:
    """A short form of a value for a message."""
    if isinstance(value, list) and len(value) <= 3 and all(type(item) in (int, float) for item in value):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict | list):
        return f"({type(value).__name__} of {len(value)})"
    if isinstance(value, int) and abs(value) >= 2**64:  # whose digits Python might refuse to write
        return "(a very large integer)"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
