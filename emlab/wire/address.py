"""Where a controller or an aggregator is: its URL, and whether what is said there leaves this host."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from emlab.errors import ConfigError


def check_url(url: str, whose: str = "a controller") -> str:
    """The URL, without a slash at its end. Raises ConfigError: keys and tokens would be readable."""
    wrong = ConfigError(f"the address of {whose} is such as https://lab.example:4430, not {str(url)[:200]!r}")
    try:
        parts = urlsplit(url)
        is_one = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except (ValueError, AttributeError) as exc:  # no address, no port, no text
        raise wrong from exc
    if not is_one or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise wrong
    if parts.scheme == "http" and not is_loopback(parts.hostname):
        raise ConfigError(f"plain http is for this host only: use https for {parts.hostname}")
    return url.rstrip("/")


def is_loopback(host: str) -> bool:
    """Whether that name or address never leaves this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
