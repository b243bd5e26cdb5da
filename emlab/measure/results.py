"""The folder of a run: samples, ratios, figure, page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from emlab import plots, report
from emlab.measure.ratio import compare
from emlab.measure.samples import as_events

if TYPE_CHECKING:
    import pandas as pd


def write_report(
    out_dir: str, samples: pd.DataFrame, params: Mapping[str, object], conditions: Mapping[str, object]
) -> list[Path]:
    """The folder holds the samples (events.parquet), their comparison (ratios.csv), its figure and report.html.

    Args:
        out_dir: "" writes nothing. params: what the run was told. conditions: as `conditions()` found them before it.
    Returns: the files.
    """
    if not out_dir:
        return []
    folder, table = Path(out_dir), compare(samples)
    files = report.write(
        folder,
        frame=as_events(samples),
        release=None,
        params=params,
        environment=report.environment(" ".join(filter(None, samples["engine"].unique())), "plain", **conditions),
        figures={"ratios": plots.ratios(table)},
        title="What emlab costs",
    )
    table.to_csv(folder / "ratios.csv", index=False)
    return [*files, folder / "ratios.csv"]
