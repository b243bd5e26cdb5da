"""One pass of an idle rule over a lab's clouds: those are paused or locked that nobody uses. L3."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from emlab.errors import EmlabError, InUse
from emlab.idle import IdleRule, LockRule
from emlab.lifecycle import Lifecycle
from emlab.state import CloudState

log = logging.getLogger(__name__)


def sweep(lives: Mapping[str, Lifecycle], rule: IdleRule, now: float) -> list[str]:
    """The users whose clouds were paused or locked now, each once. One that could not be is logged.

    A cloud that could not be locked when that was asked for is tried again, whatever the rule says.

    Args:
        lives: by user. now: UTC seconds.
    """
    locked = _each(_to_lock(lives, rule, now), "locked", lambda user: lives[user].lock())
    paused = _each(_to_pause(lives, rule, now), "paused", lambda user: lives[user].pause())
    return [*locked, *(user for user in paused if user not in locked)]


def _to_lock(lives: Mapping[str, Lifecycle], rule: IdleRule, now: float) -> list[str]:
    due = [user for user, life in lives.items() if life.closing]
    if isinstance(rule, LockRule):
        users = {life.spec.cloud: user for user, life in lives.items()}
        idle = [users[cloud] for cloud in rule.due_to_lock([life.use() for life in lives.values()], now)]
        due += [user for user in idle if user not in due and _is_open(user, lives[user])]
    return due


def _to_pause(lives: Mapping[str, Lifecycle], rule: IdleRule, now: float) -> list[str]:
    running = [(user, life.use()) for user, life in lives.items() if _runs(user, life)]
    users = {use.cloud: user for user, use in running}
    return [users[cloud] for cloud in rule.due([use for _, use in running], now)]


def _each(users: list[str], done: str, act: Callable[[str], None]) -> list[str]:
    did = []
    for user in users:
        try:
            act(user)
            did.append(user)
        except InUse:  # somebody has begun to use it meanwhile
            log.debug("the cloud of %s is in use", user)
        except EmlabError as exc:
            log.warning("the cloud of %s was not %s: %s", user, done, exc)
    return did


def _is_open(user: str, life: Lifecycle) -> bool:
    try:
        return life.is_open
    except EmlabError as exc:
        log.warning("whether the vault of %s is open is not known: %s", user, exc)
        return False


def _runs(user: str, life: Lifecycle) -> bool:
    try:
        return life.state is CloudState.RUNNING
    except EmlabError as exc:
        log.warning("the state of the cloud of %s is not known: %s", user, exc)
        return False
