"""One run of intake: everything of it in order. Imports numpy and, of emlab, what it consists of."""

from __future__ import annotations

import math
from collections import Counter

from emlab.intake import diary, labels, segmented, tracks
from emlab.intake.chain import Chain, Place, Trip, chained
from emlab.intake.dwell import stretches
from emlab.intake.modes import Lines
from emlab.intake.outcome import Checkpoint, Observed, Outcome, Stay
from emlab.intake.report import IntakeReport
from emlab.intake.writer import Writer


def run(observed: Observed, *, checkpoint: Checkpoint | None, now: float, lines: Lines | None) -> Outcome:
    """See `emlab.intake.run`."""
    dropped: Counter[str] = Counter()
    fixes = tracks.fixes(observed.locations, checkpoint, dropped)
    motions = tracks.motions(observed.motions, dropped)
    transitions = tracks.transitions(observed.transitions, dropped)
    inputs = labels.said(observed.inputs, dropped)
    first = None if checkpoint is None else (Place.of(checkpoint.raw_place), Place.of(checkpoint.cleaned_place))
    chain = chained(stretches(fixes, motions, transitions), fixes, motions, transitions, first)
    writer = Writer.at(now)
    segmented.write(writer, chain)
    diary.write(writer, chain, inputs, lines)
    return Outcome(
        documents=writer.entries,
        checkpoint=_checkpoint(chain, fixes) or checkpoint,
        report=_report(observed, chain, dropped),
        replaces_from_ts=_replaces_from(checkpoint),
    )


def _replaces_from(checkpoint: Checkpoint | None) -> float | None:
    """What is later than the place from which a run goes on is made anew; the trip to it, which ends then, stays."""
    if checkpoint is None or checkpoint.cleaned_place.enter_ts is None:
        return None
    return math.nextafter(checkpoint.cleaned_place.enter_ts, math.inf)


def _checkpoint(chain: Chain, fixes: tracks.Fixes) -> Checkpoint | None:
    """Where the next run can begin: at the end of the last trip but one that only older data could change.

    The last of them stays open, because what follows a trip decides where its place ends, and whose input is whose.
    """
    settled = [trip for trip in chain.trips if trip.raw.settled and not trip.raw.untracked]
    if len(settled) < 2:
        return None
    last = settled[-2]
    following = chain.spans[chain.spans.index(last.raw) + 1 :]
    start = next(span for span in following if span.points is not None)
    return Checkpoint(
        since_ts=last.end_ts,
        resume_ts=start.start_ts,
        resume_id=start.start_id,
        raw_place=_stay(last.raw.end_place, []),
        cleaned_place=_stay(last.end_place, [last.raw.end_place.id]),
    )


def _stay(place: Place, raw_places: list[str]) -> Stay:
    return Stay(
        id=place.id,
        source=place.source,
        lon=place.lon,
        lat=place.lat,
        altitude=place.altitude,
        zone=place.zone,
        enter_ts=place.enter_ts,
        ending=place.ending,
        untracked=place.untracked,
        raw_places=tuple(raw_places),
    )


def _report(observed: Observed, chain: Chain, dropped: Counter[str]) -> IntakeReport:
    trips: list[Trip] = [trip for trip in chain.trips if not trip.raw.untracked]
    return IntakeReport(
        locations=len(observed.locations),
        motions=len(observed.motions),
        transitions=len(observed.transitions),
        inputs=len(observed.inputs),
        dropped=dict(sorted(dropped.items())),
        trips=len(trips),
        sections=sum(len(trip.journey.legs) for trip in trips),
        places=len(chain.places),
        untracked=len(chain.trips) - len(trips),
    )
