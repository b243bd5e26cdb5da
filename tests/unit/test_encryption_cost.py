"""Turns of several arms, and the table of what vaults cost: what of that measurement needs no cloud."""

from __future__ import annotations

import itertools
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.clock import ManualClock
from emlab.errors import ConfigError, VaultMissing
from emlab.measure import Samples, encryption
from emlab.measure.plan import turns
from emlab.parts import VAULTS

LACKS = "this kernel has no such thing: use another"
PLAIN = [1.0, 1.0, 1.0, 1.0, 1.0]


def give(value: float) -> float:
    if math.isinf(value):
        raise VaultMissing(LACKS)
    return value


def samples(seconds: Mapping[str, Sequence[float]], measure: str = encryption.STORE) -> pd.DataFrame:
    """A frame in which these vaults took these seconds by round (inf: it failed), and the others cannot run here."""
    taken = Samples("process", clock=ManualClock())
    for name in VAULTS:
        works = 1.0 if name in seconds else math.inf
        taken.take(encryption.WORKS, name, 0, lambda works=works: give(works), unit="")  # type: ignore[misc]
    for name, values in seconds.items():
        for number, value in enumerate(values):
            taken.take(measure, name, number, lambda value=value: give(value), unit="s")  # type: ignore[misc]
    return taken.frame()


class TestTurns:
    @given(k=st.integers(1, 6), n=st.integers(1, 100), seed=st.integers(0, 2**32))
    def test_each_arm_has_each_place_about_equally_often(self, k: int, n: int, seed: int) -> None:
        plan = turns(range(k), n, seed)
        assert len(plan) == n
        assert all(sorted(order) == list(range(k)) for order in plan)
        for place in range(k):
            there = Counter(order[place] for order in plan)
            assert max(there.values()) - min(there[arm] for arm in range(k)) <= 2  # n need not be a multiple of orders

    def test_neighbours_change(self) -> None:
        pairs = {pair for order in turns("abc", 6, 1) for pair in itertools.pairwise(order)}
        assert len(pairs) == 6

    def test_nothing_to_compare_is_refused(self) -> None:
        with pytest.raises(ConfigError, match="0 arms"):
            turns([], 3, 1)


class TestCosts:
    def test_each_vault_is_beside_plain_and_what_cannot_run_is_not_dropped(self) -> None:
        table = encryption.costs(samples({"plain": PLAIN, "gocryptfs": [1.1] * 5, "fscrypt": [1.3] * 4 + [math.inf]}))
        first, second, missing = table.to_dict("records")
        assert (first["measure"], first["vault"], first["plain"], first["met"]) == ("store a day", "gocryptfs", 1, True)
        assert (first["n"], first["ratio"], first["target"]) == (5, pytest.approx(1.1), 1.2)
        assert (second["vault"], second["failed"], second["plain_failed"], second["met"]) == ("fscrypt", 1, 0, False)
        assert (missing["measure"], missing["vault"], missing["n"], missing["failed"]) == (
            "works here",
            "ecryptfs",
            0,
            1,
        )
        assert missing["note"] == f"VaultMissing: {LACKS}"
        assert pd.isna(missing["met"])
        assert math.isnan(missing["ratio"])

    def test_vaults_stand_together_under_each_measure_in_the_order_of_measuring(self) -> None:
        seconds = {"plain": PLAIN, "gocryptfs": PLAIN, "fscrypt": PLAIN}
        frames = [samples(seconds, measure) for measure in (encryption.READ, encryption.CLOSE, encryption.ASK)]
        table = encryption.costs(pd.concat(frames, ignore_index=True))
        measured = table[table["note"] == ""]
        assert measured["measure"].tolist() == [
            name for name in ("read a day", "close", "compute an ask") for _ in range(2)
        ]
        assert measured["vault"].tolist() == ["gocryptfs", "fscrypt"] * 3
        assert measured["target"].isna().tolist() == [False, False, True, True, False, False]

    @pytest.mark.parametrize("seconds", [{"plain": PLAIN}, {}, {"gocryptfs": PLAIN}])
    def test_without_plain_or_without_another_there_is_still_a_table(self, seconds: Mapping[str, list[float]]) -> None:
        table = encryption.costs(samples(seconds))
        lacking = set(table.loc[table["note"] != "", "vault"])
        assert lacking == set(VAULTS) - set(seconds)
        assert table.loc[table["note"] == "", "vault"].tolist() == [name for name in seconds if name != "plain"]


def test_the_disk_that_a_folder_takes_is_that_of_its_blocks(tmp_path: Path) -> None:
    empty = encryption.disk_mb(tmp_path)
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "full").write_bytes(os.urandom(1 << 20))
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(1 << 30)
    assert encryption.disk_mb(tmp_path) - empty == pytest.approx(1.0, abs=0.1)


def test_what_was_written_for_measuring_goes_again(tmp_path: Path) -> None:
    assert encryption.fsync_s(tmp_path) > 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OSError, match="missing"):
        encryption.fsync_s(tmp_path / "missing")
