"""Files of entries: every known form read item by item, and what is wrong with the others said with its place."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from emlab import files
from emlab.entries import parse
from emlab.errors import BadEntry, ConfigError
from emlab.files import opening, scanning
from emlab.files.reading import sections

ENTRY = {
    "metadata": {"key": "stats/client_time", "platform": "ios", "type": "message", "write_ts": 1.5},
    "data": {"ts": 1.5, "name": 'a "]}," b', "reading": [1, {"x": None}]},
}


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def made(content: str | bytes, name: str = "day.json") -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return made


def refused(path: Path) -> str:
    with pytest.raises(BadEntry) as caught:
        list(files.read(path))
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps([ENTRY, ENTRY]),
        json.dumps([ENTRY, ENTRY], indent=2),
        json.dumps({"phone_data": [ENTRY, ENTRY]}),
        json.dumps({"emlab": {"format": 1}, "phone_data": [ENTRY, ENTRY], "other": [3]}),
        json.dumps({"user": "x", "phone_to_server": [ENTRY, ENTRY]}),
        f"{json.dumps(ENTRY)}\n{json.dumps(ENTRY)}\n",
        f"\ufeff  {json.dumps(ENTRY)}{json.dumps(ENTRY)}",
    ],
    ids=["list", "indented", "answer", "archive", "request", "lines", "mark"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_every_form_gives_the_same_entries(make: Any, text: str, packed: bool) -> None:
    content = text.encode()
    assert list(files.read(make(gzip.compress(content) if packed else content, "any name"))) == [ENTRY, ENTRY]


def test_parts_may_end_anywhere(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    things = [ENTRY, 12345, -1.5e300, "é☃", True, None, [], {}, {"deep": [[{}]]}]
    path = make(json.dumps(things, ensure_ascii=False))
    for size in (1, 2, 3, 7):
        monkeypatch.setattr(scanning, "PART_BYTES", size)
        assert list(files.read(path)) == things


@given(
    things=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda thing: [thing] * 2)
)
def test_whatever_json_writes_is_read(things: list[object], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "things.json"
    path.write_text(json.dumps(things))
    assert list(files.read(path)) == things


@given(content=st.binary(max_size=60) | st.text('[]{}",:0123456789.eE- \\unltrafs<>gpx/', max_size=60).map(str.encode))
def test_whatever_bytes_are_read_or_refused(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "bytes"
    path.write_bytes(content)
    try:
        list(files.read(path))
    except BadEntry as exc:
        assert str(exc).startswith("bytes")  # noqa: PT017 (most examples are refused, some are read)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("   \n", "is empty"),
        ("hello", "character 0: there should be a list of entries"),
        ("[1, 2", "character 5: the file ends early: there should be ','"),
        ('[{"a": 1}, {"b": ', "the file ends early"),
        ('[{"a": 1}, {"b" 3}]', "character 16: Expecting ':' delimiter"),
        ("[1 2]", "character 3: there should be ','"),
        ("[1,]", "character 3: Expecting value"),
        ("[1] [2]", "character 4: there should be nothing more"),
        ('{"a": [1]}', "no field phone_data"),
        ("{3: 4}", "there should be an object"),
        ('{"phone_data": [1}', "there should be ','"),
        (f"[{'9' * 5000}]", "a number too long"),
        ("[" * 100_000, "nested too deeply"),
        ('["' + "x" * (scanning.MAX_ITEM + 10), f"more than {scanning.MAX_ITEM} characters"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(make: Any, text: str, said: str) -> None:
    assert said in refused(make(text))


def test_text_that_is_no_utf_8_is_refused(make: Any) -> None:
    assert "no UTF-8" in refused(make(b'["\xff"]'))


def test_entries_before_the_damage_are_given(make: Any) -> None:
    found = files.read(make('[{"a": 1}, {"b": 2}, oops'))
    assert [next(found), next(found)] == [{"a": 1}, {"b": 2}]


def test_a_truncated_package_is_refused(make: Any) -> None:
    packed = gzip.compress(json.dumps([ENTRY] * 1000).encode())
    assert "is damaged" in refused(make(packed[:-20]))
    assert "is damaged" in refused(make(packed[: len(packed) // 2] + b"\0" * 50))


def test_a_bomb_is_refused_before_it_fills_the_memory(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "FREE_BYTES", 1 << 20)
    bomb = gzip.compress(b'[0,"' + b"a" * (8 << 20) + b'"]')
    assert "unpacks to more than" in refused(make(bomb))


def test_a_not_finite_number_is_given_on_for_the_store_to_reject(make: Any) -> None:
    (entry,) = files.read(make(json.dumps([{**ENTRY, "data": {"speed": float("nan")}}])))
    with pytest.raises(BadEntry, match=r"data\.speed nan is not finite"):
        parse(entry)


def test_only_plain_files_are_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "absent", tmp_path, Path("/dev/null"), Path("a\0b")):
        with pytest.raises(ConfigError):
            list(files.read(path))


def test_sections_tell_the_fields_apart(make: Any) -> None:
    text = json.dumps({"emlab": {"format": 1}, "phone_data": [1, 2], "documents": []})
    assert list(sections(make(text))) == [("emlab", {"format": 1}), ("phone_data", 1), ("phone_data", 2)]


@pytest.mark.parametrize("name", ["day.json", "day.json.gz"])
@pytest.mark.parametrize("entries", [[], [ENTRY], [ENTRY, {**ENTRY, "invalid": True}, {"é": "☃"}]])
def test_what_is_written_is_read_again(tmp_path: Path, name: str, entries: Sequence[object]) -> None:
    assert files.write(tmp_path / name, iter(entries)) == len(entries)
    assert list(files.read(tmp_path / name)) == list(entries)


def test_a_written_file_is_for_its_owner_and_always_the_same(tmp_path: Path) -> None:
    for name in ("a.json.gz", "b.json.gz"):
        files.write(tmp_path / name, [ENTRY])
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()
    assert (tmp_path / "a.json.gz").stat().st_mode & 0o777 == 0o600


def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "day.json"
    path.write_text("before")
    with pytest.raises(BadEntry, match="entry 1 cannot be written"):
        files.write(path, [ENTRY, {"speed": float("inf")}])
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"day\.json cannot be written"):
        files.write(tmp_path / "absent" / "day.json", [ENTRY])
    with pytest.raises(ConfigError, match=r"does not end in \.json"):
        files.write(tmp_path / "day.csv", [ENTRY])


@pytest.mark.needs("phone-days")
def test_real_days_survive_a_round_trip(tmp_path: Path) -> None:
    for file in sorted(Path(os.environ["EMLAB_PHONE_DAYS"]).glob("*.json.gz")):
        if "ground_truth" in file.name:
            continue
        day = list(files.read(file))
        assert day == json.loads(gzip.decompress(file.read_bytes()))
        assert files.write(tmp_path / file.name, day) == len(day)
        assert list(files.read(tmp_path / file.name)) == day
