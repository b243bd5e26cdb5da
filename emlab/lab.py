"""Lab: engine, vault, controller, aggregator and recorder together."""

from __future__ import annotations

import atexit
import logging
import os
import re
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from emlab.aggregator import Aggregator
from emlab.arguments import check_policy
from emlab.controller import Controller
from emlab.ending import exit_on_sigterm
from emlab.engines.base import Engine
from emlab.errors import ConfigError, EmlabError, EngineError
from emlab.fanout import fan_out
from emlab.idle import AtMost, Histogram, IdleRule, Never, PauseAfter, check_rule
from emlab.key import SealingKey, SigningKey
from emlab.parts import choose_engine, choose_vault, emlab_home, make_engine, make_vault
from emlab.policy import Policy
from emlab.record import Recorder, describe
from emlab.registry import Registry
from emlab.vaults.base import Vault

if TYPE_CHECKING:
    from ipywidgets import Widget

log = logging.getLogger(__name__)
SWEEP_S = (0.05, 5.0)
TRUST = {
    "docker": "each cloud is a container without network; this host's root and this user's programs can read it",
    "process": "clouds are processes of this user and not isolated from each other or from this user's other programs",
    "memory": "clouds are objects in this process; nothing is isolated, and nothing is kept",
}
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


class Lab:
    """A laboratory of user clouds: `with Lab("docker") as lab: lab.controller.signup("alice")`.

    Args:
        engine: "docker", "process", "memory" or "auto" (docker if it can start clouds now, else process; for
            a lab that is there already, its own).
        vault: "gocryptfs", "fscrypt", "ecryptfs", "plain" (not encrypted), or "auto": the one that protects best of
            those that work here; for a lab that is there already, its own.
        idle: pauses clouds that nobody used for a while, and locks them if it is told to; None sweeps nothing.
        default_policy: of people who sign up without one; `Policy.research` of this lab's aggregator without it.
        name: 1 to 32 of a-z, 0-9 and "-"; a lab kept under this name is found again. A fresh name without it.
        keep: keep the clouds (paused) and their data on close, instead of removing them. Without it a lab that was
            kept stays kept; False removes also such a one.
        aggregator: another one than the lab's own, such as `Aggregator(exact=True)` in tests.
        home: where labs live, instead of $EMLAB_HOME.
    """

    def __init__(
        self,
        engine: str = "auto",
        vault: str = "plain",
        idle: IdleRule | None = PauseAfter(60.0),  # noqa: B008 (a frozen value)
        default_policy: Policy | None = None,
        name: str | None = None,
        keep: bool | None = None,  # noqa: FBT001
        *,
        aggregator: Aggregator | None = None,
        home: Path | str | None = None,
    ) -> None:
        self.name = f"lab-{secrets.token_hex(4)}" if name is None else name
        self.keep = bool(keep)
        self._given_keep = keep
        self._pid = 0  # of the process that opened it
        self._engine_name = engine
        self._vault_name = vault
        self._vault_reason = ""
        self.engine_reason = ""  # why it is this one, if any was said to do
        self._idle = idle
        self._policy = default_policy
        self._given_aggregator = aggregator
        self._home = None if home is None else Path(home)
        self._controller: Controller | None = None
        self._aggregator: Aggregator | None = None
        self._registry: Registry | None = None
        self._stop = threading.Event()
        self._sweeper: threading.Thread | None = None

    @classmethod
    def load(cls, path: Path | str) -> Lab:
        """The lab of a TOML file such as conf/lab.toml; its table [serve] is for `emlab serve`. Raises ConfigError."""
        raw = read_toml(Path(path))
        raw.pop("serve", None)
        return cls.of(raw, Path(path))

    @classmethod
    def of(cls, raw: Mapping[str, Any], path: Path) -> Lab:
        """The lab of these settings, which came from that file. Raises ConfigError."""
        raw = dict(raw)
        kinds: dict[str, type | tuple[type, ...]] = {
            "name": str,
            "engine": str,
            "vault": str,
            "keep": bool,
            "idle_s": (int, float),
            "lock_after_s": (int, float),
            "at_most": int,
            "histogram": bool,
        }
        for setting, value in raw.items():
            if setting not in kinds:
                raise ConfigError(f"{path} has {setting!r}; a lab has {', '.join(kinds)}, and a table [serve]")
            if not isinstance(value, kinds[setting]):
                raise ConfigError(f"{path}: {setting} is of the wrong type")
        told = {name: raw.pop(name) for name in ("idle_s", "lock_after_s", "at_most", "histogram") if name in raw}
        return cls(**raw, idle=_rule(**told))

    # -- parts -------------------------------------------------------------------------------------------------

    @property
    def controller(self) -> Controller:
        """The lab's controller. Raises ConfigError before `start`."""
        if self._controller is None:
            raise ConfigError(f"the lab {self.name} is not open: use `with Lab(...) as lab`, or lab.start()")
        return self._controller

    @property
    def aggregator(self) -> Aggregator:
        """The lab's aggregator, which runs in this process. Raises ConfigError before `start`."""
        if self._aggregator is None:
            raise ConfigError(f"the lab {self.name} is not open")
        return self._aggregator

    @property
    def registry(self) -> Registry:
        """What is remembered of the lab. Raises ConfigError before `start`."""
        if self._registry is None:
            raise ConfigError(f"the lab {self.name} is not open")
        return self._registry

    @property
    def recorder(self) -> Recorder:
        """What happened and how long it took."""
        return self.controller.recorder

    @property
    def engine(self) -> str:
        """The name of the engine that was chosen."""
        return self.controller.engine.name

    @property
    def vault(self) -> str:
        """The name of the vault that each cloud's data is in."""
        return self._vault_name

    @property
    def idle(self) -> IdleRule:
        """Which clouds are paused when nobody uses them. Assign another rule to follow that from the next sweep on."""
        return self.controller.idle

    @idle.setter
    def idle(self, rule: IdleRule) -> None:
        self.controller.idle = rule
        self._idle = rule
        self._start_sweeping()

    @property
    def home(self) -> Path:
        """Where labs live."""
        return emlab_home() if self._home is None else self._home

    @property
    def path(self) -> Path:
        """This lab's directory."""
        return self.home / "labs" / self.name

    # -- life --------------------------------------------------------------------------------------------------

    def start(self, *, sweep: bool = True) -> Lab:
        """The lab is open, owned by this process; clouds kept under its name are found again. Idempotent.

        Args:
            sweep: follow the idle rule at once; else once `idle` is assigned.
        Raises: LabInUse, EngineMissing, VaultMissing, ConfigError.
        """
        if self._controller is not None:
            return self
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ConfigError(f"{str(self.name)[:80]!r} is no lab name: 1 to 32 of a-z, 0-9 and '-', no '-' first")
        if self._idle is not None:
            check_rule(self._idle)
        if self._policy is not None:
            check_policy(self._policy, "default_policy")
        self._home = self.home  # whatever EMLAB_HOME says later
        registry = Registry(self.path)
        registry.open()
        self._registry, self._pid = registry, os.getpid()
        try:
            vault = self._choose_vault(registry)
            engine = make_engine(self._choose_engine(registry), self.home)
            self._remember(registry, engine.name)
            self._open(engine, vault, registry, sweep=sweep)
        except BaseException:
            self._undo(registry)
            raise
        atexit.register(self.close)
        exit_on_sigterm()
        return self

    def _choose_engine(self, registry: Registry) -> str:
        if self._engine_name != "auto":
            return self._engine_name
        before = registry.known("engine")
        name, self.engine_reason = choose_engine() if before is None else (before, "as the lab was made")
        return name

    def _choose_vault(self, registry: Registry) -> Callable[[Path], Vault]:
        if self._vault_name == "auto":
            before = registry.known("vault")
            chosen = choose_vault(self.path) if before is None else (before, "as the lab was made")
            self._vault_name, self._vault_reason = chosen
        return make_vault(self._vault_name, self.path)

    def _undo(self, registry: Registry) -> None:
        try:
            if registry.known("engine") is None and not registry.clouds():  # it never became a lab
                registry.remove()
        finally:
            self._release()

    def _remember(self, registry: Registry, engine: str) -> None:
        for setting, value in (("engine", engine), ("vault", self._vault_name)):
            before = registry.setting(setting, value)
            if before != value:
                raise ConfigError(f"the lab {self.name} was made with {setting} {before!r}, not {value!r}")
        if self._given_keep is None:
            self.keep = registry.known("keep") == "yes"
        registry.set("keep", "yes" if self.keep else "no")

    def _open(self, engine: Engine, vault: Callable[[Path], Vault], registry: Registry, *, sweep: bool) -> None:
        aggregator = self._given_aggregator or Aggregator(
            SealingKey(registry.secret("aggregator")), signing=SigningKey(registry.secret("aggregator-signing"))
        )
        aggregator.directory = registry
        controller = Controller(
            engine,
            vault,
            registry,
            lab=self.name,
            home=self.home,
            lab_dir=self.path,
            policy=self._policy or Policy.research(aggregators=[aggregator]),
            aggregator=aggregator,
            idle=self._idle,
        )
        controller.attach()
        self._aggregator, self._controller = aggregator, controller
        if sweep and self._idle is not None:
            self._start_sweeping()

    def _start_sweeping(self) -> None:
        if self._sweeper is None:
            self._stop.clear()
            self._sweeper = threading.Thread(target=self._sweep, name=f"sweep-{self.name}", daemon=True)
            self._sweeper.start()

    def _sweep_s(self) -> float:
        """Seconds to the next sweep: a quarter of the idle time, within bounds."""
        idle_s: float | None = getattr(self._idle, "idle_s", None)  # a rule need not have one
        return SWEEP_S[1] if idle_s is None else min(max(idle_s / 4, SWEEP_S[0]), SWEEP_S[1])

    def _sweep(self) -> None:
        while not self._stop.wait(self._sweep_s()):
            try:
                self.controller.sweep(self._stop.is_set)
            except EmlabError as exc:  # an engine that is away for a moment must not end all sweeping
                log.warning("a sweep of %s failed: %s", self.name, exc)
            except Exception:  # nor a fault of ours: nobody would notice that clouds are not paused any more
                log.exception("a sweep of %s failed", self.name)

    def close(self) -> None:
        """The lab is closed: its clouds removed with all their data, or paused and kept; leases end. Idempotent.

        In a forked child nothing happens: the lab is its parent's.
        Raises: EngineError: some clouds could not be removed or paused; it names them. The others were.
        """
        if self._controller is None or self._pid != os.getpid():
            return
        self.end_sweeping()
        try:
            self._end(self._controller)
        finally:
            self._release()

    def leave(self) -> None:
        """The lab is closed here, and its clouds stay as they are, for whoever opens it next. Idempotent."""
        if self._controller is not None and self._pid == os.getpid():
            self.end_sweeping()
            self._release()

    def end_sweeping(self) -> None:
        """The idle rule is not followed any more, until `idle` is assigned."""
        self._stop.set()
        if self._sweeper is not None:
            self._sweeper.join()
            self._sweeper = None

    def _end(self, controller: Controller) -> None:
        users = [cloud.user for cloud in controller.clouds()]
        description = "pausing clouds" if self.keep else "removing clouds"
        tried = fan_out(users, lambda user: self._end_one(controller, user), description=description)
        failed = {user: exc for user, exc in zip(users, tried, strict=True) if exc is not None}
        if failed:
            reasons = "; ".join(f"{user}: {describe(exc)}" for user, exc in failed.items())
            raise EngineError(
                f"{description} at the end of the lab {self.name} failed for {reasons}. "
                f"Remove what is left with: emlab clean --lab {self.name}"
            ) from next(iter(failed.values()))
        if not self.keep:
            shutil.rmtree(self.path)

    def _end_one(self, controller: Controller, user: str) -> Exception | None:
        """The cloud is paused, whoever has leased it, or gone; or why not: one's failure must not stop the others."""
        try:
            if self.keep:
                controller.life(user).end_leases()
                controller.pause(user)
            else:
                controller.discard(user)
        except LookupError:  # a sign-up that was interrupted before there was a cloud
            return None
        except Exception as exc:
            return exc
        return None

    def _release(self) -> None:
        atexit.unregister(self.close)
        if self._controller is not None:
            self._controller.detach()
        if self._registry is not None:
            self._registry.close()
        self._controller = self._registry = self._aggregator = None

    def __enter__(self) -> Lab:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    # -- to look at --------------------------------------------------------------------------------------------

    def panel(self) -> Widget:
        """A control panel: clouds and their states, pause, wake and lock, the idle rule, how long things took."""
        from emlab.panel import Here, panel

        return panel(Here(self))

    def __repr__(self) -> str:
        if self._controller is None:
            return f"Lab({self.name!r}, closed)"
        trust = f"{TRUST[self.engine]}; {_at_rest(self._vault_name)}"
        why = f" ({self._vault_reason})" if self._vault_reason else ""
        return f"Lab({self.name!r}, engine={self.engine!r}, vault={self._vault_name!r}): {trust}{why}"

    def _repr_html_(self) -> str:
        from html import escape

        clouds = "" if self._controller is None else self._controller._repr_html_()
        return f"<p>{escape(repr(self))}</p>{clouds}"


def _rule(idle_s: float = 60.0, lock_after_s: float = 0.0, at_most: int = 0, *, histogram: bool = False) -> IdleRule:
    """The idle rule of a lab's file. Raises ConfigError."""
    if sum(map(bool, (lock_after_s, at_most, histogram))) > 1:
        raise ConfigError("lock_after_s, at_most and histogram each make another idle rule: choose one")
    if at_most:
        return AtMost(at_most, idle_s or None)
    if histogram:
        return Histogram(idle_s)
    # without pausing there is no locking: PauseAfter says so
    return PauseAfter(idle_s, lock_after_s=lock_after_s or None) if idle_s or lock_after_s else Never()


def read_toml(path: Path) -> dict[str, Any]:
    """What a lab's file says. Raises ConfigError."""
    import tomllib

    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{path} cannot be read as a lab: {exc}") from exc


def _at_rest(vault: str) -> str:
    return "nothing is encrypted on disk" if vault == "plain" else f"on disk encrypted by {vault}"
