"""Where a controller or an aggregator is: its URL, and whether what is said there leaves this host."""

from __future__ import annotations

import ipaddress
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from emlab.errors import ConfigError


def check_url(url: str, whose: str = "a controller") -> str:
    """The URL, without a slash at its end. Raises ConfigError: keys and tokens would be readable."""
    # what is none may be one with a password in the wrong place, and is not shown
    wrong = ConfigError(
        f"the address of {whose} is such as https://lab.example:4430, without a name or a password in it"
    )
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except (ValueError, AttributeError):  # no address, no port, no text; whose own words may quote a password
        raise wrong from None
    if (
        parts.scheme not in ("http", "https")
        or not host
        or port == 0
        or parts.query
        or parts.fragment
        or "@" in parts.netloc
        or not url.isprintable()
        or " " in url
    ):
        raise wrong
    if parts.scheme == "http" and not is_loopback(host):
        raise ConfigError(f"plain http is for this host only: use https for {host}")
    return url.rstrip("/")


def check_ca(path: Path) -> None:
    """Returns if that is a file with certificates to trust. Raises ConfigError."""
    try:
        ssl.create_default_context(cafile=path)
    except OSError as exc:  # of OpenSSL, too
        raise ConfigError(f"{path} is no file with a certificate (PEM) to trust: {exc.strerror or exc}") from exc


def is_loopback(host: str) -> bool:
    """Whether that name or address never leaves this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
