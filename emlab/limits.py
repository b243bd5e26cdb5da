"""How often somebody may do something: a leaky bucket for each, in bounded memory. Pure: the time is an argument."""

from __future__ import annotations

from collections import OrderedDict

from emlab.errors import ConfigError, TooMany

MAX_KEYS = 10_000


class Limit:
    """At most `burst` at once and `per_s` a second in the long run, for each key. For one thread at a time.

    The generic cell rate algorithm: of each key only the time is kept at which its bucket is empty. Source: ITU-T
    I.371, annex A.

    Args:
        what: for the error, such as "requests".
    """

    def __init__(self, what: str, *, per_s: float, burst: int) -> None:
        if not (per_s > 0 and burst >= 1):
            raise ConfigError(f"a limit of {what} is above 0 a second and at least 1 at once, not {per_s!r}, {burst!r}")
        self._what = what
        self._each_s = 1.0 / per_s
        self._depth_s = burst / per_s
        self._empty_at: OrderedDict[str, float] = OrderedDict()

    def check(self, key: str, now: float) -> float:
        """When this key's bucket is empty, or would be. Raises TooMany: there is no room for one more."""
        empty_at = self._empty_at.get(key, now)
        # a clock that was set back must lock nobody out; what is rounded up does not go so far
        if empty_at > now + self._depth_s + self._each_s:
            empty_at = now
        wait_s = max(empty_at, now) + self._each_s - self._depth_s - now
        if wait_s > 1e-9:
            raise TooMany(f"too many {self._what}: ask again in {wait_s:.3g} s", retry_after_s=wait_s)
        return max(empty_at, now)

    def take(self, key: str, now: float) -> None:
        """One more of this key's. Raises TooMany, which takes nothing."""
        self._empty_at[key] = self.check(key, now) + self._each_s
        self._empty_at.move_to_end(key)
        if len(self._empty_at) > MAX_KEYS:
            self._empty_at.popitem(last=False)
