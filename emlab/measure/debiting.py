"""Debits of the ledger, beside journaled updates of a single document in the same mongod."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from emlab.ask import new_id
from emlab.ledger import MongoLedger, Note
from emlab.loss import Loss, Terms
from emlab.measure.clouds import cloud_of
from emlab.measure.plan import interleave
from emlab.measure.samples import Samples
from emlab.measure.storing import mongo

if TYPE_CHECKING:
    import pandas as pd
    from pymongo.collection import Collection

    from emlab.lab import Lab

USER = "measured-ledger"
DATABASE = "measured-ledger"  # not the cloud's own, whose owner's budget this is not
ANSWER = bytes(600)  # as long as an envelope with one cell is
DIGEST, PROVIDER = "0" * 64, "0" * 64
COST = Loss(epsilon_micro=1)
TERMS = Terms(accounting="pure", limit=10**8, quota=10**8, provider=PROVIDER, renew_s=86400.0, ts=0.0)
NOTE = Note(provider="measured", query="CountUsers", purpose="how long a debit takes", ts=0.0)


def debit(lab: Lab, *, n: int = 30, debits: int = 20, at_once: int = 1, seed: int = 1) -> pd.DataFrame:
    """Samples of "20 debits, 1 at once": seconds for so many debits, of which so many are made at the same time.

    emlab: `reserve` and `commit` of the ledger, under a budget, a quota and periods: all that an ask costs besides its
    computing. raw: one `update_one` with $inc of one document instead. Both: w=1, j=True, in another database of the
    cloud's mongod, over its socket. Debits per second are `debits` / value.

    Args:
        n: rounds. debits: of a round. at_once: threads; the journal is then shared by those that wait for it.
        seed: of the order of both arms.
    """
    from pymongo import WriteConcern
    from tqdm.auto import tqdm

    samples = Samples(lab.engine)
    with cloud_of(lab, USER), mongo(lab, USER) as client, ThreadPoolExecutor(at_once) as pool:
        client.drop_database(DATABASE)
        ledger = MongoLedger(client, database=DATABASE)
        ledger.recover()
        raw = client.get_database(DATABASE, write_concern=WriteConcern(w=1, j=True))["raw"]
        raw.insert_one({"_id": 1, "spent": 0})
        arms: dict[str, Callable[[int], None]] = {"emlab": lambda _: _ours(ledger), "raw": lambda _: _raw(raw)}
        measure = f"{debits} debits, {at_once} at once"
        for number, order in enumerate(tqdm(interleave(n, seed), desc="debit", leave=False, disable=None)):
            for arm in order:
                samples.time(measure, arm, number, partial(_all, pool, arms[arm], debits))
        client.drop_database(DATABASE)
    return samples.frame()


def _all(pool: ThreadPoolExecutor, one: Callable[[int], None], count: int) -> None:
    for _ in pool.map(one, range(count)):  # which raises what any of them raised
        pass


def _ours(ledger: MongoLedger) -> None:
    ask = new_id()
    ledger.reserve(ask, DIGEST, COST, TERMS, NOTE)
    ledger.commit(ask, ANSWER)


def _raw(raw: Collection[dict[str, object]]) -> None:
    raw.update_one({"_id": 1}, {"$inc": {"spent": 1}})
