"""How clouds end for good: those that are forgotten, and those whose sign-up failed. L3."""

from __future__ import annotations

import logging
import threading

from emlab.errors import EmlabError
from emlab.lives import Lives
from emlab.registry import CloudRow, Registry, Tombstone
from emlab.tokens import Tokens

log = logging.getLogger(__name__)


class Removal:
    """Removes clouds of one lab, and what is known of them. Thread-safe.

    What could not be removed takes nothing more, and is tried again by `again`, and by whoever attaches next.
    """

    def __init__(self, registry: Registry, lives: Lives, tokens: Tokens) -> None:
        self._registry = registry
        self._lives = lives
        self._tokens = tokens
        self._ending = threading.Lock()  # a cloud, its name and its tokens end together
        self.unfinished: set[str] = set()  # clouds whose removal failed

    def remove(self, row: CloudRow) -> None:
        """A cloud that is being forgotten, or whose sign-up failed, is gone; whatever happens, nobody uses it again."""
        if (life := self._lives.by_cloud.get(row.cloud)) is not None:
            life.retire()
        try:
            if row.intent == "forget":
                self._registry.bury(row.user, Tombstone(row.carried + row.granted, row.generation))
                self._tokens.settle(row.user, row.created_ts)
            self.destroy(row)
        except BaseException:
            self.unfinished.add(row.cloud)
            raise
        self.unfinished.discard(row.cloud)

    def destroy(self, row: CloudRow) -> None:
        """The cloud and its data are gone, and nothing is remembered. Idempotent."""
        if (life := self._lives.by_cloud.get(row.cloud)) is not None:
            life.destroy(self._lives.folder(row))
        with self._ending:
            if self._registry.by_cloud(row.cloud) is not None:  # else the name may be another cloud's by now
                self._lives.end(row)
                self._tokens.drop("owner", row.user)  # before the row: an old token must never open a new cloud
                self._registry.drop(row.cloud)

    def leave(self, row: CloudRow) -> None:
        """What is left of a sign-up or a forgetting is gone; or the log says why not, the first time."""
        again = row.cloud in self.unfinished
        if not again:
            log.warning("the %s of %s was interrupted; its cloud is removed", row.intent, row.user)
        try:
            self.remove(row)
        except Exception as exc:  # one cloud must not keep the others from their owners
            known = isinstance(exc, EmlabError | OSError)
            level = logging.DEBUG if again else logging.WARNING
            log.log(
                level, "the cloud of %s could not be removed, and is tried again: %s", row.user, exc, exc_info=not known
            )

    def again(self) -> None:
        """What failed was tried once more."""
        if self.unfinished:
            for row in [row for row in self._registry.clouds() if row.cloud in self.unfinished]:
                self.leave(row)
