"""UserCloud: the handle to one person's cloud."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from emlab import diary
from emlab.clouds import Clouds
from emlab.entries import Rejected, StoreReport, parse_each, summed
from emlab.errors import BadEntry, BadQuery, CloudGone, ConfigError, EmlabError, InUse, NotPermitted, UnknownUser
from emlab.explanation import Explanation
from emlab.intake.report import IntakeReport
from emlab.policy import Policy
from emlab.state import CloudState, CloudStats
from emlab.wire.batches import batched, encoded
from emlab.wire.client import DEFAULT_TIMEOUT_S
from emlab.wire.log import Deleted, DeleteRequest
from emlab.wire.table import MAX_ENTRIES, AmendRequest, FindRequest, Found, LedgerReport, RunPipeline, StoreRequest
from emlab.wishes import HasPublicKey

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    import pandas as pd

    from emlab.ask import Ask
    from emlab.chain import Head
    from emlab.key import OwnerSecret, RecoveryCode, Secret
    from emlab.lease import AnyLease
    from emlab.me import Log, Me
    from emlab.wire.client import CloudClient
    from emlab.wire.control import CloudStatus

R = TypeVar("R")
AMENDMENTS = 50  # tries, each of which fails because somebody else's change was first
INTAKE_TIMEOUT_S = 3_600.0


class Keeper(Protocol):
    """What a handle needs of a controller, in this process or elsewhere; each method is as `Controller`'s."""

    def status(self, user: str) -> CloudStatus: ...  # noqa: D102
    def stats(self, user: str) -> CloudStats: ...  # noqa: D102
    def logs(self, user: str, lines: int) -> str: ...  # noqa: D102
    def socket(self, user: str) -> Path: ...  # noqa: D102
    def span(self, name: str, user: str) -> AbstractContextManager[None]: ...  # noqa: D102
    def using(self, user: str) -> AbstractContextManager[CloudClient]: ...  # noqa: D102
    def pause(self, user: str) -> None: ...  # noqa: D102
    def wake(self, user: str) -> None: ...  # noqa: D102
    def lock(self, user: str) -> None: ...  # noqa: D102
    def unlock(self, user: str, key: Secret) -> None: ...  # noqa: D102
    def rekey(self, user: str, old: Secret, new: OwnerSecret) -> None: ...  # noqa: D102
    def recovery(self, user: str, key: Secret) -> RecoveryCode: ...  # noqa: D102
    def lease(self, user: str, ttl_s: float) -> AnyLease: ...  # noqa: D102
    def url(self, user: str) -> str: ...  # noqa: D102
    def forget(self, user: str) -> None: ...  # noqa: D102


class UserCloud:
    """One person's cloud. What needs data wakes it, and it stays awake meanwhile.

    Attributes:
        user: whose it is.
        token: the owner's token, if this handle is the owner's (from `signup`); never shown.
        key: what opens the vault, if it came from `signup`; never shown.
    """

    def __init__(
        self, controller: Keeper, user: str, *, token: str | None = None, key: OwnerSecret | None = None
    ) -> None:
        self.user = user
        self.token = token
        self.key = key
        self._controller = controller

    @property
    def id(self) -> str:
        """32 hex digits; also the user_id of the entries."""
        return self.status.cloud

    @property
    def socket(self) -> Path:
        """Where the cloud answers HTTP on this host while it runs, which for those who ask there takes a lease."""
        return self._controller.socket(self.user)

    @property
    def url(self) -> str:
        """Where other devices reach it, awake or not, while the lab is served. Raises ConfigError: it is not."""
        return self._controller.url(self.user)

    @property
    def status(self) -> CloudStatus:
        """How it stands."""
        return self._controller.status(self.user)

    @property
    def state(self) -> CloudState:
        """What the engine says now; UNKNOWN if it cannot be asked."""
        return CloudState(self.status.state)

    @property
    def stats(self) -> CloudStats:
        """Memory and CPU now."""
        return self._controller.stats(self.user)

    @property
    def policy(self) -> Policy:
        """What the owner permits. Assign to it to permit something else. Owner only."""
        return self._call("policy", Policy)

    @policy.setter
    def policy(self, policy: Policy) -> None:
        self._call("set_policy", Policy, policy)

    def permit(self, *providers: HasPublicKey | str, aggregators: Iterable[HasPublicKey | str] = ()) -> Policy:
        """These providers may ask, through these aggregators, besides those before; returns the new policy."""
        return self._amend(lambda policy: policy.permitting(providers=providers, aggregators=aggregators))

    def forbid(self, *providers: HasPublicKey | str, aggregators: Iterable[HasPublicKey | str] = ()) -> Policy:
        """These providers, and these aggregators, may not any more; returns the new policy.

        What they were answered before stays answered. Raises BadQuery: anyone is permitted.
        """
        return self._amend(lambda policy: policy.forbidding(providers=providers, aggregators=aggregators))

    def _amend(self, change: Callable[[Policy], Policy]) -> Policy:
        """The policy with this change, and with whatever others change at the same time."""
        for _ in range(AMENDMENTS):
            policy = self.policy
            request = AmendRequest(policy=change(policy), version=policy.version)
            with suppress(InUse):
                return self._call("amend_policy", Policy, request)
        raise InUse(f"others changed the policy of {self.user} {AMENDMENTS} times meanwhile")

    def explain(self, ask: Ask) -> Explanation:
        """Whether the policy and what is left of the budget permit this ask, each reason why not, and its cost.

        Nothing is spent, and the provider learns nothing of it. Raises BadQuery: it could never be answered.
        """
        return self._call("explain", Explanation, ask)

    def revoke(self, provider: HasPublicKey | str) -> Policy:
        """From now on the provider gets no answers; what was answered stays with it. Returns the new policy.

        Raises BadQuery: the policy permits anyone, of whom nobody can be left out.
        """
        return self.forbid(provider)

    def me(self, *, earlier: Iterable[Head] = ()) -> Me:
        """Who asked and what it cost, what remains, what was refused and why, the policy in words. Owner only.

        Args:
            earlier: heads of the log that you remember (`me().log.head`): a log that was set back is told from them.
        """
        from emlab.me import gather

        return gather(self._call, self.user, earlier)

    def log(self, *, earlier: Iterable[Head] = ()) -> Log:
        """All that the cloud has logged, and whether its chain of hashes holds; see RECEIPTS.md. Owner only."""
        from emlab.me import read_log

        return read_log(self._call, earlier)

    def delete_period(self, start_ts: float, end_ts: float) -> Deleted:
        """Nothing in the cloud tells of this period any more: no entry of any kind, no result. Owner only.

        Intake then looks at what is around it. What a phone sends again of that time is new data. The log says that
        something was deleted, not what; once begun, a deletion is ended, whatever dies.

        Args:
            start_ts, end_ts: UTC seconds, both included. An entry that lasts into the period goes as a whole.
        Returns:
            how many documents there were in each collection, and what intake did.
        Raises: BadQuery, InUse (a run of intake waits already), StoreError.
        """
        request = DeleteRequest(start_ts=start_ts, end_ts=end_ts)
        return self._call("delete_period", Deleted, request, timeout_s=INTAKE_TIMEOUT_S)

    @property
    def ledger(self) -> LedgerReport:
        """What was asked and spent, and what remains. Owner only."""
        return self._call("ledger", LedgerReport)

    def store(self, entries: Iterable[object], *, partial: bool = False) -> StoreReport:
        """The entries are in the cloud, journaled. Storing the same ones again changes nothing.

        Args:
            entries: e-mission entries in wire form (mappings, as `json.load` gives them).
            partial: store the good ones and count the bad ones, instead of refusing all for one bad.
        Returns:
            how many were received, inserted, replaced, and rejected by reason.
        Raises: BadEntry (its `position` is the index in `entries`; nothing was stored), DiskFull, StoreError.
        """
        if isinstance(entries, (str, bytes, Mapping)) or not isinstance(entries, Iterable):
            raise BadEntry(f"store takes a list of entries, not {type(entries).__name__}")
        raws = [encoded(entry, position) for position, entry in enumerate(entries)]
        batches = batched(raws)
        if len(batches) == 1:
            return self._store(batches[0], partial=partial)
        # one request is checked as a whole by the cloud; several must be checked before the first of them leaves
        rejected = [one for one in parse_each(raws) if isinstance(one, Rejected)]
        if rejected and not partial:
            raise BadEntry(rejected[0].message, rejected[0].position)
        bad = {one.position for one in rejected}
        good = [raw for position, raw in enumerate(raws) if position not in bad]
        reports = [self._store(batch, partial=partial) for batch in batched(good)]
        return summed(reports, rejected)

    def _store(self, batch: list[msgspec.Raw], *, partial: bool) -> StoreReport:
        return self._call("store", StoreReport, StoreRequest(entries=batch, partial=partial), timeout_s=300.0)

    def entries(
        self,
        key: str,
        *,
        start_ts: float | None = None,
        end_ts: float | None = None,
        time_key: str = "data.ts",
        limit: int = MAX_ENTRIES,
    ) -> pd.DataFrame:
        """The entries of one key, by time.

        Args:
            key: such as "background/location".
            start_ts, end_ts: UTC seconds, both included. time_key: the field that they and the order refer to.
            limit: at most so many; a RuntimeWarning says when there are more.
        Returns:
            one row per entry. The index is UTC time (of `time_key`); the columns are the fields of `data`, then
            `_id` and those of `metadata` with the prefix `metadata_`.
        """
        for bound in (start_ts, end_ts):
            if bound is not None and not math.isfinite(bound):
                raise BadQuery(f"start_ts and end_ts are UTC seconds or None, not {bound!r}")
        found = self._found(key, time_key, start_ts=start_ts, end_ts=end_ts, limit=limit)
        return diary.entries(found, time_key)

    def _found(
        self,
        key: str,
        time_key: str,
        *,
        start_ts: float | None = None,
        end_ts: float | None = None,
        limit: int = MAX_ENTRIES,
    ) -> Iterator[dict[str, object]]:
        request = FindRequest(key=key, start_ts=start_ts, end_ts=end_ts, time_key=time_key, limit=limit)
        found = self._call("find", Found, request, timeout_s=300.0)
        if found.more:
            import warnings

            warnings.warn(f"there are more than {limit} entries of {key}", RuntimeWarning, stacklevel=3)
        return (msgspec.json.decode(entry) for entry in found.entries)

    def intake(self, *, lines: Mapping[str, object] | None = None) -> IntakeReport:
        """All raw entries are reflected in trips, sections and places. Again without new data: nothing changes.

        Runs inside the cloud, as a process that is gone afterwards. Owner only.

        Args:
            lines: public transport, so that buses and trains are told from cars: a GeoJSON FeatureCollection, see
                `intake.modes.lines`. It is kept for later runs, and all trips are looked at again; one without
                features forgets it.
        Raises: ConfigError (`lines` are none), InUse (one run is under way, and another one waits), StoreError,
            DiskFull.
        """
        with self._controller.span("intake", self.user):
            request = RunPipeline(lines=None if lines is None else dict(lines))
            return self._call("run_pipeline", IntakeReport, request, timeout_s=INTAKE_TIMEOUT_S)

    def trips(self) -> pd.DataFrame:
        """The trips that intake found; see `diary.trips`. Owner only."""
        return diary.trips(self._found(diary.TRIPS, "data.start_ts"))

    def sections(self) -> pd.DataFrame:
        """The parts of trips, each of one mode; see `diary.sections`. Owner only."""
        inferred, sensed = (self._found(key, "data.start_ts") for key in (diary.SECTIONS, diary.SENSED))
        return diary.sections(inferred, sensed)

    def places(self) -> pd.DataFrame:
        """The stays between trips; see `diary.places`. Owner only."""
        return diary.places(self._found(diary.PLACES, "data.enter_ts"))

    def save_token(self, path: Path | str) -> None:
        """The owner's token is in a file that only this user can read, for `emlab --token-file`. Raises ConfigError."""
        from emlab.files import replacing

        if self.token is None:
            raise NotPermitted(f"only the handle that signup returned has the token of {self.user!r}")
        with replacing(Path(path)) as file:
            file.write(f"{self.token}\n".encode())

    def export(self, path: Path | str | None = None) -> Path:
        """All that the cloud holds is in a file that only this user can read; returns its path. Owner only.

        All entries (raw, formatted, computed, rejected), profile and labels, policy, and the ledger; not the keys and
        the token. See `emlab.archive` for its form, which e-mission's tools read too.

        Args:
            path: ends in .json or .json.gz, or in .gpx for the positions alone; USER.json.gz without it.
        Raises: ConfigError.
        """
        from emlab import archive

        path = Path(f"{self.user}.json.gz" if path is None else path)
        (archive.export_track if ".gpx" in path.suffixes else archive.export)(self._call, path)
        return path

    def import_(
        self, path: Path | str, *, partial: bool = False, with_policy: bool = False, zone: str = "UTC"
    ) -> StoreReport:
        """What the file holds is in the cloud, with its ids and as this person's. Again: nothing changes. Owner only.

        Args:
            path: an archive of `export`, e-mission's JSON, or GPX, each packed or not (see `emlab.files.read`).
            partial: store the good entries and count the bad ones, instead of refusing the file for one bad.
            with_policy: of an archive, permit also what its owner did. What was spent there counts here in any case.
            zone: IANA name of where the phone was, for GPX, which does not say it.
        Raises: BadEntry (nothing was stored), ConfigError, DiskFull, StoreError.
        """
        from emlab import archive

        return archive.load(Path(path), self._call, self.store, partial=partial, with_policy=with_policy, zone=zone)

    def counts(self) -> dict[str, int]:
        """How many entries there are of each key. Owner only."""
        return self._call("counts", dict[str, int])

    def pause(self) -> None:
        """The cloud uses no CPU. Idempotent. Raises InUse under a lease."""
        self._controller.pause(self.user)

    def wake(self) -> None:
        """The cloud runs. Idempotent. Raises Locked."""
        self._controller.wake(self.user)

    def lock(self) -> None:
        """The cloud is stopped and its vault closed: nobody reads it without the key. Idempotent.

        Only this closes the vault; while the cloud is paused it stays open. Raises InUse under a lease, VaultBusy.
        """
        self._controller.lock(self.user)

    def unlock(self, key: Secret) -> None:
        """The vault is open and the cloud runs. Idempotent. Raises WrongKey."""
        self._controller.unlock(self.user, key)

    def rekey(self, old: Secret, new: OwnerSecret) -> None:
        """The vault opens with the new key or passphrase and not with the old one; no data is rewritten.

        Raises WrongKey. A backup of the vault's header from before still opens with the old one.
        """
        self._controller.rekey(self.user, old, new)
        self.key = None if self.key is None else new

    def recovery(self, key: Secret) -> RecoveryCode:
        """A code for paper that opens the vault, too; an earlier one does not any more. Raises WrongKey."""
        return self._controller.recovery(self.user, key)

    def lease(self, ttl_s: float) -> AnyLease:
        """The cloud is not paused for that long, or until the lease is released."""
        return self._controller.lease(self.user, ttl_s)

    def delete(self) -> None:
        """The cloud and its data are gone; only what was spent is remembered."""
        self._controller.forget(self.user)

    def logs(self, lines: int = 50) -> str:
        """The last lines that the cloud printed."""
        return self._controller.logs(self.user, lines)

    def _call(
        self,
        name: str,
        response: type[R],
        request: msgspec.Struct | None = None,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> R:
        if self.token is None:
            raise NotPermitted(
                f"only the owner may do this: use the handle that signup returned, or cloud({self.user!r}, token=...)"
            )
        with self._controller.using(self.user) as client:
            return client.call(name, response, request, token=self.token, timeout_s=timeout_s)

    def __repr__(self) -> str:
        try:
            return f"UserCloud(user={self.user!r}, state={self.state.value})"
        except (UnknownUser, CloudGone, ConfigError):  # to look at a variable must never raise
            return f"UserCloud(user={self.user!r}, gone or in a lab that is closed)"
        except EmlabError as exc:
            return f"UserCloud(user={self.user!r}, state not known: {exc.kind})"

    def _repr_html_(self) -> str:
        try:
            return Clouds([self])._repr_html_()
        except EmlabError:
            return f"<p>{escape(repr(self))}</p>"
