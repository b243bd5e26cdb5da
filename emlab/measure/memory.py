"""How much memory a cloud holds when nobody uses it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from emlab.clock import SYSTEM_CLOCK
from emlab.errors import BadReply
from emlab.lab import Lab
from emlab.measure.clouds import cloud_of
from emlab.measure.samples import Samples
from emlab.policy import Policy
from emlab.queries.count_users import CountUsers
from emlab.usercloud import UserCloud

if TYPE_CHECKING:
    import pandas as pd

SETTLE_S = 3.0


def memory(lab: Lab, entries: Sequence[object], *, n: int = 5, settle_s: float = SETTLE_S) -> pd.DataFrame:
    """Samples of "memory after start" and "memory after work", in MiB, each of a cloud of its own. There is no raw arm.

    What is counted is `cloud.stats.memory_mb`. On Docker: the usage of the container's cgroup without file cache,
    which the kernel takes back when it wants; that is the anonymous memory of custodian and mongod, shared memory
    and tmpfs, and the kernel's own for them (stacks, page tables, slabs, sockets). Not counted: the pages of
    programs and libraries, which all clouds share, and the container's shim. As processes: anonymous memory and page
    tables.

    Args:
        entries: the work: they are stored, every key is read back, they are stored again, and a provider asks a
            question.
        n: clouds of each kind, one at a time.
        settle_s: how long a cloud is left alone before it is read.
    """
    from tqdm.auto import tqdm

    samples = Samples(lab.engine)
    for number in tqdm(range(n), desc="memory", leave=False, disable=None):
        for measure, work in (("memory after start", []), ("memory after work", entries)):
            samples.take(measure, "emlab", number, partial(_idle_mb, lab, work, settle_s), unit="MiB")
    return samples.frame()


def _idle_mb(lab: Lab, entries: Sequence[object], settle_s: float) -> float:
    with cloud_of(lab, "measured-memory") as cloud:
        if entries:
            _work(lab, cloud, entries)
        SYSTEM_CLOCK.wait(settle_s)
        return cloud.stats.memory_mb


def _work(lab: Lab, cloud: UserCloud, entries: Sequence[object]) -> None:
    """What an intake does to a cloud's memory, and a question."""
    cloud.store(entries)
    for key in cloud.counts():
        cloud.entries(key)
    cloud.store(entries)
    cloud.policy = Policy.open()
    provider = lab.controller.register_provider("measuring")
    release = provider.ask(CountUsers(None, start_ts=0.0, end_ts=2e9), epsilon=1.0, min_users=1)
    if release.answered != 1:
        raise BadReply(f"the cloud did not answer: {release.reasons}")
