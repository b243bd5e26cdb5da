"""Recorded REST sessions of the real e-mission server: their calls, and how an answer of ours compares with its.

Everything is compared exactly, but for what the tables below name.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from emlab.wire.transport import Transport

Json = object
PIPELINE, PHASE = "PIPELINE", "PHASE"
RESULTS = ("segmentation/", "analysis/", "inference/")

# Random, or when something was recorded: whatever stands there, if it is of the same type.
CLOCKED = frozenset({"uuid", "create_ts", "update_ts", "createdAt"})
CLOCKED |= {"last_call_ts", "last_put_ts", "last_sync_ts", "last_diary_fetch_ts"}
WRITTEN = ("write_ts", "write_local_dt", "write_fmt_time")  # of entries that the server made: when the pipeline ran

# What intake computes, by e-mission's names: how far it may be from what the real pipeline computed.
TOLERANCES = {
    "ts": 1.0,  # seconds, of any time
    "duration": 1.0,
    "distance": 0.1,  # metres, or 0.1 %
    "coordinates": 1e-6,  # degrees, a tenth of a metre
    "lnglat": 1e-6,
    "heading": 0.001,  # degrees
    "times": 1.0,  # seconds
    "timestamps": 1_000.0,  # milliseconds
    "speed": 0.001,  # metres a second
    "speeds": 0.001,
}
SHARE = 0.001  # of a distance


class Difference(NamedTuple):
    """Recorded calls that a cloud answers otherwise, on purpose.

    Attributes:
        row: begins a row of EMISSION.md's table.
        notes: of the calls; a path, if there is no note.
        status: what is answered instead.
        field: of a 200, all is as recorded but this field; None if the answer is not compared.
    """

    row: str
    notes: tuple[str, ...]
    status: int
    field: str | None = None


MISTYPED = (
    *("bad day", "unknown time type", "different component sets", "JSON that is no object", "empty body"),
    *(
        "no key_list",
        "no end_time",
        "no phone_to_server",
        "no the_entry",
        "no update_doc",
        "no keys",
        "no inserted_label",
    ),
    *("key_list is a string", "max_entries not an int", "max_entries without trunc_method", "unknown trunc_method"),
)
NO_LOCATION = (
    "after putone of a non-location entry: last_location_ts = -1 (closes the pipeline gate)",
    "last_location_ts of this small upload counts: -1 if it holds no background/location",
)
PAGES = ("static landing page; no page installed here", "unknown route", "/redirect/join?groupid=12&userid=3")
DIFFERENCES = (
    Difference("A stranger's token", ("unknown user",), 403),
    Difference("No `user` in the body", ("no user field",), 401),
    Difference("A body that is no JSON object, or lacks or mistypes a field", MISTYPED, 400),
    Difference("The content type", ("wrong content type",), 200),
    Difference("Bodies of errors", ("malformed JSON",), 400),
    Difference("Bodies of errors", ("GET on a POST route", "PUT on a POST route"), 405),
    Difference('`trunc_method` "first"', ("first is coded but fails", "first: fails"), 200),
    Difference("`max_entries` 0", ("max_entries 0, sample",), 200),
    Difference("A key that nobody knows", ("unknown key",), 200),
    Difference("Times that are text", ("times are text",), 400),
    Difference("Malformed entries", ("entry without metadata.type", "entry without metadata"), 400),
    Difference("`last_location_ts` after an upload without a location", NO_LOCATION, 200, "last_location_ts"),
    Difference("Metrics by `timestamp` and `local_date`", ("old time type",), 400),
    Difference("Pages and redirections", PAGES, 404),
)


# What no answer of a cloud has, by name, and the row that says why.
LACKING = {
    "reverse_geocode": "Addresses of places",
    "display_name": "Addresses of places",
    "user_id": "Entries within composite trips",
}

# What computed entries have besides, and the row that says why.
MORE = {("analysis/smoothing", name): "Times of analysis/smoothing" for name in ("ts", "fmt_time", "local_dt")}


class Call(NamedTuple):
    """One recorded call."""

    number: int
    method: str
    path: str
    request: Json
    status: int
    response: Json
    note: str


def sessions(phone_days: Path) -> Iterator[str]:
    """The names of the recorded sessions."""
    return (path.stem for path in sorted((phone_days.parent / "rest").glob("*.json")))


def calls(phone_days: Path, name: str) -> Iterator[Call]:
    """The calls of a session, the long upload in full."""
    folder = phone_days.parent / "rest"
    uploaded = json.loads(gzip.decompress((folder / f"{name}.phone_to_server.json.gz").read_bytes()))
    for one in json.loads((folder / f"{name}.json").read_bytes()):
        request = one.get("request")
        if isinstance(request, dict) and _is_reduced(request.get("phone_to_server")):
            request = {**request, "phone_to_server": uploaded}
        note = one.get("note") or ""
        yield Call(one["n"], one["method"], one["path"], request, one.get("status"), one.get("response"), note)


def send(transport: Transport, call: Call, token: str) -> tuple[int, Json]:
    """Status and answer of a call, the owner's token in the place of the recorded user, but not of a stranger."""
    request = call.request
    if isinstance(request, dict) and str(request.get("user", "")).startswith("golden_"):
        request = {**request, "user": token}
    body = request.encode() if isinstance(request, str) else b"" if request is None else json.dumps(request).encode()
    kind = "text/plain" if call.note == "wrong content type" else "application/json"
    status, reply = transport.send(call.method, call.path, headers={"content-type": kind}, body=body, timeout_s=60.0)
    return status, (json.loads(reply) if reply else "")


def difference(call: Call) -> Difference | None:
    """Why this call is answered otherwise on purpose; None if it is not."""
    note = "unknown user" if call.note.startswith("unknown user") else call.note or call.path
    return next((one for one in DIFFERENCES if note in one.notes), None)


def call_faults(call: Call, status: int, got: Json) -> Iterator[str]:
    """Where the answer of a call is neither as recorded nor as it differs on purpose."""
    excused = difference(call)
    wanted = call.status if excused is None else excused.status
    if status != wanted:
        yield f"status {status} instead of {wanted} (recorded: {call.status}): {str(got)[:200]}"
    elif excused is None:
        yield from faults(call.response, got)
    elif excused.field is not None:
        yield from (fault for fault in faults(call.response, got) if not fault.startswith(f".{excused.field}:"))


def faults(recorded: Json, got: Json, *, where: str = "", computed: bool = False) -> Iterator[str]:
    """Where an answer is not as recorded.

    Args:
        where: the path to it, whose last name says what it is.
        computed: intake computes this, so there are tolerances.
    """
    if isinstance(recorded, dict):
        look = _reduced_faults if recorded.get("reduced") else _object_faults
        yield from look(recorded, got, where, computed)
    elif isinstance(recorded, list):
        yield from _list_faults(recorded, got, where, computed)
    elif not _same(recorded, got, where, computed):
        yield f"{where}: {recorded!r} became {got!r}"


def _same(recorded: Json, got: Json, where: str, computed: bool) -> bool:
    name = where.rpartition(".")[2].partition("[")[0]
    if computed and name.endswith(("fmt_time", "id")):  # _time_faults looks at times
        return type(recorded) is type(got)
    if isinstance(recorded, bool) or not isinstance(recorded, int | float):
        return recorded == got
    if isinstance(got, bool) or not isinstance(got, int | float):
        return False
    if not computed:
        return math.isclose(recorded, got, rel_tol=1e-12)
    kind = "ts" if name.endswith("ts") else "distance" if "distance" in where else name
    share = SHARE if kind == "distance" else 1e-9
    return math.isclose(recorded, got, rel_tol=share, abs_tol=TOLERANCES.get(kind, 0.0))


def _is_reduced(value: Json) -> bool:
    return isinstance(value, dict) and bool(value.get("reduced"))


def _object_faults(recorded: Mapping[str, Json], got: Json, where: str, computed: bool) -> Iterator[str]:
    if not isinstance(got, dict):
        yield f"{where}: an object became {type(got).__name__}"
        return
    missing, more = recorded.keys() - got.keys(), got.keys() - recorded.keys()
    if computed:
        missing -= LACKING.keys()
    if missing or more:
        yield f"{where}: lacks {sorted(missing)}, has {sorted(more)}"
    metadata = recorded.get("metadata")
    made = isinstance(metadata, dict) and metadata.get("platform") == "server"
    if made and isinstance(metadata, dict) and isinstance(got.get("data"), dict):
        got = {
            **got,
            "data": {name: value for name, value in got["data"].items() if (metadata["key"], name) not in MORE},
        }
    if computed:
        yield from _time_faults(got, where)
    for name in sorted(recorded.keys() & got.keys()):
        one, other, path = recorded[name], got[name], f"{where}.{name}"
        if name in ("$oid", "$uuid", *CLOCKED) or (recorded.get("platform") == "server" and name in WRITTEN):
            if type(one) is not type(other):
                yield f"{path}: {one!r} became {other!r}"
        elif not (computed and name.endswith("local_dt")):
            inner = (
                computed or (made and name == "data") or name in ("pipeline_range", "timeline", "lnglat", "complete_ts")
            )
            yield from faults(one, other, where=path, computed=inner)


def _time_faults(got: Mapping[str, Json], where: str) -> Iterator[str]:
    """Where the three forms of a time do not say the same."""
    for name in got:
        prefix = name.removesuffix("fmt_time")
        if prefix == name or f"{prefix}ts" not in got:
            continue
        moment = datetime.fromisoformat(str(got[name]))
        local = got.get(f"{prefix}local_dt")
        instant = got[f"{prefix}ts"]
        if not isinstance(instant, float) or abs(moment.timestamp() - instant) > 1e-3:
            yield f"{where}.{name}: another instant than {prefix}ts"
        parts = ("year", "month", "day", "hour", "minute", "second")
        wanted = {part: getattr(moment, part) for part in parts} | {"weekday": moment.weekday()}
        if not isinstance(local, dict) or {part: local.get(part) for part in wanted} != wanted:
            yield f"{where}.{prefix}local_dt: another instant than {name}"


def _list_faults(recorded: Sequence[Json], got: Json, where: str, computed: bool) -> Iterator[str]:
    if not isinstance(got, list):
        yield f"{where}: a list became {type(got).__name__}"
    elif len(got) != len(recorded):
        yield f"{where}: {len(recorded)} became {len(got)}"
    else:
        for number, (one, other) in enumerate(zip(recorded, got, strict=True)):
            yield from faults(one, other, where=f"{where}[{number}]", computed=computed)


def _reduced_faults(recorded: Mapping[str, Json], got: Json, where: str, computed: bool) -> Iterator[str]:
    """A long list, of which the number of items, the first and last ones, and sums or digests were recorded."""
    if not isinstance(got, list):
        yield f"{where}: a list became {type(got).__name__}"
        return
    first, last, count = recorded["first"], recorded["last"], recorded["count"]
    assert isinstance(first, list)
    assert isinstance(last, list)
    assert isinstance(count, int)
    if "key_counts" in recorded:
        got = got if len(got) == count else _expected(got, recorded["key_counts"])
        yield from _entries_faults(recorded, got, where)
    elif len(got) != count:
        yield f"{where}: {count} became {len(got)}"
    if "sum" in recorded and where.endswith("distances"):
        yield from faults(recorded["sum"], sum(got), where=where, computed=computed)
    if len(got) == count:
        yield from _list_faults(first, got[: len(first)], f"{where}[:3]", computed)
        yield from _list_faults(last, got[-len(last) :], f"{where}[-3:]", computed)


def _expected(entries: list[Any], keys: Json) -> list[Any]:
    """Without what the real server would not have found.

    These are points from before one that was written earlier, which it invalidates, and keys with a time that it lacks.
    """
    assert isinstance(keys, dict)
    undated = {key for key, _ in MORE} - keys.keys()
    late, latest = set(), -math.inf
    for entry in sorted(entries, key=lambda entry: float(entry["metadata"]["write_ts"])):
        if entry["metadata"]["key"] == "background/filtered_location":
            if entry["data"]["ts"] < latest:
                late.add(entry["_id"]["$oid"])
            latest = max(latest, entry["data"]["ts"])
    return [one for one in entries if one["_id"]["$oid"] not in late and one["metadata"]["key"] not in undated]


def _entries_faults(recorded: Mapping[str, Json], got: list[Any], where: str) -> Iterator[str]:
    counts, wanted = Counter(one["metadata"]["key"] for one in got), recorded["key_counts"]
    assert isinstance(wanted, dict)
    for key in sorted(wanted.keys() | counts.keys()):
        if wanted.get(key, 0) != counts[key]:
            yield f"{where}: {wanted.get(key, 0)} of {key} became {counts[key]}"
    all_raw = counts == wanted and not any(key.startswith(RESULTS) for key in counts)
    if all_raw and recorded["order_sha256"] not in _orders(got):
        yield f"{where}: in another order"


def _orders(entries: Sequence[Mapping[str, Mapping[str, object]]]) -> set[str]:
    """The digests of the order, entries of one time by key up or down: the real server has both at times."""
    named = [(float(str(one["metadata"]["write_ts"])), str(one["metadata"]["key"])) for one in entries]
    digests = set()
    for down in (False, True):
        again = list(named)
        for at in range(len(again) - 1):
            here, after = again[at], again[at + 1]
            if here[0] == after[0] and (here[1] > after[1]) != down:
                again[at], again[at + 1] = after, here
        text = "\n".join(f"{key} {ts:.6f}" for ts, key in again)
        digests.add(hashlib.sha256(text.encode()).hexdigest())
    return digests
