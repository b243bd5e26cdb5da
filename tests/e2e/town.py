"""Random use of a served lab's clouds by several threads, a diary of it, and what in the diary must not be."""

from __future__ import annotations

import itertools
import random
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import emlab as em
from emlab.ask import Answer, Ask, Outcome
from emlab.clock import SYSTEM_CLOCK
from emlab.errors import EmlabError
from emlab.record import Event
from emlab.remote import ControllerClient
from tests.e2e.clouds import entry

LOCKABLE = 4  # people whose clouds are locked now and then
COST_MICRO = 1000  # of an ask
KEY = "background/location"
SHUT = {"Locked", "InUse"}
BROKEN = {"Unreachable", "CloudGone"}


@dataclass(frozen=True)
class Deed:
    """One thing that somebody did, and how it ended. `user` is "" for what concerns many clouds."""

    what: str
    user: str
    start_ts: float
    end_ts: float
    error: EmlabError | None


@dataclass(frozen=True)
class Kill:
    """A program died: of that user's cloud, or the controller, which was back at `back_ts`."""

    user: str
    program: str
    ts: float
    back_ts: float = 0.0


@dataclass
class Diary:
    """What happened. Lists and counters are appended to by many threads, which is atomic."""

    deeds: list[Deed] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    leases: list[tuple[str, float, float]] = field(default_factory=list)  # user, from, to
    kept: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))  # entries acknowledged
    sent: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    answers: list[tuple[str, str]] = field(default_factory=list)  # id of the ask, alias of the cloud
    asks: list[str] = field(default_factory=list)

    @contextmanager
    def doing(self, what: str, user: str = "") -> Iterator[None]:
        """What the block does is written down, and an error of ours ends it alone."""
        start_ts, error = SYSTEM_CLOCK.now(), None
        try:
            yield
        except EmlabError as exc:
            error = exc
        self.deeds.append(Deed(what, user, start_ts, SYSTEM_CLOCK.now(), error))


class Asking(ControllerClient):
    """Writes down which cloud has answered which ask."""

    def __init__(self, url: str, token: str, diary: Diary) -> None:
        super().__init__(url, token)
        self.diary = diary

    def put(self, ask: Ask, signature: bytes, alias: str, *, token: str, timeout_s: float) -> Outcome:
        outcome = super().put(ask, signature, alias, token=token, timeout_s=timeout_s)
        if isinstance(outcome, Answer):
            self.diary.answers.append((ask.id, alias))
        return outcome


class Town:
    """The people of a served lab, whom several threads serve at random, until it is told to stop."""

    def __init__(
        self, diary: Diary, owned: dict[str, em.UserCloud], connect: Callable[[], ControllerClient], *, seed: int
    ) -> None:
        self.diary = diary
        self._seed = seed
        self.stop = threading.Event()
        self._owned = owned  # with token and key
        self._users = sorted(owned)
        self._connect = connect
        self._numbers = itertools.count()
        self._seen = 0

    def work(self, number: int) -> None:
        """One thread's random deeds."""
        draw = random.Random(f"{self._seed} {number}")
        deeds = {self._store: 40, self._read: 25, self._lease: 12, self._pause: 15, self._lock: 3, self._status: 5}
        with self._connect() as client:
            while not self.stop.wait(draw.uniform(0.0, 0.05)):
                (deed,) = draw.choices(list(deeds), list(deeds.values()))
                deed(client, draw, draw.choice(self._users))

    def _cloud(self, client: ControllerClient, user: str) -> em.UserCloud:
        return em.UserCloud(client, user, token=self._owned[user].token)

    def _store(self, client: ControllerClient, draw: random.Random, user: str) -> None:
        numbers = list(itertools.islice(self._numbers, draw.randint(1, 5)))
        self.diary.sent[user] += numbers
        with self.diary.doing("store", user):
            report = self._cloud(client, user).store([entry(number) for number in numbers])
            assert not report.rejected
            self.diary.kept[user] += numbers

    def _read(self, client: ControllerClient, draw: random.Random, user: str) -> None:
        least = len(self.diary.kept[user])
        with self.diary.doing("read", user):
            assert self._cloud(client, user).counts().get(KEY, 0) >= least

    def _lease(self, client: ControllerClient, draw: random.Random, user: str) -> None:
        hold_s, ttl_s = draw.uniform(0.1, 1.5), draw.uniform(0.5, 2.0)
        with self.diary.doing("lease", user):
            lease = client.lease(user, ttl_s)
            from_ts = SYSTEM_CLOCK.now()
            self._read(client, draw, user)
            self.stop.wait(hold_s)
            self.diary.leases.append((user, from_ts, min(SYSTEM_CLOCK.now(), lease.until_ts)))
            lease.release()

    def _pause(self, client: ControllerClient, draw: random.Random, user: str) -> None:
        with self.diary.doing("pause", user):
            client.pause(user)

    def _lock(self, client: ControllerClient, draw: random.Random, user: str) -> None:
        user = self._users[draw.randrange(LOCKABLE)]
        with self.diary.doing("lock", user):
            client.lock(user)
        self.stop.wait(draw.uniform(0.0, 0.5))
        key = self._owned[user].key
        assert key is not None
        with self.diary.doing("unlock", user):
            client.unlock(user, key)

    def _status(self, client: ControllerClient, draw: random.Random, user: str) -> None:
        with self.diary.doing("status"):
            assert sorted(status.user for status in client.clouds().statuses()) == self._users

    def ask(self, provider: em.Provider) -> None:
        """Asks everybody, again and again."""
        while not self.stop.wait(1.0):
            self.diary.asks.append("")
            with self.diary.doing("ask"):
                query = em.CountUsers(None, start_ts=0.0, end_ts=2e9)
                release = provider.ask(query, epsilon=COST_MICRO / 1e6, min_users=1, timeout_s=10.0, progress=False)
                died = {kind for kill in self.diary.kills for kind in _kinds(kill)}
                assert set(release.reasons) <= SHUT | died, release.reasons

    def watch(self, client: ControllerClient) -> None:
        """What has happened in the controller is in the diary."""
        events, self._seen = client.events(self._seen)
        self.diary.events += events

    def forget_count(self) -> None:
        """The next controller counts its events anew."""
        self._seen = 0


def unexplained(diary: Diary) -> list[str]:
    """The errors that nothing explains: no lock, no lease, no program that had just died."""
    return [
        f"{deed.what} of {deed.user or 'all'}: {deed.error.kind}: {deed.error}"
        for deed in diary.deeds
        if deed.error is not None and not _explained(deed, diary)
    ]


def _explained(deed: Deed, diary: Diary) -> bool:
    assert deed.error is not None
    away = any(not kill.user and kill.ts <= deed.end_ts and deed.start_ts <= kill.back_ts for kill in diary.kills)
    if away and (deed.error.kind in BROKEN or (deed.what, deed.error.kind) == ("ask", "TooFewUsers")):
        return True  # an ask that reached no cloud is still released, by the controller that is back: as one of nobody
    if deed.error.kind == "InUse":
        return deed.what in ("pause", "lock")
    if deed.error.kind == "Locked":
        return deed.user in {other.user for other in diary.deeds if other.what == "lock"}
    return any(deed.error.kind in _kinds(kill) and _is_hurt(deed, kill, diary) for kill in diary.kills)


def _kinds(kill: Kill) -> set[str]:
    """How the first use after it may fail: a custodian says that its mongod has died before it ends itself."""
    return BROKEN | {"StoreError"} if kill.program == "mongod" else BROKEN


def _is_hurt(deed: Deed, kill: Kill, diary: Diary) -> bool:
    """Whether that was the first use of a cloud since its program died."""
    used = ("store", "read")
    healed = (
        other.end_ts
        for other in diary.deeds
        if (other.user, other.error) == (kill.user, None) and other.what in used and other.start_ts > kill.ts
    )
    return kill.user == deed.user and kill.ts <= deed.end_ts and deed.start_ts <= min(healed, default=deed.end_ts)


def broken_leases(diary: Diary) -> list[str]:
    """The pauses and locks of a cloud that began while it was leased; a lease outlives its controller."""
    return [
        f"{event.span} of {user} {event.start_ts - from_ts:.4f} s after its lease began"
        for user, from_ts, until_ts in diary.leases
        for event in diary.events
        if event.user == user and event.span in ("pause", "lock") and event.ok
        if from_ts <= event.start_ts < until_ts
    ]
