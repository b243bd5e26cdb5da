"""The programs of real clouds as this host sees them: what there is of a home, whatever an engine says."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.engines.base import LABEL_RUN_DIR
from emlab.engines.rundir import run_root
from emlab.state import Handle
from emlab.vaults import mounts

if TYPE_CHECKING:
    from docker import DockerClient


def programs(engine: str, handle: Handle) -> dict[str, int]:
    """The pids on this host of what runs of a cloud's "custodian" and "mongod", found by their command lines."""
    inside = set(container_pids(handle)) if engine == "docker" else None
    run_dir = b"/run/emlab" if engine == "docker" else os.fsencode(handle.run_dir)
    found = {}
    for pid, words in mounts.commands():
        if (inside is None or pid in inside) and any(run_dir in word for word in words):
            program = Path(os.fsdecode(words[0])).name
            if program == "mongod":
                found["mongod"] = pid
            elif b"emlab.apps.custodian" in words and program != "tini":
                found["custodian"] = pid
    return found


def container_pids(handle: Handle) -> list[int]:
    """The processes of a cloud's container, none of one that does not run."""
    import docker

    if not handle.ref:  # it never ran
        return []
    with docker_client() as client:
        try:
            return [int(row[1]) for row in client.api.top(handle.ref)["Processes"]]
        except docker.errors.APIError:
            return []


def what_runs(engine: str, home: Path) -> set[str]:
    """All that there is of a home's clouds: the sessions of its processes, or its containers, ended ones too."""
    root = run_root(home)
    if engine == "process":
        found = set()
        for pid, words in mounts.commands():
            if any(os.fsencode(root) in word for word in words):
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    found.add(str(os.getsid(pid)))
        return found
    with docker_client() as client:
        listed = client.api.containers(all=True, filters={"label": LABEL_RUN_DIR})
    return {one["Id"] for one in listed if Path(one["Labels"][LABEL_RUN_DIR]).is_relative_to(root)}


@contextmanager
def docker_client() -> Iterator[DockerClient]:
    import docker

    client = docker.from_env()
    try:
        yield client
    finally:
        client.close()
