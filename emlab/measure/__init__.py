"""What emlab costs beside the same work done without it: each measurement times two arms in turn, in one run.

    with Lab("docker", idle=None, default_policy=Policy.open()) as lab:
        frame = measure.overhead(lab, n=30, seed=1)
    measure.compare(frame)

The arm "emlab" goes through the library, the arm "raw" does the same with the Docker SDK, with signals or with
pymongo. Both meet the same image, flags, mongod and documents; the order within a round is shuffled by a seed. An
attempt that fails is a sample too, and counts as one that never ended. Imports all of emlab but the concrete engines.
"""

from emlab.measure.debiting import debit
from emlab.measure.idling import idling
from emlab.measure.imports import imports
from emlab.measure.memory import memory
from emlab.measure.overhead import conditions, overhead
from emlab.measure.pausing import pause_wake
from emlab.measure.phoning import phone
from emlab.measure.plan import interleave
from emlab.measure.ratio import TARGETS, Target, compare, on_targets, ratio_of_medians
from emlab.measure.results import write_report
from emlab.measure.samples import Samples, as_events
from emlab.measure.starting import start
from emlab.measure.storing import store

__all__ = [
    "TARGETS",
    "Samples",
    "Target",
    "as_events",
    "compare",
    "conditions",
    "debit",
    "idling",
    "imports",
    "interleave",
    "memory",
    "on_targets",
    "overhead",
    "pause_wake",
    "phone",
    "ratio_of_medians",
    "start",
    "store",
    "write_report",
]
