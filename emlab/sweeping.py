"""One pass of an idle rule over a lab's clouds: those are paused or locked that nobody uses, and some woken. L3."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from emlab import provision as provisioning
from emlab.errors import EmlabError, InUse
from emlab.idle import IdleRule, Limits, LockRule, Use, WakeRule
from emlab.lifecycle import Lifecycle
from emlab.state import CloudState

log = logging.getLogger(__name__)
WAKE_WAIT_S = 5.0


def sweep(
    lives: Mapping[str, Lifecycle],
    states: Mapping[str, CloudState],
    rule: IdleRule,
    now: float,
    *,
    tell: Callable[[str, str], object],
    ends: Callable[[], bool],
) -> list[str]:
    """The users whose clouds were paused or locked now, each once. One that could not be is logged.

    A cloud that could not be locked when that was asked for is tried again, and one that has lost its vault is locked,
    whatever the rule says. A rule that knows when a cloud will be used wakes it before; that counts as no use.

    Args:
        lives: by user. states: by cloud, what the engine says of them; a cloud that is not in it is left as it is.
        now: UTC seconds. tell: called with what was done ("lock", "pause" or "wake"), and the user.
        ends: whether the sweep is to leave the rest alone.
    """

    def those(state: CloudState) -> dict[str, Lifecycle]:
        """Those that are in this state, and were not locked by this sweep."""
        return {
            user: life for user, life in lives.items() if states.get(life.spec.cloud) is state and user not in locked
        }

    def each(users: list[str], action: str, act: Callable[[str], bool]) -> list[str]:
        did = []
        for user in users:
            if not ends() and _try(user, action, act):
                tell(action, user)
                did.append(user)
        return did

    locked: list[str] = []
    closing = [user for user, life in lives.items() if life.closing]
    locked += each(closing, "lock", lambda user: lives[user].end_lock())
    awake = those(CloudState.RUNNING) | those(CloudState.PAUSED)
    bereft = [user for user, life in awake.items() if not _is_open(user, life)]
    locked += each(bereft, "lock", lambda user: lives[user].end_bereft())
    if isinstance(rule, LockRule):
        idle = [user for user in _chosen(rule.due_to_lock, lives, now) if _is_open(user, lives[user])]
        locked += each(idle, "lock", lambda user: lives[user].lock(unused_since=now))
    paused = each(_chosen(rule.due, those(CloudState.RUNNING), now), "pause", lambda user: lives[user].pause())
    if isinstance(rule, WakeRule):
        due = _chosen(rule.due_to_wake, those(CloudState.PAUSED), now)
        each(due, "wake", lambda user: lives[user].wake(WAKE_WAIT_S))
    return locked + paused


def limits(lives: Iterable[Lifecycle]) -> dict[str, Limits]:
    """How long their owners let clouds idle, by cloud; only of those who said so."""
    said = {life.spec.cloud: provisioning.published(life.spec.run_dir) for life in lives}
    return {cloud: Limits(one.pause_after_s, one.lock_after_s) for cloud, one in said.items() if one is not None}


def _chosen(
    decide: Callable[[Sequence[Use], float], list[str]], lives: Mapping[str, Lifecycle], now: float
) -> list[str]:
    """The users of the clouds that a rule names."""
    users = {life.spec.cloud: user for user, life in lives.items()}
    return [users[cloud] for cloud in decide([life.use() for life in lives.values()], now)]


def _try(user: str, action: str, act: Callable[[str], bool]) -> bool:
    """Whether that was done here, and not by somebody else before. What failed is logged."""
    try:
        return act(user)
    except InUse:  # somebody has begun to use it meanwhile
        log.debug("the cloud of %s is in use", user)
    except EmlabError as exc:
        log.warning("could not %s the cloud of %s: %s", action, user, exc)
    return False


def _is_open(user: str, life: Lifecycle) -> bool:
    try:
        return life.is_open
    except EmlabError as exc:
        log.warning("whether the vault of %s is open is not known: %s", user, exc)
        return False
