"""What a phone and its diary ask of a cloud by e-mission's routes, beside pymongo at the same mongod: put, and find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, cast

import msgspec

from emlab.engines.base import SOCKET
from emlab.errors import BadReply, StoreError
from emlab.lab import Lab
from emlab.measure.clouds import cloud_of
from emlab.measure.plan import interleave
from emlab.measure.samples import Samples
from emlab.measure.storing import databases, emptied, mongo
from emlab.wire.transport import UnixTransport

if TYPE_CHECKING:
    import pandas as pd
    from pymongo.database import Database

USER = "measured-phone"
UPLOAD, READ = "upload a day", "read a day"
TIMEOUT_S = 60.0
EVER = (0.0, 1e11)
JsonObject = dict[str, object]


def phone(lab: Lab, entries: Sequence[object], *, n: int = 30, seed: int = 1) -> pd.DataFrame:
    """Samples of "upload a day" and "read a day", over the cloud's socket, by e-mission's routes.

    upload, emlab: POST /usercache/put of these entries in the form of a phone, none of which is there yet. raw:
    `insert_many`, unordered, of the documents that the cloud made of them. Both journaled, with the same indexes.
    read, emlab: POST /datastreams/find_entries/timestamp for all keys, its JSON decoded. raw: `find`, sorted, in the
    three collections of the same mongod that the route reads, as a list. Both read formatted entries.
    """
    samples = Samples(lab.engine)
    raws = [as_uploaded(cast(JsonObject, entry)) for entry in entries]
    with cloud_of(lab, USER) as cloud, closing(UnixTransport(lab.controller.life(USER).spec.run_dir / SOCKET)) as line:
        asked = _Asked(line, cast(str, cloud.token))
        _uploads(lab, asked, raws, samples, interleave(n, seed))
        cloud.store(entries)
        _reads(lab, asked, samples, interleave(n, seed + 1))
    return samples.frame()


def as_uploaded(entry: Mapping[str, object]) -> JsonObject:
    """A formatted entry as it would be if a phone had just sent it: without what formatting adds."""
    metadata, data = cast(JsonObject, entry["metadata"]), cast(JsonObject, entry["data"])
    sent: JsonObject = {"type": "sensor-data"}
    sent |= {name: value for name, value in metadata.items() if name not in ("write_fmt_time", "write_local_dt")}
    bare = {name: value for name, value in data.items() if name not in ("loc", "local_dt", "fmt_time")}
    return {"metadata": sent, "data": bare}


class _Asked:
    """A cloud that is asked as e-mission's clients do."""

    def __init__(self, line: UnixTransport, token: str) -> None:
        self._line = line
        self._token = token

    def post(self, path: str, fields: JsonObject) -> object:
        """The decoded answer. Raises BadReply unless it is a success."""
        body = msgspec.json.encode({"user": self._token, **fields})
        headers = {"content-type": "application/json"}
        status, reply = self._line.send("POST", path, headers=headers, body=body, timeout_s=TIMEOUT_S)
        if status != 200:
            raise BadReply(f"{path} answered {status}")
        return msgspec.json.decode(reply) if reply else None


def _uploads(
    lab: Lab, asked: _Asked, entries: Sequence[JsonObject], samples: Samples, plan: Sequence[Sequence[str]]
) -> None:
    from emlab.store.base import USERCACHE

    with mongo(lab, USER) as client:
        ours, raw = databases(client)
        asked.post("/usercache/put", {"phone_to_server": list(entries)})
        documents = list(ours[USERCACHE].find())

        def put() -> None:
            if asked.post("/usercache/put", {"phone_to_server": list(entries)}) is not None:
                raise StoreError("not all entries were kept")

        for number, order in enumerate(plan):
            for arm in order:
                if arm == "emlab":
                    samples.time(UPLOAD, "emlab", number, put, before=lambda: emptied(ours, [USERCACHE]))
                else:
                    samples.time(
                        UPLOAD,
                        "raw",
                        number,
                        lambda: raw[USERCACHE].insert_many(documents, ordered=False),
                        before=lambda: emptied(raw, [USERCACHE]),
                    )
        emptied(ours, [USERCACHE])


def _reads(lab: Lab, asked: _Asked, samples: Samples, plan: Sequence[Sequence[str]]) -> None:
    with mongo(lab, USER) as client:
        ours, _ = databases(client)
        there = len(_found(ours))

        def find() -> None:
            query: JsonObject = {"key_list": None, "start_time": EVER[0], "end_time": EVER[1]}
            answer = cast("dict[str, list[object]]", asked.post("/datastreams/find_entries/timestamp", query))
            if len(answer["phone_data"]) != there:
                raise StoreError(f"of {there} entries {len(answer['phone_data'])} were found")

        for number, order in enumerate(plan):
            for arm in order:
                if arm == "emlab":
                    samples.time(READ, "emlab", number, find)
                else:
                    samples.time(READ, "raw", number, lambda: _found(ours))


def _found(database: Database[JsonObject]) -> list[JsonObject]:
    from emlab.store.base import ANALYSIS, TIMESERIES, USERCACHE

    query = {"invalid": {"$exists": False}, "metadata.write_ts": {"$gte": EVER[0], "$lte": EVER[1]}}
    names = (TIMESERIES, ANALYSIS, USERCACHE)
    return [one for name in names for one in database[name].find(query).sort("metadata.write_ts", 1)]
