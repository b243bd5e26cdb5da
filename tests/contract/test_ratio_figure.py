"""The figure of ratios, drawn for real."""

from __future__ import annotations

import io
import math

import numpy as np
import pandas as pd
import pytest

from emlab import plots
from emlab.measure import compare, encryption
from tests.unit import test_encryption_cost as vaults
from tests.unit.test_measure import samples


class TestFigure:
    def test_every_row_shows_its_ratio_interval_target_rounds_and_failures(self) -> None:
        frames = [samples([1.1] * 5, [1.0] * 5), samples([2.0] * 4 + [math.inf], [1.0] * 5, "store a day")]
        frames.append(samples([0.1] * 5, [0.01] * 5, "import emlab", ""))
        figure = plots.ratios(compare(pd.concat(frames, ignore_index=True)))
        against_raw, against_limit = figure.axes[:2]
        names = [label.get_text() for axes in (against_raw, against_limit) for label in axes.get_yticklabels()]
        assert names == ["pause on docker", "store a day on docker", "import emlab"]
        (beside,) = against_raw.child_axes
        pause, store = (label.get_text() for label in beside.get_yticklabels())
        for part in ("1.10 [1.10, 1.10]", "target 1.25", "1,100 ms / 1,000 ms", "n = 5, 0 failed"):
            assert part in pause
        assert "n = 5, 1 failed" in store
        assert "3 measures, 1 attempts failed" in against_raw.texts[0].get_text()
        drawn = {float(x) for line in against_raw.lines for x in np.asarray(line.get_xdata())}
        assert {1.25, 2.0} <= drawn

    @pytest.mark.parametrize("engine", ["docker", "process"])
    @pytest.mark.parametrize("values", [[math.inf], [1.0], [1.0, math.inf]])
    def test_thin_and_failed_data_is_drawn_too(self, values: list[float], engine: str) -> None:
        file = io.BytesIO()
        for raw in (values, [math.inf] * len(values)):
            plots.ratios(compare(samples(values, raw, engine=engine))).savefig(file, format="png")
        plots.ratios(compare(samples([], []))).savefig(file, format="png")
        assert file.getvalue().startswith(b"\x89PNG")

    def test_each_vault_has_a_row_and_one_that_cannot_run_says_why(self) -> None:
        frame = vaults.samples({"plain": [1.0] * 5, "gocryptfs": [1.1] * 5, "fscrypt": [math.inf] * 5})
        axes = plots.vault_costs(encryption.costs(frame)).axes[0]
        names = [label.get_text() for label in axes.get_yticklabels()]
        assert names == ["store a day on gocryptfs", "store a day on fscrypt", "works here on ecryptfs"]
        (beside,) = axes.child_axes
        gocryptfs, fscrypt, ecryptfs = (label.get_text() for label in beside.get_yticklabels())
        assert "1.10 [1.10, 1.10], target 1.2;  1,100 ms / 1,000 ms" in gocryptfs
        assert "never" in fscrypt
        assert ecryptfs == f"VaultMissing: {vaults.LACKS}"
