"""A store whose reading ends when the time for an answer is over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, TypeVar

from emlab.clock import Clock
from emlab.query import Section, Trip
from emlab.restricted import Source
from emlab.store.base import Store

T = TypeVar("T")


def hurried(store: Store, until: float, clock: Clock) -> Source:
    """The store's reading, which ends with TimeoutError when `clock.monotonic()` has come to `until`."""
    return _Hurried(store, until, clock)


class _Hurried:
    def __init__(self, store: Store, until: float, clock: Clock) -> None:
        self._store = store
        self._until = until
        self._clock = clock

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        return self._store.exists(key, start_ts=start_ts, end_ts=end_ts, region=region)

    def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterable[tuple[float, float, float]]:
        return self._in_time(self._store.track(key, start_ts=start_ts, end_ts=end_ts))

    def fixes(self, key: str, **where: Any) -> Iterable[tuple[float, float, float]]:
        return self._in_time(self._store.fixes(key, **where))

    def trips(self, *, start_ts: float, end_ts: float) -> Iterable[Trip]:
        return self._in_time(self._store.trips(start_ts=start_ts, end_ts=end_ts))

    def sections(self, *, start_ts: float, end_ts: float) -> Iterable[Section]:
        return self._in_time(self._store.sections(start_ts=start_ts, end_ts=end_ts))

    def _in_time(self, found: Iterable[T]) -> Iterator[T]:
        for one in found:
            if self._clock.monotonic() >= self._until:
                raise TimeoutError
            yield one
