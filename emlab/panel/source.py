"""What a panel shows and turns: a lab of this process, or a controller elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from emlab.idle import AtMost, Histogram, IdleRule, Never, PauseAfter
from emlab.record import Event

if TYPE_CHECKING:
    from emlab.controller import Controller
    from emlab.lab import Lab
    from emlab.remote import ControllerClient

RULES: dict[str, type[IdleRule]] = {
    "never pause": Never,
    "pause after a time": PauseAfter,
    "run at most so many": AtMost,
    "by each one's past": Histogram,
}


class Source(Protocol):
    """What a panel shows and turns. Blocks; thread-safe; raises EmlabError."""

    @property
    def rules(self) -> Mapping[str, type[IdleRule]]:
        """The idle rules that can be chosen, by what a person calls them; none if the caller may not choose."""

    @property
    def controller(self) -> Controller | ControllerClient:
        """Which finds, pauses, wakes and locks the clouds."""

    @property
    def subject(self) -> object:
        """What all panels of the same clouds, for the same person, have in common."""

    def where(self) -> str:
        """Where the clouds are, in words."""

    def idle(self) -> tuple[IdleRule | None, str]:
        """The idle rule in force, None if it is not known, and in words."""

    def follow(self, rule: IdleRule) -> None:
        """That rule is in force."""

    def events(self, after: int) -> tuple[list[Event], int]:
        """What happened after the first `after` events, and how many there were in all."""


class Here:
    """A lab of this process."""

    rules = RULES

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.subject = lab.path

    @property
    def controller(self) -> Controller:
        """The lab's."""
        return self._lab.controller

    def where(self) -> str:
        """See Source."""
        return f"on {self._lab.engine}"

    def idle(self) -> tuple[IdleRule | None, str]:
        """See Source."""
        return self._lab.idle, repr(self._lab.idle)

    def follow(self, rule: IdleRule) -> None:
        """See Source."""
        self._lab.idle = rule

    def events(self, after: int) -> tuple[list[Event], int]:
        """See Source."""
        return self._lab.recorder.since(after)


class Elsewhere:
    """A controller elsewhere: all of it for an admin, the own cloud for an owner."""

    def __init__(self, client: ControllerClient) -> None:
        self.controller = client
        me = client.me()
        self.subject = client.address, me.kind, me.subject
        self.rules = RULES if me.kind == "admin" else {}

    def where(self) -> str:
        """See Source."""
        return f"at {self.controller.address}"

    def idle(self) -> tuple[IdleRule | None, str]:
        """See Source."""
        if not self.rules:
            return None, "known to admins only"
        rule = self.controller.idle
        return rule, repr(rule)

    def follow(self, rule: IdleRule) -> None:
        """See Source."""
        self.controller.idle = rule

    def events(self, after: int) -> tuple[list[Event], int]:
        """See Source."""
        return self.controller.events(after)
