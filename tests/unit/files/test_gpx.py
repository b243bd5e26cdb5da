"""GPX: tracks become entries that the store and the pipeline accept, and fixes become tracks again."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from emlab import files, pipeline
from emlab.clock import ManualClock
from emlab.entries import parse, parse_all
from emlab.errors import BadEntry, ConfigError
from emlab.files import gpx as reading
from emlab.simulate import Simulator
from emlab.store import MemoryStore

POINTS = "".join(
    f'<trkpt lat="{37.4 + n / 1000}" lon="-122.1"><ele>12.5</ele><time>2016-08-10T17:0{n}:00{zone}</time></trkpt>'
    for n, zone in enumerate(["Z", "", ".000Z", "+00:00"])
)
Entry = dict[str, Any]


def gpx(body: str, version: str = "1/1") -> str:
    return f'<?xml version="1.0"?><gpx xmlns="http://www.topografix.com/GPX/{version}" version="1.1">{body}</gpx>'


def track(points: str = POINTS, head: str = "") -> str:
    return f"<trk><name>a</name>{head}<trkseg>{points}</trkseg></trk>"


def entries_of(tmp_path: Path, text: str, zone: str = "UTC") -> list[Entry]:
    path = tmp_path / "track.gpx"
    path.write_text(text)
    return list(files.read(path, zone=zone))  # type: ignore[arg-type]


def of_key(entries: list[Entry], key: str) -> list[Entry]:
    return [entry["data"] for entry in entries if entry["metadata"]["key"] == key]


@pytest.mark.parametrize("version", ["1/0", "1/1"])
def test_a_track_becomes_a_trip(tmp_path: Path, version: str) -> None:
    entries = entries_of(tmp_path, gpx(track(), version))
    filtered = of_key(entries, "background/filtered_location")
    start = 1470848400.0
    assert [fix["ts"] for fix in filtered] == [start, start + 60, start + 120, start + 180]
    assert filtered == of_key(entries, "background/location")
    assert filtered[0]["loc"] == {"type": "Point", "coordinates": [-122.1, 37.4]}
    assert (filtered[0]["altitude"], filtered[0]["accuracy"], filtered[0]["sensed_speed"]) == (12.5, 10.0, -1.0)
    assert moves(entries) == [(1, 1, start), (2, 14, start + 180), (2, 2, start + 780)]
    assert not of_key(entries, "background/motion_activity")


def moves(entries: list[Entry]) -> list[tuple[int, int, float]]:
    found = of_key(entries, "statemachine/transition")
    return [(one["curr_state"], one["transition"], one["ts"]) for one in found]


def trkpt(lat: float, time: str) -> str:
    return f'<trkpt lat="{lat}" lon="2"><time>2016-08-10T{time}Z</time></trkpt>'


def test_only_what_is_far_enough_apart_is_filtered(tmp_path: Path) -> None:
    points = "".join(trkpt(1 + n * 0.0002, f"17:00:{n:02}") for n in range(10))  # 22 m apart
    entries = entries_of(tmp_path, gpx(track(points)))
    assert len(of_key(entries, "background/location")) == 10
    seconds = [fix["local_dt"]["second"] for fix in of_key(entries, "background/filtered_location")]
    assert seconds == [0, 3, 6, 9]


def test_a_long_rest_within_a_track_parts_two_trips(tmp_path: Path) -> None:
    walk = [trkpt(1 + n * 0.001, f"17:{n:02}:00") for n in range(5)]
    rest = [trkpt(1.004, f"17:{n:02}:00") for n in range(5, 30)]
    again = [trkpt(1.004 - n * 0.001, f"17:{30 + n}:00") for n in range(1, 5)]
    entries = entries_of(tmp_path, gpx(track("".join([*walk, *rest, *again]))))
    start = 1470848400.0
    minutes = [(kind, (ts - start) / 60) for _, kind, ts in moves(entries)]
    assert minutes == [(1, 0), (14, 4), (2, 14), (1, 31), (14, 34), (2, 44)]


def test_all_that_is_made_is_accepted_and_always_the_same(tmp_path: Path) -> None:
    text = gpx(track(head="<type>cycling</type>") + track())
    entries = entries_of(tmp_path, text)
    good, rejected = parse_all(entries)
    assert rejected == []
    assert good == entries == entries_of(tmp_path, text)


def test_the_zone_is_the_callers(tmp_path: Path) -> None:
    entries = entries_of(tmp_path, gpx(track()), "Europe/Berlin")
    assert entries[0]["metadata"]["time_zone"] == "Europe/Berlin"
    assert entries[0]["data"]["fmt_time"] == "2016-08-10T19:00:00+02:00"
    with pytest.raises(ConfigError, match="no time zone 'Atlantis'"):
        entries_of(tmp_path, gpx(track()), "Atlantis")


def test_a_tracks_type_becomes_motions(tmp_path: Path) -> None:
    motions = of_key(entries_of(tmp_path, gpx(track(head="<type>Cycling</type>"))), "background/motion_activity")
    assert [(one["type"], one["confidence"]) for one in motions] == [(1, 100)] * 4


def test_what_extensions_say_is_taken(tmp_path: Path) -> None:
    more = (
        "<hdop>2</hdop><extensions><x:speed xmlns:x='u'>3.5</x:speed><x:course xmlns:x='u'>90</x:course></extensions>"
    )
    points = f'<trkpt lat="1" lon="2"><time>2016-08-10T17:00:00Z</time>{more}</trkpt>'
    fix = of_key(entries_of(tmp_path, gpx(track(points))), "background/filtered_location")[0]
    assert (fix["accuracy"], fix["sensed_speed"], fix["heading"]) == (10.0, 3.5, 90.0)


def test_a_stay_ends_before_the_next_track(tmp_path: Path) -> None:
    later = POINTS.replace("T17:0", "T17:1")
    entries = entries_of(tmp_path, gpx(track() + track(later)))
    start = 1470848400.0
    assert [(kind, ts - start) for _, kind, ts in moves(entries)][:4] == [(1, 0), (14, 180), (2, 390), (1, 600)]
    fixes = of_key(entries, "background/filtered_location")
    assert [fix["ts"] for fix in fixes] == sorted({fix["ts"] for fix in fixes})


def test_points_are_put_in_order_and_doubled_ones_dropped(tmp_path: Path) -> None:
    halves = POINTS.split("</trkpt>")
    points = "</trkpt>".join([halves[2], halves[0], halves[0], halves[1], ""])
    fixes = of_key(entries_of(tmp_path, gpx(track(points))), "background/filtered_location")
    assert len(fixes) == 3
    assert [fix["ts"] for fix in fixes] == sorted(fix["ts"] for fix in fixes)


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ('<trkpt lat="1" lon="2"/>', "data.ts is missing"),
        ('<trkpt lat="1" lon="2"><time>yesterday</time></trkpt>', "data.ts is missing"),
        ('<trkpt lat="95" lon="2"><time>2016-08-10T17:30:00Z</time></trkpt>', "data.latitude is not within"),
        ('<trkpt lat="x" lon="2"><time>2016-08-10T17:30:00Z</time></trkpt>', "data.latitude is not within"),
        ('<trkpt lon="nan"><time>2016-08-10T17:30:00Z</time></trkpt>', "data.latitude is not within"),
        ('<trkpt lat="1" lon="2"><time>1950-01-01T00:00:00Z</time></trkpt>', "data.ts is no time"),
    ],
)
def test_a_bad_point_is_given_on_for_the_store_to_reject(tmp_path: Path, point: str, said: str) -> None:
    good, rejected = parse_all(entries_of(tmp_path, gpx(track(POINTS + point))))
    assert len(of_key(good, "background/filtered_location")) >= 4
    assert rejected
    assert all(one.reason.startswith(said) for one in rejected)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<gpx><trk>", "line 1, column"),
        ("<kml></kml>", "its root is 'kml'"),
        ("<", "line 1, column"),
        ('<!DOCTYPE g [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><gpx>&b;</gpx>', "declares a document type"),
        ('<!DOCTYPE gpx SYSTEM "file:///etc/passwd"><gpx/>', "declares a document type"),
        ('<?xml version="1.0" encoding="klingon"?><gpx/>', "bad.gpx"),
    ],
)
def test_hostile_or_broken_xml_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.gpx"
    path.write_text(text)
    with pytest.raises(BadEntry, match=r"bad\.gpx") as caught:
        list(files.read(path))
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<gpx>" + "<a>" * 100, "more than 64 elements within each other"),
        ('<gpx><trk><trkseg><trkpt lat="1" lon="2">' + "<a/>" * 2000, "a point with more than 1000 elements"),
        ("<gpx><name>" + "x" * 5000, "more than 0 MiB of XML"),
        ("<gpx><trk><trkseg>" + trkpt(1, "17:00:00") * 20, "a track has more than 10 points"),
    ],
)
def test_a_file_that_would_fill_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    if "name" in text:
        monkeypatch.setattr(reading, "MAX_XML_BYTES", 4000)
    monkeypatch.setattr(reading, "MAX_POINTS", 10)
    with pytest.raises(BadEntry, match=said):
        entries_of(tmp_path, text)


def test_a_file_without_tracks_has_no_entries(tmp_path: Path) -> None:
    assert entries_of(tmp_path, gpx("<wpt lat='1' lon='2'><time>2016-08-10T17:00:00Z</time></wpt>")) == []
    assert entries_of(tmp_path, gpx(track(""))) == []


def test_days_become_tracks_without_trips(tmp_path: Path) -> None:
    night = "".join(trkpt(1 + n * 0.001, f"{time}:00") for n, time in enumerate(["23:58", "23:59"]))
    morning = "".join(
        trkpt(1 + n * 0.001, f"{time}:00").replace("10T", "11T") for n, time in enumerate(["00:00", "00:01"])
    )
    entries = entries_of(tmp_path, gpx(track(night + morning)))
    assert files.write(tmp_path / "out.gpx", entries) == len(entries)
    text = (tmp_path / "out.gpx").read_text()
    assert text.count("<trk>") == 2
    assert "<name>2016-08-10</name>" in text
    assert "<name>2016-08-11</name>" in text
    fixes = of_key(entries, "background/location")
    assert of_key(entries_of(tmp_path, text), "background/location") == fixes


def test_trips_become_tracks_where_there_are_some(tmp_path: Path) -> None:
    entries = entries_of(tmp_path, gpx(track()))
    times = {"start_ts": 1470848460.0, "end_ts": 1470848520.0, "start_fmt_time": "a <name> & more"}
    trip = {"metadata": {"key": "analysis/cleaned_trip"}, "data": times}
    files.write(tmp_path / "out.gpx.gz", [*entries, trip])
    again = of_key(list(files.read(tmp_path / "out.gpx.gz")), "background/location")  # type: ignore[arg-type]
    assert [fix["ts"] for fix in again] == [1470848460.0, 1470848520.0]


@given(
    fixes=st.lists(
        st.tuples(st.floats(0, 4e9).map(lambda ts: round(ts, 6)), st.floats(-90, 90), st.floats(-180, 180)),
        min_size=1,
        max_size=5,
        unique_by=lambda fix: fix[0],
    )
)
def test_fixes_survive_a_round_trip(
    fixes: list[tuple[float, float, float]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.getbasetemp() / "fixes.gpx"
    entries = [
        {"metadata": {"key": "background/location"}, "data": {"ts": ts, "latitude": lat, "longitude": lon}}
        for ts, lat, lon in fixes
    ]
    files.write(path, entries)
    places = of_key([parse(entry) for entry in files.read(path)], "background/location")
    found = {place["ts"]: place for place in places}
    for ts, lat, lon in fixes:
        fix = found[min(found, key=lambda other: abs(other - ts))]
        assert (fix["latitude"], fix["longitude"]) == (lat, lon)


@pytest.mark.needs("phone-days")
def test_a_real_day_becomes_a_track(tmp_path: Path) -> None:
    day = list(files.read(Path(os.environ["EMLAB_PHONE_DAYS"]) / "shankari_2016-08-10.json.gz"))
    files.write(tmp_path / "day.gpx", day)
    fixes = of_key(list(files.read(tmp_path / "day.gpx")), "background/location")  # type: ignore[arg-type]
    kept = of_key(day, "background/filtered_location")  # type: ignore[arg-type]
    assert [(fix["ts"], fix["loc"]) for fix in fixes] == sorted((fix["ts"], fix["loc"]) for fix in kept)


def trips_of(entries: Iterable[object]) -> list[Entry]:
    """The trips that the pipeline finds in these entries."""
    store = MemoryStore(uuid.UUID(int=1))
    store.put(list(entries))
    pipeline.digest(store, clock=ManualClock(2e9))
    return [one["data"] for one in store.find("analysis/cleaned_trip", time_key="data.start_ts")]  # type: ignore[misc]


def test_the_pipeline_finds_in_a_track_the_trips_that_it_found_before(tmp_path: Path) -> None:
    day = list(Simulator(1, 1, 5).person(0).entries())
    expected = trips_of(day)
    assert expected
    files.write(tmp_path / "days.gpx", day)
    found = trips_of(files.read(tmp_path / "days.gpx", zone="America/Los_Angeles"))
    for trip in expected:
        near = [one for one in found if abs(one["start_ts"] - trip["start_ts"]) < 300]
        assert len(near) == 1
        assert near[0]["end_ts"] == pytest.approx(trip["end_ts"], abs=300)
        assert near[0]["distance"] == pytest.approx(trip["distance"], rel=0.05, abs=60)
