"""Raw entries in, trips, sections and places out: pure functions, which the cloud's short-lived job runs.

Importing it loads neither numpy nor pandas; `run` does.
"""

from __future__ import annotations

from collections.abc import Mapping

from emlab.intake.keys import INPUT_KEYS, KEYS
from emlab.intake.outcome import Checkpoint, Observed, Outcome, Stay
from emlab.intake.report import IntakeReport

__all__ = ["INPUT_KEYS", "KEYS", "Checkpoint", "IntakeReport", "Observed", "Outcome", "Stay", "run"]


def run(
    observed: Observed,
    *,
    checkpoint: Checkpoint | None,
    now: float,
    lines: Mapping[str, object] | None = None,
) -> Outcome:
    """Everything that can be said of what was observed, as e-mission's result entries.

    The same input gives the same entries, whose ids depend on what they stand for; only the time of their writing
    differs. A run that goes on from a checkpoint gives, with what runs before it gave, what one run over everything
    gives. Nothing observed makes it fail: what it cannot use it leaves out, and counts by reason.

    Args:
        observed: from `checkpoint.since_ts` on, or everything.
        checkpoint: of the run before; None to begin. If something older than its `since_ts` has come meanwhile, or a
            point older than its `resume_ts`, begin anew.
        now: UTC seconds, when the entries are written.
        lines: public transport, so that buses and trains can be told from cars: a GeoJSON FeatureCollection, see
            `modes.lines`.
    Raises:
        ConfigError: `lines` are none.
    """
    from emlab.intake import modes, running

    known = None if lines is None else modes.lines(lines)
    return running.run(observed, checkpoint=checkpoint, now=now, lines=known)
