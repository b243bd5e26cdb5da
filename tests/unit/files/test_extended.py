"""What MongoDB's own tools write is read as e-mission's entries have it."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from bson import json_util
from bson.binary import Binary, UuidRepresentation
from bson.datetime_ms import DatetimeMS
from bson.objectid import ObjectId
from hypothesis import given

from emlab import files
from emlab.files.extended import plain

USER = uuid.UUID("0763de67f61e3f5d90e7518e69793954")
DOCUMENT = {
    "_id": ObjectId("57ab63cef311e474bfd97231"),
    "user_id": Binary.from_uuid(USER, UuidRepresentation.PYTHON_LEGACY),
    "metadata": {"key": "stats/client_time", "write_ts": 1470848055.307, "read_ts": 0},
    "data": {"ts": 1e9, "big": 2**40, "when": DatetimeMS(1_470_848_055_307), "speeds": [0.0, 1.5]},
}
MODES = {
    "canonical": json_util.CANONICAL_JSON_OPTIONS,
    "relaxed": json_util.RELAXED_JSON_OPTIONS,
    "legacy": json_util.LEGACY_JSON_OPTIONS,
}


@pytest.mark.parametrize("mode", MODES)
def test_a_dump_is_read_whatever_its_mode(tmp_path: Path, mode: str) -> None:
    line = json_util.dumps(DOCUMENT, json_options=MODES[mode])
    (tmp_path / "dump.json").write_text(f"{line}\n{line}\n")
    first, second = files.read(tmp_path / "dump.json")
    assert (
        first
        == second
        == {
            "_id": {"$oid": "57ab63cef311e474bfd97231"},
            "user_id": {"$uuid": USER.hex},
            "metadata": {"key": "stats/client_time", "write_ts": 1470848055.307, "read_ts": 0},
            "data": {"ts": 1e9, "big": 2**40, "when": {"$date": 1_470_848_055_307}, "speeds": [0.0, 1.5]},
        }
    )


@pytest.mark.parametrize(
    "odd",
    [
        {"$numberLong": "x"},
        {"$numberLong": 5},
        {"$numberDecimal": "1.5"},
        {"$date": "soon"},
        {"$date": 5},
        {"$binary": {"base64": "!", "subType": "03"}},
        {"$binary": {"base64": "AAAA", "subType": "03"}},
        {"$binary": {"base64": "AAAA", "subType": "00"}},
        {"$binary": 5},
        {"$oid": "0"},
        {"$where": "1"},
        {"a": 1},
        {},
    ],
)
def test_what_is_none_of_these_forms_stays(odd: dict[str, Any]) -> None:
    assert plain(odd) == odd


@given(
    thing=st.dictionaries(
        st.sampled_from(["$date", "$binary", "$type", "$numberInt", "$numberDouble", "a"]),
        st.text(max_size=9) | st.integers() | st.none(),
        max_size=2,
    )
)
def test_no_object_is_an_error(thing: dict[str, Any]) -> None:
    json.dumps(plain(thing))
