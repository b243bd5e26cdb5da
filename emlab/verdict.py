"""What was checked, and what came of it: a value that reads well and that a program can act on. Imports errors."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import msgspec

from emlab.errors import NotPermitted

MAX_NAMED = 5  # of what is wrong in one respect


class Check(msgspec.Struct, frozen=True):
    """One thing that was checked.

    Attributes:
        says: what should hold, in words. holds: whether it does. why: what is wrong; "" if nothing is.
    """

    says: str
    holds: bool
    why: str = ""

    def __str__(self) -> str:
        return f"ok     {self.says}" if self.holds else f"FALSE  {self.says}: {self.why}"


class Verdict(msgspec.Struct, frozen=True):
    """All that was checked of one thing. True if all of it holds.

    Attributes:
        of: what was looked at, in words. checks: in the order in which they were made.
    """

    of: str
    checks: tuple[Check, ...]

    def __bool__(self) -> bool:
        return all(check.holds for check in self.checks)

    def demand(self) -> Verdict:
        """This, if all holds. Raises NotPermitted, which says what does not."""
        wrong = [f"{check.says}: {check.why}" for check in self.checks if not check.holds]
        if wrong:
            raise NotPermitted(f"{self.of} is not to be trusted; false is that {'; that '.join(wrong)}")
        return self

    def __str__(self) -> str:
        return "\n".join([f"{self.of}: {'all holds' if self else 'NOT TO BE TRUSTED'}", *map(str, self.checks)])

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{'&#10003;' if one.holds else '&#10007;'}</td><td>{escape(one.says)}</td>"
            f"<td>{escape(one.why)}</td></tr>"
            for one in self.checks
        )
        return f"<table><caption>{escape(self.of)}</caption>{rows}</table>"


def checked(says: str, wrong: Iterable[str]) -> Check:
    """A check that holds if nothing is wrong, and otherwise names the first few things that are."""
    found = list(wrong)
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    return Check(says, not found, "; ".join(found[:MAX_NAMED]) + more)


def differing(says: str, *pairs: tuple[str, object, object]) -> Check:
    """A check that holds if what was found is what was told, for each (what, told, found)."""
    return checked(says, (f"{what} is {found}, and {told} was told" for what, told, found in pairs if told != found))
