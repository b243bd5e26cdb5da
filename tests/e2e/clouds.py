"""What the tests of faults do to real clouds, from outside: their programs' pids on either engine."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import psutil

import emlab as em
from emlab.clock import SYSTEM_CLOCK, wait_until
from emlab.key import SigningKey
from tests.programs import programs
from tests.unit.asks import World


def entry(number: int, *, key: str = "background/location") -> dict[str, object]:
    """The number-th of many good entries, one second apart."""
    ts = 1_700_000_000.0 + number
    return {
        "_id": {"$oid": f"{number:024x}"},
        "user_id": {"$uuid": "0" * 32},
        "metadata": {
            "key": key,
            "platform": "android",
            "type": "sensor-data",
            "write_ts": ts,
            "time_zone": "America/Los_Angeles",
            "write_fmt_time": "2023-11-14T14:13:20-08:00",
        },
        "data": {
            "ts": ts,
            "latitude": 37.87,
            "longitude": -122.27,
            "loc": {"type": "Point", "coordinates": [-122.27, 37.87]},
            "accuracy": 10.0,
        },
    }


def run_dir(lab: em.Lab, cloud: em.UserCloud) -> Path:
    return lab.controller.life(cloud.user).spec.run_dir


def pid_of(lab: em.Lab, cloud: em.UserCloud, program: str) -> int:
    """The pid on this host of "mongod" or "custodian" of that cloud."""
    return programs(lab.engine, lab.controller.life(cloud.user).handle)[program]


def cloud_container(lab: em.Lab, cloud: em.UserCloud) -> str:
    return lab.controller.life(cloud.user).handle.ref


def kill(pid: int, how: signal.Signals = signal.SIGKILL) -> None:
    os.kill(pid, how)


def gone(pid: int, timeout_s: float = 10.0) -> bool:
    """Whether the process ends (a zombie has ended)."""

    def ended() -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    return wait_until(ended, timeout_s)


def reaches(cloud: em.UserCloud, states: Sequence[em.CloudState], timeout_s: float = 15.0) -> bool:
    return wait_until(lambda: cloud.state in states, timeout_s)


def world_of(lab: em.Lab) -> World:
    """Keys with which a test signs asks and capabilities itself, as this lab's controller would."""
    return World(controller=SigningKey(lab.controller._registry.secret("controller")), now=SYSTEM_CLOCK.now())
