"""The life of one cloud between its engine and its vault: start, pause, wake, lock, unlock, use.

The engine is asked for the state each time. A lock per cloud orders what threads do to it. Leases have a lock of
their own, so that a start, which takes long, hides them from nobody. Nothing pauses a cloud that somebody has begun to
use: a use is noted before it waits for the cloud's lock, and a pause looks for uses once it has that lock.
"""

from __future__ import annotations

import logging
import math
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from emlab import provision as provisioning
from emlab.clock import Clock
from emlab.engines.base import Engine
from emlab.errors import CloudGone, DiskFull, EmlabError, EngineError, InUse, Locked, Unreachable, VaultError
from emlab.gate import Gate
from emlab.idle import Past, Use
from emlab.key import OwnerSecret, Secret
from emlab.provision import Provision
from emlab.record import Recorder
from emlab.state import CloudSpec, CloudState, Handle
from emlab.uses import Uses
from emlab.vaults.base import Found, Vault
from emlab.wire.client import CloudClient

log = logging.getLogger(__name__)
# Of all clouds of this process together: with 50 calls at once Docker failed to freeze 2 of 150, with 4 none of 100.
# Starts have a gate of their own, because one takes a hundred times as long as a wake.
CALLS, STARTS = Gate("calls to the engine", 4), Gate("starts of clouds", 8)


class Lifecycle:
    """One cloud. Thread-safe; every method blocks.

    Args:
        spec: what the engine is told. vault: its data's vault. provision: makes the file for the next start.
        intend: keeps what is begun with the vault ("lock", "unlock"), so that it is ended after a crash; "" when it is.
        handle: as found by the engine after a restart of this process; None for a new cloud.
        past: of its uses, as kept then.
    """

    def __init__(
        self,
        spec: CloudSpec,
        *,
        engine: Engine,
        vault: Vault,
        provision: Callable[[], Provision],
        intend: Callable[[str], None],
        recorder: Recorder,
        clock: Clock,
        handle: Handle | None = None,
        past: Past | None = None,
    ) -> None:
        self.spec = spec
        self._engine = engine
        self.vault = vault
        self.closing = False  # the vault is to be closed, but could not be yet; a lock sets it under `_leasing`
        self._retired = False  # it is being removed, and must take nothing more
        # Whether the cloud is known to run: set once it woke, and cleared before anything that stops it looks for
        # leases. Who takes a lease and then reads True has a cloud that nothing here pauses before the release: a pause
        # that had begun would have cleared it, and one that begins later finds the lease. Who goes by it alone (the
        # gateway) does not look whether the vault is still open, as `using` does; the next sweep does.
        self.runs = False
        self.sleeps = False  # it was paused here, and nothing was done to it since: to wake it is to resume it
        self._provision = provision
        self._intend = intend
        self._recorder = recorder
        self._clock = clock
        self._handle = handle
        self._lock = threading.RLock()
        self._leasing = threading.Lock()  # held for a moment: a lock finds each lease that was granted before it began
        self._client: CloudClient | None = None
        self._uses = Uses(spec.cloud, clock, past)

    @property
    def state(self) -> CloudState:
        """What the engine says now."""
        handle = self._handle  # once: another thread may destroy the cloud meanwhile
        return CloudState.ABSENT if handle is None else self._engine.state(handle)

    @property
    def is_open(self) -> bool:
        """Whether the vault is open."""
        return self.vault.is_open

    @property
    def handle(self) -> Handle:
        """The engine's handle. Raises CloudGone before the first start."""
        handle = self._handle
        if handle is None:
            raise CloudGone(f"the cloud of {self.spec.user} was never started")
        return handle

    def use(self) -> Use:
        """Last use and leases, for an idle rule."""
        return self._uses.now()

    def lease(self, until_ts: float) -> int:
        """The cloud is in use until then; returns the lease's number.

        Raises: CloudGone, Locked: it is being removed, or is locked, which nobody can be told to stay awake.
        """
        with self._leasing:
            self.check_usable()
            self._check_open()
            return self._uses.begin(until_ts)

    def begin_use(self, until_ts: float = math.inf) -> int:
        """The cloud is in use until then, or until `release`; returns the lease's number.

        Neither blocks nor wakes it (see `runs`), nor looks whether it can be used.
        """
        return self._uses.begin(until_ts)

    def release(self, number: int, *, answered: bool = False) -> None:
        """That lease has ended, which counts as a use, unless the cloud could not be woken. Idempotent.

        Args:
            answered: the cloud was woken or has answered, whatever is known of it here: it may answer before who woke
                it has said so.
        """
        self._uses.end(number, used=answered or self.runs or self.sleeps)

    def past(self) -> Past:
        """What is to be kept of its uses."""
        return self._uses.past()

    def end_leases(self) -> None:
        """No lease holds the cloud any more: for the end of a whole lab."""
        self._uses.clear()

    def create(self, key: OwnerSecret, marker: str) -> None:
        """The vault exists, open and marked, and the cloud answers."""
        with self._lock:
            self.check_stays()
            self.vault.create(key)
            provisioning.write_marker(self.vault.open(key), marker)
            self._start()

    def wake(self, timeout_s: float | None = None) -> bool:
        """The cloud runs; whether it did not before. A paused one is resumed, a stopped or dead one started.

        Args:
            timeout_s: wait at most that long while another thread starts, pauses or locks the cloud, and for a turn
                among those who wake others; None: for ever.
        Raises: Locked, Unreachable (it was busy, or the engine was, for that long).
        """
        with self._alone(timeout_s) as left_s:
            return self._wake(left_s)

    def pause(self) -> bool:
        """The cloud uses no CPU; whether it ran before. A stopped one stays stopped. Raises InUse under a lease."""
        with self._lock:
            ran, self.runs = self.runs, False
            if self.use().leased(self._clock.now()):
                self.runs = ran
                raise InUse(f"the cloud of {self.spec.user} is in use; it pauses when its lease ends")
            if self.state is not CloudState.RUNNING:
                return False
            with self._span("pause"), CALLS.through():
                self._freeze()
            self.sleeps = True
            return True

    def _freeze(self) -> None:
        """The engine has paused the cloud. One that failed is tried once more."""
        try:
            self._engine.pause(self.handle)
        except EngineError as exc:
            log.warning("a pause of the cloud of %s failed, once more: %s", self.spec.user, exc)
            self._engine.pause(self.handle)

    def lock(self, *, unused_since: float = math.inf) -> bool:
        """The cloud is stopped and its vault closed; whether it was not before. Idempotent.

        Args:
            unused_since: only if nobody has used or unlocked it after that (UTC seconds): what a rule decides may be
                out of date when its turn comes.
        Raises: InUse (under a lease, or used since; nothing changes), EngineError, VaultBusy (somebody else uses the
            vault). After these two the cloud is not woken any more, and `closing` says that `end_lock` is called for.
        """
        with self._lock:
            ran, self.runs = self.runs, False
            with self._leasing:
                use = self.use()
                is_used = use.leased(self._clock.now()) or use.last_use_ts > unused_since
                is_open = self.vault.is_open
                # who begins a use after a lock has begun gets nothing of the cloud, and must not keep its vault open
                if is_used and not self.closing and is_open:
                    self.runs = ran
                    raise InUse(f"the cloud of {self.spec.user} is in use; it locks when its lease ends")
                did = self.closing or is_open
                self._begin_lock()
            with self._span("lock"):
                self._shut()
            return did

    def end_lock(self) -> bool:
        """A lock that was begun is ended, unless the owner's key has taken the cloud back meanwhile. As `lock`."""
        with self._lock:
            return self.closing and self.lock()

    def _begin_lock(self) -> None:
        self._intend("lock")
        self.closing = True

    def _shut(self) -> None:
        self._stop()
        self.vault.close()
        self._settle()

    def _settle(self) -> None:
        """What was begun with the vault is ended."""
        self.closing = False
        self._intend("")

    def unlock(self, key: Secret) -> None:
        """The vault is open and the cloud runs. Idempotent.

        Raises: WrongKey, EngineError and others; a vault that was closed is closed then.
        """
        with self._span("unlock"):
            self.check_stays()
            try:
                self.vault.check(key)  # not under the lock: whoever wakes the cloud would wait for what that takes
            except VaultError:
                self.check_stays()  # a vault that was removed meanwhile is none
                raise
            with self._lock:
                self._unlock(key)

    def _unlock(self, key: Secret) -> None:
        self.check_stays()
        if self.vault.is_open:
            self.vault.open(key)
            self._settle()
            self._wake()
        else:
            self._open(key)
        self._uses.end(self.begin_use())  # who unlocks a cloud uses it

    def _open(self, key: Secret) -> None:
        self.end_bereft()
        self._intend("unlock")
        try:
            self.vault.open(key)
            self.closing = False
            self._wake()
        except BaseException:
            self._try("close", self._close)
            raise
        self._intend("")

    def _close(self) -> None:
        with self._leasing:
            self._begin_lock()
        self._shut()

    @property
    def is_bereft(self) -> bool:
        """Whether it runs or is paused, and its vault is not open any more: its daemon died, or it was unmounted."""
        return not self.vault.is_open and self.state in (CloudState.RUNNING, CloudState.PAUSED)

    def end_bereft(self) -> bool:
        """If the cloud has lost its vault, it has ended in order: it would never see what is mounted there anew."""
        with self._lock:
            if not self.is_bereft:
                return False
            log.warning("the cloud of %s has lost its vault and is stopped; unlock it", self.spec.user)
            self._stop()
            self.vault.repair()
            return True

    def end(self) -> None:
        """The cloud has ended in order, leases or not; the next use starts it anew. The vault stays as it is."""
        with self._lock:
            if self.state in (CloudState.RUNNING, CloudState.PAUSED):
                self._stop()

    def repair(self, intent: str) -> None:
        """After a crash the vault is as it should be: one that was being opened or closed is closed.

        A mount that died is closed, too; an open vault whose cloud has ended stays open, for the next use to start it.
        What cannot be done is logged, so that it stops no other cloud.

        Args:
            intent: "lock" or "unlock" if that was interrupted, else empty.
        """
        with self._lock:
            self.closing = bool(intent)
            self._try("repair", lambda: self._repair(intent))

    def _repair(self, intent: str) -> None:
        if intent:
            self._close()
            log.warning("the %s of %s was interrupted; its vault is closed now", intent, self.spec.user)
        elif not self.vault.is_open:
            self.end_bereft()
            if self.vault.repair() is Found.DEAD:
                log.warning("the vault of %s had lost its mount; unlock it with the owner's key", self.spec.user)
        elif self.state not in (CloudState.RUNNING, CloudState.PAUSED):
            log.warning("the vault of %s is open and its cloud has ended; the next use starts it", self.spec.user)

    def _try(self, what: str, act: Callable[[], object]) -> None:
        try:
            act()
        except (EmlabError, OSError) as exc:  # one cloud must not keep the others from their owners
            log.warning("cannot %s the vault of %s: %s", what, self.spec.user, exc)

    def retire(self) -> None:
        """Nobody wakes or uses the cloud any more: it is about to be destroyed."""
        self._retired, self.runs = True, False

    def destroy(self, data_dir: Path) -> None:
        """Engine, run directory, vault and data know nothing of the cloud any more. Idempotent.

        First the keys of the vault are shredded: whatever fails then, what is on disk is unreadable once it is closed.
        """
        with self._lock:
            self.retire()
            self.vault.shred_keys()
            self._close_client()
            self._engine.remove(self._handle or self._expected())
            self._handle = None
            self.vault.shred()
            for directory in (self.spec.run_dir, data_dir):
                if directory.exists():
                    shutil.rmtree(directory)

    def _expected(self) -> Handle:
        """What the engine would know the cloud by: a start that failed may have left something of it."""
        spec = self.spec
        return Handle(spec.lab, spec.cloud, spec.generation, spec.run_dir)

    @contextmanager
    def using(self, timeout_s: float | None = None) -> Iterator[CloudClient]:
        """A client of the running cloud, which stays awake until the block ends. Arguments and errors as of `wake`."""
        number, woken = self.begin_use(), False
        try:
            with self._alone(timeout_s) as left_s:
                self._wake(left_s)
                woken = True
                client = self._connect()
            yield client
        except DiskFull as exc:  # a container names its own path
            raise DiskFull(f"{exc} (cloud of {self.spec.user}, on this host {self.spec.vault_dir})") from exc
        finally:
            self.release(number, answered=woken)

    def detach(self) -> None:
        """Connections are closed; the cloud is left as it is."""
        with self._lock:
            self._close_client()

    @contextmanager
    def _alone(self, timeout_s: float | None) -> Iterator[float | None]:
        """The cloud's lock is held; what is left of the time. Raises Unreachable: another thread has it for so long."""
        start = self._clock.monotonic()
        if not self._lock.acquire(timeout=-1 if timeout_s is None else max(timeout_s, 0.0)):
            raise Unreachable(f"the cloud of {self.spec.user} was busy for {timeout_s:g} s")
        try:
            yield None if timeout_s is None else max(timeout_s - (self._clock.monotonic() - start), 0.0)
        finally:
            self._lock.release()

    def rouse(self, timeout_s: float | None = None) -> bool:
        """Whether a cloud that was paused here runs again. False: `wake` has to look at it, which may take long.

        Args:
            timeout_s: wait at most that long for a turn among those who wake others; None: for ever.
        Raises: Unreachable: there was none.
        """
        if not self._lock.acquire(blocking=False):  # somebody else has it: who wakes other clouds must not wait
            return False
        try:
            return not self.closing and not self._retired and self.vault.is_open and self._roused(timeout_s)
        finally:
            self._lock.release()

    def _roused(self, timeout_s: float | None) -> bool:
        sleeps, self.sleeps = self.sleeps, False
        if sleeps:  # asking the engine for the state before would take a third as long as resuming
            with suppress(EngineError):  # it may have ended in its sleep, which the state will say
                self._resume(timeout_s)
                return True
        return False

    def _wake(self, timeout_s: float | None = None) -> bool:
        self.check_usable()
        if not self.vault.is_open:  # asked at each use, since nobody tells when a mount goes
            self._try("close", self.end_bereft)
            self._check_open()
        if self._roused(timeout_s):
            return True
        state = self.state
        if state is CloudState.PAUSED:
            self._resume(timeout_s)
        elif state is not CloudState.RUNNING:
            self._start(timeout_s)
        self.runs = True
        return state is not CloudState.RUNNING

    def _check_open(self) -> None:
        if not self.vault.is_open:
            raise Locked(f"the vault of {self.spec.user} is closed; unlock it with the owner's key")

    def check_usable(self) -> None:
        """Returns unless it is being removed, or locked: even while it still runs, it then takes nothing more.

        Does not block. Raises CloudGone, Locked.
        """
        self.check_stays()
        if self.closing:
            raise Locked(f"the cloud of {self.spec.user} is being locked; unlock it with the owner's key")

    def check_stays(self) -> None:
        """Returns unless it is being removed. Does not block. Raises CloudGone."""
        if self._retired:
            raise CloudGone(f"the cloud of {self.spec.user} is being removed")

    def _resume(self, timeout_s: float | None) -> None:
        self._close_client()  # the time for which the cloud keeps a connection ran on while it slept
        with self._span("wake"), CALLS.through(timeout_s):
            self._engine.resume(self.handle)
        self.runs = True

    def _start(self, timeout_s: float | None = None) -> None:
        self._close_client()
        with self._span("start"), STARTS.through(timeout_s):
            provisioning.write(self.spec.run_dir, self._provision())
            self._handle = self._engine.start(self.spec)

    def _stop(self) -> None:
        self.runs = self.sleeps = False
        self._close_client()
        if self._handle is not None:
            self._engine.stop(self._handle)

    def _connect(self) -> CloudClient:
        if self._client is None:
            self._client = CloudClient(self._engine.connect(self.handle))
        return self._client

    def _close_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    @contextmanager
    def _span(self, name: str) -> Iterator[None]:
        with self._recorder.span(name, user=self.spec.user, engine=self._engine.name):
            yield
