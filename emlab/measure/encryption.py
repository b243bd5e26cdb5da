"""What encryption costs: the same cloud in each vault that works here, all in turn, in one run.

    samples = encryption.side_by_side("process", n=20, seed=1)
    encryption.costs(samples), plots.vault_costs(encryption.costs(samples))

An attempt that fails is a sample, and so is a vault that cannot run here, with the sentence that says what is lacking.
Imports all of emlab but the concrete engines and vaults.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from emlab.clock import SYSTEM_CLOCK
from emlab.errors import StoreError
from emlab.key import Key
from emlab.lab import Lab
from emlab.measure.clouds import cloud_of
from emlab.measure.plan import turns
from emlab.measure.ratio import Target, compare
from emlab.measure.results import write_run
from emlab.measure.samples import Samples
from emlab.measure.storing import databases, emptied, is_data, mongo
from emlab.parts import VAULTS, choose_engine, make_vault
from emlab.queries.sum_distance import MAX_CAP_M, SumDistance
from emlab.query import MAX_TS, Reading
from emlab.usercloud import UserCloud
from emlab.vaults.base import Vault

if TYPE_CHECKING:
    import pandas as pd
    from pymongo import MongoClient

    Client: TypeAlias = MongoClient[dict[str, object]]

PLAIN = "plain"
USER = "measured-vault"
WORKS = "works here"
STORE, INSERT, READ, ASK = "store a day", "insert a day", "read a day", "compute an ask"
OPEN, FSYNC, CLOSE = "open", "write and fsync 4 KiB", "close"
COLD, FIRST, DISK = "cold start", "read a day first", "disk"
TARGETS = {STORE: Target(1.2), READ: Target(1.1), ASK: Target(1.1)}
BLOCK, BLOCKS = b"\xa5" * 4096, 20
Documents = dict[str, list[dict[str, object]]]  # by collection


def side_by_side(
    engine: str = "process",
    entries: Sequence[object] | None = None,
    *,
    home: Path | str | None = None,
    n: int = 20,
    seed: int = 1,
) -> pd.DataFrame:
    """Samples of every vault that there is, as `Samples.frame()` describes them; the arm is the vault's name.

    In each round each vault takes its turn, first with the clouds running:
    "insert a day": `insert_many` of a day's documents, none of which is there, journaled; "store a day": the same
    through the cloud. When all that is over: "read a day": `find` of all of them, as a list; "compute an ask": the
    length of the day's track, as an ask computes it (its answer leaves at a fixed time).
    Then from a locked cloud: "open" and "close" of the vault alone, between them "write and fsync 4 KiB", a mean of 20;
    "cold start": `unlock` until the cloud answers out of its MongoDB; "read a day first": the first `find` after it.
    At the end "disk": what the locked vault takes, in MiB. "works here": whether there is such a cloud at all.

    Args:
        engine: "process", "docker" or "auto". entries: of one day, in wire form; without it a simulated person's.
        home: where the clouds live meanwhile, instead of $EMLAB_HOME; its file system decides about fscrypt.
        n: rounds. seed: of the orders and the day.
    """
    from emlab.simulate import Simulator

    engine = choose_engine()[0] if engine == "auto" else engine
    day = list(Simulator(1, 1, seed).person(0).entries()) if entries is None else list(entries)
    samples = Samples(engine)
    kept: dict[str, _Kept] = {}
    with ExitStack() as stack:

        def begin(name: str) -> float:
            kept[name] = stack.enter_context(_cloud_in(name, engine, day, home))
            return 1.0

        for name in sorted(VAULTS, key=lambda name: name != PLAIN):
            samples.take(WORKS, name, 0, lambda name=name: begin(name), unit="")  # type: ignore[misc]
        _while_running(samples, kept, n, seed)
        for name, number in _each(kept, n, seed + 2, "lock, unlock"):
            _unlocked(samples, name, number, kept[name])
        for name, one in kept.items():
            samples.take(DISK, name, 0, one.disk_mb, unit="MiB")
    return samples.frame()


@dataclass(frozen=True)
class _Kept:
    """A day in one cloud, and its vault seen also from outside: `vault` is another object for the same directory."""

    lab: Lab
    cloud: UserCloud
    key: Key
    vault: Vault
    entries: Sequence[object]
    documents: Documents  # that the cloud made of the entries

    def client(self) -> AbstractContextManager[Client]:
        """A client of the mongod that runs now."""
        return mongo(self.lab, USER)

    def disk_mb(self) -> float:
        """MiB that the vault takes when it is locked."""
        self.cloud.lock()
        return disk_mb(self.vault.parent.parent)


@contextmanager
def _cloud_in(name: str, engine: str, entries: Sequence[object], home: Path | str | None) -> Iterator[_Kept]:
    """A cloud in that vault, until the block ends. Raises VaultMissing, VaultError (the folder is of no use for it)."""
    with Lab(engine, name, idle=None, home=home) as lab, cloud_of(lab, USER) as cloud:
        assert isinstance(cloud.key, Key)
        vault = make_vault(name)(lab.controller.life(USER).spec.vault_parent.parent)
        cloud.store(entries)
        with mongo(lab, USER) as client:
            documents = _documents(client)
        yield _Kept(lab, cloud, cloud.key, vault, entries, documents)


def _documents(client: Client) -> Documents:
    database = databases(client)[0]
    found = {name: list(database[name].find()) for name in database.list_collection_names() if is_data(name)}
    return {name: documents for name, documents in found.items() if documents}


# -- while the clouds run ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Day:
    """The ways to write and read the day of one cloud."""

    kept: _Kept
    client: Client

    def empty(self) -> None:
        emptied(databases(self.client)[0], self.kept.documents)

    def insert(self) -> None:
        for name, documents in self.kept.documents.items():
            databases(self.client)[0][name].insert_many(documents, ordered=False)

    def store(self) -> None:
        there = len(self.kept.entries)
        report = self.kept.cloud.store(self.kept.entries)
        if report.inserted != there:
            raise StoreError(f"of {there} entries {report.inserted} were new")

    def read(self) -> None:
        found, there = (sum(map(len, each.values())) for each in (_documents(self.client), self.kept.documents))
        if found != there:
            raise StoreError(f"of {there} documents {found} were found")

    @cached_property
    def _reading(self) -> Reading:
        """One for all asks, as the custodian has."""
        from emlab.store.mongo import MongoStore

        return MongoStore(self.client, uuid.UUID(self.kept.cloud.id))

    def compute(self) -> None:
        if SumDistance(0.0, MAX_TS, MAX_CAP_M).contribution(self._reading)[0] <= 0:
            raise StoreError("the day has no length")


def _while_running(samples: Samples, kept: Mapping[str, _Kept], n: int, seed: int) -> None:
    with ExitStack() as stack:
        days = {name: _Day(one, stack.enter_context(one.client())) for name, one in kept.items()}
        for name, number in _each(days, n, seed, "store"):
            day = days[name]
            samples.time(INSERT, name, number, day.insert, before=day.empty)
            samples.time(STORE, name, number, day.store, before=day.empty)
        for name, number in _each(days, n, seed + 1, "read"):
            samples.time(READ, name, number, days[name].read)
            samples.time(ASK, name, number, days[name].compute)


def _each(names: Iterable[str], n: int, seed: int, description: str) -> Iterator[tuple[str, int]]:
    """Each of the names in each of n rounds, with a progress bar."""
    from tqdm.auto import tqdm

    there = list(names)
    plan = turns(there, n, seed) if there else []
    for number, order in enumerate(tqdm(plan, desc=description, leave=False, disable=None)):
        for name in order:
            yield name, number


# -- from a locked cloud -----------------------------------------------------------------------------------------------


def _unlocked(samples: Samples, name: str, number: int, kept: _Kept) -> None:
    """The vault was opened and closed by itself, then with its cloud, which was read from."""
    samples.time(OPEN, name, number, lambda: kept.vault.open(kept.key), before=kept.cloud.lock)
    samples.take(FSYNC, name, number, lambda: fsync_s(kept.vault.parent / "clear"), unit="s")
    samples.time(CLOSE, name, number, kept.vault.close)
    samples.time(COLD, name, number, lambda: kept.cloud.unlock(kept.key))
    with kept.client() as client:
        samples.time(FIRST, name, number, _Day(kept, client).read, before=lambda: client.admin.command("ping"))


def fsync_s(folder: Path) -> float:
    """Mean seconds of appending 4 KiB to a file in the folder and bringing it to disk, 20 times. The file goes."""
    path = folder / "measured"
    try:
        with path.open("wb", buffering=0) as file:
            start = SYSTEM_CLOCK.monotonic()
            for _ in range(BLOCKS):
                file.write(BLOCK)
                os.fsync(file.fileno())
            return (SYSTEM_CLOCK.monotonic() - start) / BLOCKS
    finally:
        path.unlink(missing_ok=True)


def disk_mb(folder: Path) -> float:
    """MiB of disk that the folder takes, with all that is in it."""
    paths = [folder, *folder.rglob("*")]
    return sum(path.lstat().st_blocks for path in paths) * 512 / 2**20


# -- what came of it ---------------------------------------------------------------------------------------------------


def costs(samples: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """One row per measure and vault, each beside `plain`; then one for each vault that cannot run here.

    Args:
        samples: as `side_by_side` returns them. seed: of the bootstrap.
    Returns:
        measure, vault, unit, n; failed, plain_failed; median, plain: medians; ratio, low, high, target, met: as of
        `measure.compare`; note: why there is nothing of this vault, else "".
    """
    import pandas as pd

    targets = {(measure, vault): target for measure, target in TARGETS.items() for vault in VAULTS}
    measured = samples[samples["measure"] != WORKS]
    pairs = [_pair(measured, name) for name in VAULTS if name != PLAIN]
    table = compare(pd.concat(pairs, ignore_index=True), seed=seed, targets=targets)
    names = {"engine": "vault", "emlab": "median", "raw": "plain", "raw_failed": "plain_failed"}
    table = table.drop(columns="against").rename(columns=names).assign(note="")
    order = list(measured["measure"].unique())
    table = table.sort_values("measure", key=lambda measures: measures.map(order.index), kind="stable")
    return pd.concat([table, *_lacking(samples, table)], ignore_index=True)


def _pair(samples: pd.DataFrame, vault: str) -> pd.DataFrame:
    """The samples of a vault and of plain, as those of two arms; none if the vault has none."""
    arms = {vault: "emlab", PLAIN: "raw"} if (samples["arm"] == vault).any() else {}
    chosen = samples[samples["arm"].isin(arms)]
    return chosen.assign(arm=chosen["arm"].map(arms).astype("string"), engine=vault)


def _lacking(samples: pd.DataFrame, like: pd.DataFrame) -> list[pd.DataFrame]:
    """A row for each vault that does not work here, in a table like another one; none if there are none."""
    import pandas as pd

    found = samples[(samples["measure"] == WORKS) & ~samples["ok"]]
    fixed = {"measure": WORKS, "unit": "", "n": 0, "failed": 1, "plain_failed": 0}
    rows = [{**fixed, "vault": vault, "note": note} for vault, note in zip(found["arm"], found["error"], strict=True)]
    return [pd.DataFrame(rows, columns=like.columns).astype(like.dtypes)] if rows else []


def write_report(
    out_dir: str, samples: pd.DataFrame, params: Mapping[str, object], conditions: Mapping[str, object]
) -> list[Path]:
    """The folder holds the samples (events.parquet), `costs` of them (costs.csv), their figure and report.html.

    Args:
        out_dir: "" writes nothing. params: what the run was told. conditions: as `measure.conditions()` found them.
    Returns: the files.
    """
    from emlab import plots, report

    if not out_dir:
        return []
    table = costs(samples)
    there = " ".join(samples.loc[(samples["measure"] == WORKS) & samples["ok"], "arm"])
    return write_run(
        Path(out_dir),
        samples,
        {"costs.csv": table},
        params=params,
        figures={"costs": plots.vault_costs(table)},
        title="What encryption costs",
        environment=report.environment(" ".join(samples["engine"].unique()), there, **conditions),
    )
