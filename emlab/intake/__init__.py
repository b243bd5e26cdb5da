"""Raw entries in, trips, sections and places out: pure functions, which the cloud's short-lived job runs.

Importing it loads neither numpy nor pandas; `run` does.

The method, its constants and the entries are those of e-mission's pipeline, which finds the same on the same data, but:

- Points are in order of time after those that came out of order are left out; points from a day after their own
  writing are left out, too. e-mission leaves some of both in a trip.
- A change of phone, and so of filter, begins a new trip by the other method; e-mission names the first for all.
- What fills an ios phone's silence at one place, to tell jumps, is made up from the time, not by chance.
- A place has no address and a trip no inferred labels: both come from services outside. analysis/smoothing has a time.
- No run depends on when the ones before it were: a last trip that ends for now is looked at again when more is known.
- Nobody is dated back more than twelve hours, and no section has more than 20,000 points.
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
    gives, but for one thing: the trip before the checkpoint is not made anew, and its composite trip shows the place
    at its end as it was then (`Store.embed_place` renews it). Nothing observed makes it fail: what it cannot use it
    leaves out, and counts by reason.

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
