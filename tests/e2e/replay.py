"""Recorded REST sessions of the real e-mission server: their calls, and how an answer of ours compares with its."""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from emlab.wire.transport import Transport

Json = object
PIPELINE, PHASE = "PIPELINE", "PHASE"
RESULTS = ("segmentation/", "analysis/", "inference/")

# Random, or when something was recorded: whatever stands there, if it is of the same type.
CLOCKED = frozenset(
    "uuid create_ts update_ts createdAt last_call_ts last_put_ts last_sync_ts last_diary_fetch_ts".split()
)
WRITTEN = ("write_ts", "write_local_dt", "write_fmt_time")  # of entries that the server made: when the pipeline ran


class Difference(NamedTuple):
    """Recorded calls that a cloud answers otherwise, on purpose. `row` begins a row of EMISSION.md's table."""

    row: str
    notes: tuple[str, ...]
    status: int


DIFFERENCES = (
    Difference("A stranger's token", ("unknown user",), 403),
    Difference("No `user` in the body", ("no user field",), 401),
    Difference("`trunc_method` \"first\"", ("first is coded but fails", "first: fails"), 200),
    Difference("A key that nobody knows", ("unknown key",), 200),
    Difference("`max_entries` 0", ("max_entries 0, sample",), 200),
    Difference("Times that are text", ("times are text",), 400),
    Difference("A body that is no JSON object, or lacks or mistypes a field", (
        "bad day", "different component sets", "no key_list", "no end_time", "key_list is a string", "max_entries not an int",
        "max_entries without trunc_method", "unknown trunc_method", "no phone_to_server", "no the_entry", "no update_doc",
        "no keys", "no inserted_label", "unknown time type", "JSON that is no object", "empty body",
    ), 400),
    Difference("Malformed entries", ("entry without metadata.type", "entry without metadata"), 400),
    Difference("The content type", ("wrong content type",), 200),
    Difference("Metrics by `timestamp` and `local_date`", ("old time type",), 400),
    Difference("Pages and redirections", ("static landing page; no page installed here", "unknown route"), 404),
)  # fmt: skip


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
    note = "unknown user" if call.note.startswith("unknown user") else call.note
    return next((one for one in DIFFERENCES if note in one.notes), None)


def faults(recorded: Json, got: Json, *, where: str = "", tied: bool = False) -> Iterator[str]:
    """Where an answer is not as recorded.

    Args:
        tied: both orders of entries of one time are as recorded, which itself has both.
    """
    if isinstance(recorded, dict) and _is_reduced(recorded):
        yield from _reduced_faults(recorded, got, where)
    elif isinstance(recorded, dict):
        yield from _object_faults(recorded, got, where)
    elif isinstance(recorded, list):
        yield from _list_faults(recorded, got, where)
    elif isinstance(recorded, bool) or not isinstance(recorded, int | float):
        if recorded != got:
            yield f"{where}: {recorded!r} became {got!r}"
    elif not isinstance(got, int | float) or not math.isclose(recorded, got, rel_tol=1e-12):
        yield f"{where}: {recorded!r} became {got!r}"


def _is_reduced(value: Json) -> bool:
    return isinstance(value, dict) and bool(value.get("reduced"))


def _object_faults(recorded: Mapping[str, Json], got: Json, where: str) -> Iterator[str]:
    if not isinstance(got, dict):
        yield f"{where}: an object became {type(got).__name__}"
        return
    if recorded.keys() != got.keys():
        yield f"{where}: lacks {sorted(recorded.keys() - got.keys())}, has {sorted(got.keys() - recorded.keys())}"
    made = recorded.get("platform") == "server"
    for name in recorded.keys() & got.keys():
        path = f"{where}.{name}"
        if name in ("$oid", "$uuid", *CLOCKED) or (made and name in WRITTEN):
            if type(recorded[name]) is not type(got[name]):
                yield f"{path}: {recorded[name]!r} became {got[name]!r}"
        else:
            yield from faults(recorded[name], got[name], where=path)


def _list_faults(recorded: Sequence[Json], got: Json, where: str) -> Iterator[str]:
    if not isinstance(got, list) or len(got) != len(recorded):
        yield f"{where}: {len(recorded)} became {len(got) if isinstance(got, list) else got!r}"
        return
    for number, (one, other) in enumerate(zip(recorded, got, strict=True)):
        yield from faults(one, other, where=f"{where}[{number}]")


def _reduced_faults(recorded: Mapping[str, Json], got: Json, where: str) -> Iterator[str]:
    if not isinstance(got, list) or len(got) != recorded["count"]:
        yield f"{where}: {recorded['count']} became {len(got) if isinstance(got, list) else got!r}"
        return
    first, last = recorded["first"], recorded["last"]
    assert isinstance(first, list)
    assert isinstance(last, list)
    yield from _list_faults(first, got[: len(first)], f"{where}[:3]")
    yield from _list_faults(last, got[-len(last) :], f"{where}[-3:]")
    if "key_counts" in recorded:
        counts = Counter(one["metadata"]["key"] for one in got)
        if counts != recorded["key_counts"]:
            yield f"{where}: {recorded['key_counts']} became {dict(counts)}"
        elif not any(key.startswith(RESULTS) for key in counts) and recorded["order_sha256"] not in _orders(got):
            yield f"{where}: in another order"
    if "sum" in recorded and not math.isclose(sum(got), float(str(recorded["sum"])), rel_tol=1e-9):
        yield f"{where}: the sum is another"


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
