"""What people say when they make a policy: keyword arguments in their own units, which become its fields. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Literal, Protocol, TypedDict

from emlab.ask import Model
from emlab.errors import BadQuery
from emlab.geo import EARTH_RADIUS_M
from emlab.loss import Accounting
from emlab.privacy import micro_epsilon
from emlab.queries.known import KNOWN
from emlab.query import Query, Region

CIRCLE_POINTS = 24
MIN_RADIUS_M, MAX_RADIUS_M = 1.0, 50_000.0
_KEY = re.compile("[0-9a-f]{64}")


class HasPublicKey(Protocol):
    """A provider, an aggregator or a key pair."""

    @property
    def public(self) -> str:
        """The public key in hex."""


Who = Iterable[HasPublicKey | str] | Literal["anyone"]
Place = Region | Mapping[str, object] | tuple[float, float, float]


class Wishes(TypedDict, total=False):
    """Keyword arguments of the presets; what is not said here is as the policy's field of that name.

    Attributes:
        total_epsilon, quota_epsilon: epsilons; quotas: by public key.
        queries: classes of queries or their tags; or "any".
        excluded_places: Regions, GeoJSON, or (longitude, latitude, radius in metres).
        excluded_hours: pairs (start, end), such as (22, 6), or `Hours`.
    """

    total_epsilon: float
    quota_epsilon: float | None
    quotas: Mapping[str, float]
    renew_s: float | None
    accounting: Accounting
    delta: float
    min_users: int
    purposes: Iterable[str]
    queries: Iterable[type[Query] | str]
    models: Sequence[Model]
    min_side_m: float | None
    min_span_s: float | None
    excluded_places: Iterable[Place]
    excluded_hours: Iterable[object]
    zone: str
    retention_days: int | None
    vaults: Iterable[str]
    pause_after_s: float | None
    lock_after_s: float | None
    name: str


class Changes(Wishes, total=False):
    """Keyword arguments of `Policy.but`.

    Attributes:
        providers, aggregators: they themselves, or their public keys; or "anyone".
    """

    providers: Who
    aggregators: Who


def fields(wishes: Changes) -> dict[str, object]:
    """The fields of a policy that these set. Raises BadQuery: which of them is wrong."""
    if strangers := wishes.keys() - Changes.__annotations__.keys():
        raise BadQuery(f"a policy has no {', '.join(sorted(strangers))}; it has {', '.join(Changes.__annotations__)}")
    return dict(_field(name, value) for name, value in wishes.items())


def _field(name: str, value: object) -> tuple[str, object]:
    """One field, and what it is set to."""
    match name:
        case "providers" | "aggregators":
            return name, value if value == "anyone" else keys(value)  # type: ignore[arg-type]
        case "total_epsilon" | "quota_epsilon":
            return f"{name}_micro", None if value is None else micro_epsilon(value)  # type: ignore[arg-type]
        case "quotas":
            return name, {keys([who])[0]: micro_epsilon(most) for who, most in _mapping(name, value).items()}
        case "queries":
            return name, value if value == "any" else tuple(dict.fromkeys(map(tag, _several(name, value))))
        case "purposes" | "vaults":
            return name, value if value == "any" else _several(name, value)
        case "models":
            return name, tuple(dict.fromkeys(_several(name, value)))
        case "excluded_places":
            return name, tuple(map(_place, _several(name, value)))
        case "excluded_hours":
            return name, tuple(map(_hours, _several(name, value)))
    return name, value


def keys(who: Iterable[HasPublicKey | str]) -> tuple[str, ...]:
    """Their public keys, each once. Raises BadQuery."""
    if isinstance(who, str) or not isinstance(who, Iterable):
        raise BadQuery("providers and aggregators come as a list")
    found = tuple(dict.fromkeys(one if isinstance(one, str) else getattr(one, "public", repr(one)) for one in who))
    for key in found:
        if not _KEY.fullmatch(key):
            raise BadQuery(
                f"give the provider or aggregator itself, or its public key (64 hex digits), not {key[:80]!r}"
            )
    return found


def tag(query: object) -> str:
    """The tag of a query's class, or that tag itself. Raises BadQuery: there is no such query."""
    known = {str(one.__struct_config__.tag): one for one in KNOWN}
    for name, one in known.items():
        if query is one or query == name:
            return name
    raise BadQuery(f"{str(query)[:80]} is no query; there are {', '.join(sorted(known))}")


def around(lon: float, lat: float, radius_m: float) -> Region:
    """The region of all that is within so many metres of a point, as a polygon of 24 corners around that circle.

    Args:
        lon, lat: degrees. radius_m: 1 to 50,000.
    Raises: BadQuery.
    """
    numbers = (lon, lat, radius_m)
    if any(isinstance(one, bool) or not isinstance(one, Real) for one in numbers):
        raise BadQuery("a place is a region, or (longitude, latitude, radius in metres)")
    if not (MIN_RADIUS_M <= radius_m <= MAX_RADIUS_M and -180 <= lon <= 180 and -85 <= lat <= 85):
        raise BadQuery(f"a place has a radius of {MIN_RADIUS_M:g} to {MAX_RADIUS_M:g} m and a latitude within -85..85")
    lon, lat, radius_m = map(float, numbers)
    # a little more, because the polygon's edges lie inside the circle of its corners, and the earth is no plane
    reach = math.degrees(radius_m * 1.02 / math.cos(math.pi / CIRCLE_POINTS) / EARTH_RADIUS_M)
    wide = reach / math.cos(math.radians(min(abs(lat) + reach, 89.0)))
    turns = [2 * math.pi * number / CIRCLE_POINTS for number in range(CIRCLE_POINTS)]
    ring = [(lon + wide * math.cos(turn), lat + reach * math.sin(turn)) for turn in turns]
    return Region((((*ring, ring[0]),),))


def _place(place: object) -> Region:
    if isinstance(place, Region):
        return place
    if isinstance(place, Mapping):
        return Region.from_geojson(place)
    if isinstance(place, Sequence) and not isinstance(place, str) and len(place) == 3:
        return around(*place)
    raise BadQuery("a place is a region, or (longitude, latitude, radius in metres)")


def _hours(hours: object) -> object:
    """As the policy's validation makes `Hours` of it."""
    if isinstance(hours, Sequence) and not isinstance(hours, str) and len(hours) == 2:
        return {"start": hours[0], "end": hours[1]}
    return hours


def _several(name: str, value: object) -> tuple[object, ...]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise BadQuery(f"{name} come as a list, not as {type(value).__name__}")
    return tuple(value)


def _mapping(name: str, value: object) -> Mapping[str, float]:
    if not isinstance(value, Mapping):
        raise BadQuery(f"{name} come as a mapping from public key to epsilon")
    return value
