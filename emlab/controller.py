"""The controller: creates, finds, pauses, wakes, locks and forgets clouds, and admits providers to them.

It opens vaults with the owner's key and reads no data. What an owner or a provider may do is checked again by each
cloud: the controller cannot widen a policy.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType

from emlab import ask as asking
from emlab import sweeping
from emlab.admission import Admission
from emlab.aggregator import Aggregator
from emlab.arguments import check_key, check_lease, check_name, check_policy, check_vault
from emlab.ask import Ask, Outcome
from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.clouds import Clouds, state_of, states_of, status_of
from emlab.engines.base import SOCKET, Engine
from emlab.errors import CloudGone, ConfigError
from emlab.fanout import fan_out
from emlab.idle import IdleRule, Never, Sooner, check_rule
from emlab.key import Key, OwnerSecret, RecoveryCode, Secret, SigningKey
from emlab.lease import Lease
from emlab.lifecycle import Lifecycle
from emlab.lives import Lives, unknown
from emlab.policy import Policy
from emlab.provider import Provider, Releasing
from emlab.provision import OwnerToken, Provision, new_marker
from emlab.record import Recorder
from emlab.registry import LEAVING, CloudRow, Registry
from emlab.removal import Removal
from emlab.state import CloudStats
from emlab.tokens import Tokens
from emlab.usercloud import UserCloud
from emlab.vaults.base import Vault
from emlab.wire.client import CloudClient
from emlab.wire.control import CloudStatus
from emlab.wire.table import Health

log = logging.getLogger(__name__)


class Controller:
    """Starts, finds, pauses, wakes and locks the clouds of one lab. Thread-safe. A context manager.

    Args:
        engine: what runs the clouds. vault: makes the vault in a directory. registry: open.
        lab, home, lab_dir: the lab's name, the emlab home, the lab's directory in it.
        policy: of clouds whose owner names none. aggregator: of the providers. idle: which clouds `sweep` pauses.
    """

    at_once = 64  # asks: they only wait for their clouds, and few calls reach the engine at once anyway

    def __init__(
        self,
        engine: Engine,
        vault: Callable[[Path], Vault],
        registry: Registry,
        *,
        lab: str,
        home: Path,
        lab_dir: Path,
        policy: Policy,
        aggregator: Aggregator,
        idle: IdleRule | None = None,
        recorder: Recorder | None = None,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.engine, self.lab = engine, lab
        self.recorder = Recorder(clock) if recorder is None else recorder
        self._idle: IdleRule = Never() if idle is None else idle
        self.on_sweep: Callable[[str, str], object] = lambda action, user: None  # is told what one did to whose cloud
        self._vault = vault
        self._registry = registry
        self._dir = lab_dir
        self._policy = policy
        self.aggregator = aggregator
        self._clock = clock
        self._signing = SigningKey(registry.secret("controller"))
        self.tokens = Tokens(registry, clock=clock)
        self._lives = Lives(
            engine,
            vault,
            registry,
            lab=lab,
            home=home,
            lab_dir=lab_dir,
            provision=self._provision,
            recorder=self.recorder,
            clock=clock,
        )
        self.admission = Admission(
            registry,
            self.tokens,
            self._lives.behind,
            engine=engine.name,
            signing=self._signing,
            recorder=self.recorder,
            clock=clock,
        )
        self._removal = Removal(registry, self._lives, self.tokens)
        self._lock = threading.Lock()
        self._providers: dict[str, Provider] = {}

    # -- the lab's life ----------------------------------------------------------------------------------------

    def attach(self) -> None:
        """Clouds of this lab that the engine has are found again; what a crash left half done is undone.

        Raises: EngineError.
        """
        found = {handle.cloud: handle for handle in self.engine.find(self.lab)}
        for row in self._registry.clouds():
            life = self._lives.begin(row, found.pop(row.cloud, None))
            if row.intent in LEAVING:
                self._removal.leave(row)
            else:
                life.repair(row.intent)
        for orphan in found.values():
            log.warning("the cloud %s is not in the registry, and left alone: `emlab clean` removes it", orphan.cloud)

    def detach(self) -> None:
        """Connections are closed; the clouds are left as they are. Idempotent."""
        self._lives.detach()

    def __enter__(self) -> Controller:
        self.attach()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.detach()

    def _provision(self, cloud: str) -> Provision:
        row = self._registry.by_cloud(cloud)
        if row is None:
            raise CloudGone(f"the cloud {cloud} is gone")
        return Provision(
            lab=self.lab,
            cloud=row.cloud,
            generation=row.generation,
            owner_tokens=[OwnerToken(*known) for known in self.tokens.hashes("owner", row.user).items()],
            controller=self._signing.public,
            policy=Policy.closed(),
            spent=row.carried,
            ledger_seq=row.ledger_seq,
            marker=row.marker,
        )

    # -- people ------------------------------------------------------------------------------------------------

    def signup(
        self,
        user: str,
        *,
        policy: Policy | None = None,
        key: OwnerSecret | None = None,
        token_ttl_s: float | None = None,
    ) -> UserCloud:
        """The user has a cloud of their own, which answers.

        Args:
            user: 1 to 64 of letters, digits and ._@+-, beginning with a letter or digit.
            policy: what the owner permits; the lab's default without it. It is kept in the vault, and nowhere else.
            key: opens the vault; a fresh random one without it. It is not kept: the returned cloud has it.
            token_ttl_s: until the owner's token expires; never without it.
        Returns:
            the owner's handle; the token in it is shown only now.
        Raises: ConfigError (bad name, the user has a cloud, or the policy refuses this lab's vaults), BadQuery (a place
            of the policy is none), EngineError; nothing is left behind then, or the log
            says what could not be removed, and the next sweep or attach tries again.
        """
        check_name("user", user)
        key = Key.random() if key is None else key
        check_key(key)
        policy = self._policy if policy is None else policy
        check_policy(policy)
        check_vault(policy, self._vault(self._dir).name)
        row = self._new_row(user)
        with self.span("signup", user):
            self._registry.add(row)  # before anything is made, so that a crash leaves nothing unknown
            try:
                life = self._lives.begin(row)
                token, _ = self.tokens.issue("owner", user, ttl_s=token_ttl_s)
                life.create(key, row.marker)
                with life.using() as client:
                    # only now, by the owner's route into the vault: the provisioning file, which lies outside, has a
                    # closed policy, and if this process dies before, the cloud goes
                    client.call("set_policy", Policy, policy, token=token)
                    health = client.call("health", Health)
                if not self._registry.born(row.cloud, health.public):
                    raise CloudGone(f"the cloud of {user} was forgotten while it came to be")
            except BaseException:
                self._removal.leave(row)
                raise
        log.info("cloud of %s signed up on %s", user, self.engine.name)
        return UserCloud(self, user, token=token, key=key)

    def _new_row(self, user: str) -> CloudRow:
        before = self._registry.tombstone(user)
        cloud = asking.new_id()
        return CloudRow(
            user=user,
            cloud=cloud,
            generation=before.generation + 1,
            marker=new_marker(),
            created_ts=self._clock.now(),
            carried=before.spent,
            intent="signup",
        )

    def forget(self, user: str) -> None:
        """The user's cloud and data are gone; what was spent is remembered for a next sign-up.

        Raises: UnknownUser; EngineError and others: nobody can use the cloud any more, and sweeps try again.
        """
        life = self.life(user)
        with self.span("forget", user):
            row = self._registry.leave(life.spec.cloud)
            if row is None:  # somebody else has forgotten it meanwhile
                raise unknown(user, self.lab)
            self._removal.remove(row)
        log.info("cloud of %s forgotten", user)

    def discard(self, user: str) -> None:
        """The user's cloud and data are gone and nothing is remembered: for the end of a whole lab. Idempotent."""
        row = self._registry.cloud(user)
        if row is not None:
            self._removal.destroy(row)

    def cloud(self, user: str, *, token: str | None = None) -> UserCloud:
        """A handle to the user's cloud; the owner's own routes need the owner's token. Raises UnknownUser."""
        self._row(user)
        return UserCloud(self, user, token=token)

    def clouds(self) -> Clouds:
        """All clouds of the lab, in order of sign-up; a table in a notebook, `.frame()` for a DataFrame."""
        return Clouds([UserCloud(self, row.user) for row in self._registry.clouds()], self._statuses)

    def _statuses(self) -> list[CloudStatus]:
        """How all clouds stand, now."""
        lives, now = list(self._lives), self._clock.now()
        states = states_of(self.engine, self.lab, lives)
        return [status_of(life, states[life.spec.cloud], now) for life in lives]

    def life_of(self, cloud: str) -> Lifecycle | None:
        """The life of the cloud with this id; None if there is none. Does not block."""
        return self._lives.by_cloud.get(cloud)

    def status(self, user: str) -> CloudStatus:
        """How the user's cloud stands, now. Raises UnknownUser."""
        life = self.life(user)
        return status_of(life, state_of(life), self._clock.now())

    def stats(self, user: str) -> CloudStats:
        """Memory and CPU of the user's cloud now. Raises UnknownUser, CloudGone."""
        return self.engine.stats(self.life(user).handle)

    def logs(self, user: str, lines: int = 50) -> str:
        """The last lines that the user's cloud printed. Raises UnknownUser."""
        return self.engine.logs(self.life(user).handle, lines)

    def socket(self, user: str) -> Path:
        """Where the user's cloud answers HTTP on this host while it runs. Raises UnknownUser."""
        return self.life(user).spec.run_dir / SOCKET

    def url(self, user: str) -> str:
        """Where other devices reach the user's cloud. Raises ConfigError: here only `emlab serve` lets them."""
        raise ConfigError(f"the cloud of {user} is reached from elsewhere once the lab is served: emlab serve")

    def span(self, name: str, user: str) -> AbstractContextManager[None]:
        """What the block does for the user is recorded under this name."""
        return self.recorder.span(name, user=user, engine=self.engine.name)

    def _row(self, user: str) -> CloudRow:
        row = self._registry.cloud(user)
        if row is None:
            raise unknown(user, self.lab)
        return row

    def life(self, user: str) -> Lifecycle:
        """The life of the user's cloud, for its handle. Raises UnknownUser."""
        return self._lives.of(user)

    # -- pausing and waking ------------------------------------------------------------------------------------

    def pause(self, user: str) -> None:
        """The user's cloud uses no CPU. Idempotent. Raises UnknownUser, InUse."""
        self.life(user).pause()

    def wake(self, user: str) -> None:
        """The user's cloud runs, which counts as a use. Idempotent. Raises UnknownUser, Locked."""
        with self.life(user).using():
            pass

    def lock(self, user: str) -> None:
        """The user's cloud is stopped, its vault closed. Idempotent. Raises UnknownUser, InUse, VaultBusy."""
        self.life(user).lock()

    def unlock(self, user: str, key: Secret) -> None:
        """The user's vault is open, the cloud runs. Idempotent. Raises UnknownUser, WrongKey."""
        self.life(user).unlock(key)

    def rekey(self, user: str, old: Secret, new: OwnerSecret) -> None:
        """The user's vault opens with the new secret and not with the old one. Raises UnknownUser, WrongKey."""
        check_key(new)
        with self.span("rekey", user):
            self.life(user).vault.rekey(old, new)

    def recovery(self, user: str, key: Secret) -> RecoveryCode:
        """A new code that opens the user's vault, too, and the only one. Raises UnknownUser, WrongKey."""
        with self.span("recovery", user):
            return self.life(user).vault.recovery(key)

    def lease(self, user: str, ttl_s: float) -> Lease:
        """The user's cloud is not paused for that long (at most a day). Does not wake it.

        Raises: UnknownUser, Locked, CloudGone.
        """
        check_lease(ttl_s)
        return Lease(self.life(user), self._clock.now() + float(ttl_s), clock=self._clock)

    @contextmanager
    def using(self, user: str) -> Iterator[CloudClient]:
        """A client of the user's cloud, which is woken and stays awake until the block ends."""
        with self.life(user).using() as client:
            yield client

    @property
    def idle(self) -> IdleRule:
        """Which clouds `sweep` pauses. Raises ConfigError: what is assigned is no rule."""
        return self._idle

    @idle.setter
    def idle(self, rule: IdleRule) -> None:
        check_rule(rule)
        self._idle = rule

    def sweep(self, ends: Callable[[], bool] = lambda: False) -> list[str]:
        """The users whose clouds the idle rule, or an owner's policy, has paused or locked; see `sweeping.sweep`.

        Before, clouds that could not be removed when they were to be are tried again.

        Args:
            ends: asked before each cloud whether the rest is to be left as it is.
        """
        self._removal.again()
        states = states_of(self.engine, self.lab, self._lives)
        rule = Sooner(self.idle, sweeping.limits(self._lives))
        lives = dict(self._lives.by_user)
        done = sweeping.sweep(lives, states, rule, self._clock.now(), tell=self.on_sweep, ends=ends)
        self._lives.remember()
        return done

    # -- providers ---------------------------------------------------------------------------------------------

    def register_provider(
        self, name: str, *, key: SigningKey | None = None, aggregator: Releasing | None = None
    ) -> Provider:
        """The provider of this name may ask; each cloud's owner still decides.

        Args:
            aggregator: which adds the noise, such as an `AggregatorClient`; the lab's own without it. Owners permit it
                by its key.
        Registered before in this process, the same one is returned. Raises ConfigError: bad name, or registered
        with another key.
        """
        check_name("provider", name)
        with self._lock:
            known = self._providers.get(name)
            if known is None or key is not None:
                key = SigningKey() if key is None else key
                token = self.admission.register(name, key.public)
            elif aggregator is not None:
                key, token = known.key, known.token
            else:
                return known
            known = self._providers[name] = Provider(
                self, name, key=key, token=token, aggregator=aggregator or self.aggregator, clock=self._clock
            )
            return known

    def roster(self, token: str, provider: str) -> list[str]:
        """What a provider knows the clouds by that it can ask. Raises NotPermitted."""
        return self.admission.roster(token, provider)

    def put(self, ask: Ask, signature: bytes, alias: str, *, token: str, timeout_s: float) -> Outcome:
        """What one cloud says to an ask; see `Admission.put`."""
        return self.admission.put(ask, signature, alias, token=token, timeout_s=timeout_s)

    def each(self, what: str, users: list[str] | None = None) -> None:
        """`pause`, `wake` or `lock` on these users' clouds (all of them), side by side, with a progress bar."""
        if what not in ("pause", "wake", "lock"):
            raise ConfigError(f"clouds are paused, woken or locked together, not {what!r}")
        chosen = [row.user for row in self._registry.clouds()] if users is None else users
        fan_out(chosen, getattr(self, what), description=what)

    def __repr__(self) -> str:
        return f"Controller(lab={self.lab!r}, engine={self.engine.name!r}, clouds={len(self._lives)})"

    def _repr_html_(self) -> str:
        return self.clouds()._repr_html_()
