"""Debits beside raw updates: both are made, and the cloud's own ledger is left alone."""

from __future__ import annotations

from pathlib import Path

import pytest

import emlab as em
from emlab import measure


@pytest.mark.parametrize("engine_name", ["process"], indirect=True)
@pytest.mark.parametrize("at_once", [1, 8])
def test_debits_are_timed_beside_raw_updates(engine_name: str, home: Path, at_once: int) -> None:
    with em.Lab(engine_name, idle=None) as lab:
        frame = measure.debit(lab, n=3, debits=10, at_once=at_once, seed=1)
    assert frame["ok"].all(), frame["error"]
    assert set(frame["measure"]) == {f"10 debits, {at_once} at once"}
    assert frame.groupby("arm")["value"].count().to_dict() == {"emlab": 3, "raw": 3}
    assert (frame["value"] > 0).all()
