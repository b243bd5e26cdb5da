"""Storing entries through a cloud, beside pymongo's insert_many into the same mongod."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from emlab.errors import StoreError
from emlab.lab import Lab
from emlab.measure.clouds import cloud_of
from emlab.measure.plan import interleave
from emlab.measure.samples import Samples
from emlab.mongod import Mongod
from emlab.usercloud import UserCloud

if TYPE_CHECKING:
    import pandas as pd
    from pymongo import MongoClient
    from pymongo.database import Database

    Documents = dict[str, list[dict[str, object]]]  # by collection

USER = "measured-store"
RAW_DATABASE = "measured"


def store(lab: Lab, entries: Sequence[object], *, n: int = 30, seed: int = 1) -> pd.DataFrame:
    """Samples of "store a day": these entries, none of which is there yet, are kept and journaled.

    emlab: `cloud.store`: JSON, the wire, the owner's token, every check, one insert. raw: `insert_many`, unordered, of
    the documents that the cloud made of them, into another database of the same mongod, over its socket. Both: w=1,
    j=True, the same indexes. Before each sample its collections are dropped and made anew, empty and with indexes,
    which is not timed.
    """
    from tqdm.auto import tqdm

    samples = Samples(lab.engine)
    with cloud_of(lab, USER) as cloud, mongo(lab, USER) as client:
        ours, raw = databases(client)
        cloud.store(entries)
        documents = {name: list(ours[name].find()) for name in ours.list_collection_names() if is_data(name)}
        documents = {name: found for name, found in documents.items() if found}
        for number, order in enumerate(tqdm(interleave(n, seed), desc="store", leave=False, disable=None)):
            for arm in order:
                if arm == "emlab":
                    samples.time(
                        "store a day",
                        arm,
                        number,
                        lambda: _ours(cloud, entries),
                        before=lambda: emptied(ours, documents),
                    )
                else:
                    samples.time(
                        "store a day", arm, number, lambda: _raw(raw, documents), before=lambda: emptied(raw, documents)
                    )
    return samples.frame()


@contextmanager
def mongo(lab: Lab, user: str) -> Iterator[MongoClient[dict[str, object]]]:
    """A client of the mongod of that user's cloud, like the custodian's."""
    spec = lab.controller.life(user).spec
    with Mongod(spec.vault_dir, spec.run_dir).client() as client:
        yield client


def databases(client: MongoClient[dict[str, object]]) -> tuple[Database[dict[str, object]], ...]:
    """The cloud's database and another one; what is written into both is journaled before it counts."""
    from pymongo import WriteConcern

    from emlab.store.mongo import DATABASE

    journaled = WriteConcern(w=1, j=True)
    return tuple(client.get_database(name, write_concern=journaled) for name in (DATABASE, RAW_DATABASE))


def is_data(collection: str) -> bool:
    """Whether a collection holds entries."""
    from emlab.store.base import ANALYSIS, TIMESERIES, USERCACHE

    return collection in (ANALYSIS, TIMESERIES, USERCACHE)


def emptied(database: Database[dict[str, object]], collections: Iterable[str]) -> None:
    """These collections are there, empty and with indexes."""
    from emlab.store.indexes import indexes

    for name in collections:
        database.drop_collection(name)
        database[name].create_indexes(indexes(name))


def _ours(cloud: UserCloud, entries: Sequence[object]) -> None:
    report = cloud.store(entries)
    if report.inserted != len(entries):
        raise StoreError(f"of {len(entries)} entries {report.inserted} were new")


def _raw(database: Database[dict[str, object]], documents: Documents) -> None:
    for name, found in documents.items():
        database[name].insert_many(found, ordered=False)
