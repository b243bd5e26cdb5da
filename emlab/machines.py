"""The ancestor's machines.json, in both its generations, read as settings of a lab and its service."""

from __future__ import annotations

import json
import re
from pathlib import Path

from emlab.errors import ConfigError
from emlab.serving import Settings
from emlab.wire.address import is_loopback

MAX_BYTES = 1 << 20
NAMES = {
    "controller_ip": "host",
    "service_router_ip": "host",
    "controller_port": "port",
    "service_router_port": "port",
}
TICKS = {"tick_period", "pause_ticks"}
IGNORED = {
    "machines": "all clouds run on this host; weights mean nothing then",
    "swarm_port": "the engine is driven directly; there is no agent on a port",
    "upc_port": "clouds have no port; they are reached through the gateway",
    "upc_mode": "the engine is a setting of the lab",
    "kill_ticks": "there are no queriers that run on",
    "certificate_bundle_path": "a certificate comes with its key here: `certificate` and `key` in the table [serve]",
    "machines_use_tls": "clouds have no port",
}


def load(path: Path) -> tuple[dict[str, object], dict[str, object], list[str]]:
    """Settings of the lab (as conf/lab.toml), those of its service, and a sentence for each that has no counterpart.

    Raises: ConfigError.
    """
    try:
        raw = path.read_bytes()
        found = json.loads(raw) if len(raw) <= MAX_BYTES else None
    except (OSError, ValueError, RecursionError) as exc:
        raise ConfigError(f"{path} cannot be read as a machines.json: {exc}") from exc
    given = {name.replace("-", "_"): value for name, value in found.items()} if isinstance(found, dict) else {}
    if not given.keys() & (NAMES.keys() | IGNORED.keys() | TICKS):
        raise ConfigError(f"{path} is no machines.json: it is one JSON object, with machines, ports or ticks")
    serve = {ours: given.pop(theirs) for theirs, ours in NAMES.items() if theirs in given}
    if "port" in serve:
        serve["port"] = _number(path, "port", serve["port"])
    lab = _idle(path, given)
    tls = given.pop("service_router_use_tls", given.pop("controller_use_tls", True))
    remarks = [_remark(name) for name in given]
    if tls is False and is_loopback(host := str(serve.get("host", Settings().host))):
        serve["tls"] = False
    elif tls is False:
        remarks.append(f"use_tls: plain HTTP is for this host only, and {host} is reached from others: it is HTTPS")
    return lab, serve, remarks


def lab_name(path: Path) -> str:
    """What the lab of that file is called: after the file."""
    return re.sub("[^a-z0-9]+", "-", path.stem.lower()).strip("-")[:32] or "machines"


def _idle(path: Path, given: dict[str, object]) -> dict[str, object]:
    """The idle time: ticks of so many seconds."""
    if not given.keys() >= TICKS:
        return {}
    period_s, ticks = (_number(path, name, given.pop(name)) for name in ("tick_period", "pause_ticks"))
    return {"idle_s": float(period_s * ticks)}


def _number(path: Path, name: str, value: object) -> int:
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if number < 1:
        raise ConfigError(f"{path}: {name} is a number above 0, not {str(value)[:80]!r}")
    return number


def _remark(name: str) -> str:
    if name.endswith("endpoint") or name in ("endpoints", "service_endpoint"):
        return f"{name}: paths are those of /openapi.json"
    return f"{name}: {IGNORED.get(name, 'has no counterpart here')}"
