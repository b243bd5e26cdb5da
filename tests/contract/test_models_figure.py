"""The central and the local model side by side: as a table and as a figure."""

from __future__ import annotations

import msgspec
import pytest

import emlab as em
from emlab import plots
from emlab.errors import ConfigError
from emlab.models import compare
from emlab.noise import NoNoise
from tests.contract.releases import COUNT

LOCAL = msgspec.structs.replace(COUNT, model="local", values=(61,))


def test_the_table_says_error_and_protection_of_each() -> None:
    table = compare([COUNT, LOCAL])
    assert table["draws"].tolist() == [1, COUNT.answered]
    for row, release in zip(table.itertuples(), (COUNT, LOCAL), strict=True):
        low, high = release.interval()
        assert (row.value, row.low, row.high, row.half_width) == (release.value, low, high, (high - low) / 2)
    assert table["half_width"][1] > 5 * table["half_width"][0]  # about the root of 51
    assert "the aggregator" in table["protects_not_from"][0]
    assert "the aggregator" not in table["protects_not_from"][1]


def test_what_has_no_noise_protects_nobody() -> None:
    (said,) = compare([msgspec.structs.replace(COUNT, noise=(NoNoise(),))])["protects_from"]
    assert "NOT PRIVATE" in said


def test_the_figure_shows_both_and_what_they_protect_from() -> None:
    figure = plots.models([COUNT, LOCAL], truth=44)
    words = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert any("exact: 44" in one for one in words)
    assert sum("protects from" in one for one in words) == 2
    assert [label.get_text().split()[0] for label in figure.axes[0].get_yticklabels()] == ["central", "local"]


def test_nothing_cannot_be_compared() -> None:
    with pytest.raises(ConfigError, match="no release"):
        compare([])
    assert em.Release is type(COUNT)
