"""A cloud's whole server in this process, over a real mongod, for the tests of its REST routes."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from pymongo import MongoClient

from emlab.clock import ManualClock
from emlab.custodian import Custodian
from emlab.emission import Emission
from emlab.key import new_token, token_hash
from emlab.ledger import MemoryLedger
from emlab.policy import Policy
from emlab.provision import OwnerToken, Provision
from emlab.store import MongoStore
from emlab.store.emission import EmissionStore
from emlab.wire.serve import custodian_server
from tests.unit.asks import CLOUD, NOW, World

Client = MongoClient[dict[str, object]]
OWNER = new_token("owner")
USER = uuid.UUID(CLOUD)
FIND = "/datastreams/find_entries/timestamp"
EVER = {"start_time": 0, "end_time": 2_000_000_000}
BATTERY = "background/battery"
FIRST_TS = 1_440_688_700.5


class Rest:
    """Posts to a cloud as an e-mission client does."""

    def __init__(self, client: Client) -> None:
        provision = Provision(
            lab="lab-1",
            cloud=CLOUD,
            generation=1,
            owner_tokens=[OwnerToken(token_hash(OWNER))],
            controller=World().controller.public,
            policy=Policy.open(total_epsilon=1.0),
            marker="0" * 64,
        )
        self.clock = ManualClock(NOW)
        self.store = MongoStore(client, USER)
        self.custodian = Custodian(provision, self.store, MemoryLedger(), clock=self.clock)
        self.server = custodian_server(
            self.custodian, Emission(self.store, EmissionStore(client, USER), clock=self.clock)
        )

    def send(self, path: str, body: bytes, *, method: str = "POST") -> tuple[int, Any]:
        """Status and decoded answer, whatever the body is."""
        status, reply = self.server.handle(method, path, {}, body)
        return status, (json.loads(reply) if reply else None)

    def post(self, path: str, fields: Mapping[str, object] | None = None, *, user: object = OWNER) -> tuple[int, Any]:
        """Status and decoded answer of the owner's request."""
        return self.send(path, json.dumps({"user": user, **(fields or {})}).encode())

    def ask(self, path: str, **fields: object) -> Any:
        """The answer of a request that must succeed."""
        status, answer = self.post(path, fields)
        assert status == 200, answer
        return answer


def phone_entry(number: int, *, key: str = "background/location", **data: object) -> dict[str, object]:
    """The number-th raw entry of a phone, half a minute after the one before."""
    ts = FIRST_TS + 30 * number
    where = {"latitude": 37.39, "longitude": -122.08} if key.endswith("location") else {}
    metadata = {"key": key, "platform": "android", "type": "message", "write_ts": ts + 1, "read_ts": 0}
    return {"metadata": {**metadata, "time_zone": "America/Los_Angeles"}, "data": {"ts": ts, **where, **data}}


def find(rest: Rest, **fields: object) -> list[Any]:
    """The entries that the owner finds, of all keys and times unless told otherwise."""
    found = rest.ask(FIND, **{"key_list": None, **EVER, **fields})["phone_data"]
    assert isinstance(found, list)
    return found


def numbers(found: list[Any]) -> list[int]:
    """What `phone_entry` was told for each."""
    return [round((entry["data"]["ts"] - FIRST_TS) / 30) for entry in found]
