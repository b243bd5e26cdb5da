"""A time as e-mission writes it, three times over: seconds, components in the local zone, text.

Imports only the standard library.
"""

from __future__ import annotations

import functools
from datetime import datetime
from zoneinfo import ZoneInfo


@functools.lru_cache(maxsize=1024)
def zone_named(name: str) -> ZoneInfo | None:
    """The zone of this IANA name ("Europe/Berlin"), or None if there is none. Looked up once."""
    try:
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError):  # unknown; no name at all; a folder, or too long
        return None


def time_fields(ts: float, zone: ZoneInfo, prefix: str = "") -> dict[str, object]:
    """A time as `ts`, `local_dt` (Monday is weekday 0) and `fmt_time`, each after the prefix.

    Args:
        ts: UTC seconds since 1970, from 0 to 1e11.
        prefix: "" for points, "start_", "end_", "enter_", "exit_", or "write_" in metadata.
    """
    local = datetime.fromtimestamp(ts, zone)
    components = {
        "year": local.year,
        "month": local.month,
        "day": local.day,
        "hour": local.hour,
        "minute": local.minute,
        "second": local.second,
        "weekday": local.weekday(),
        "timezone": zone.key,
    }
    return {f"{prefix}ts": ts, f"{prefix}local_dt": components, f"{prefix}fmt_time": local.isoformat()}
