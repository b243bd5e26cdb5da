"""The folder of a run: samples, a table, figures, page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from emlab import plots, report
from emlab.measure.ratio import TARGETS, Target, compare, on_targets
from emlab.measure.samples import as_events

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def write_report(
    out_dir: str,
    samples: pd.DataFrame,
    params: Mapping[str, object],
    conditions: Mapping[str, object],
    *,
    targets: Mapping[tuple[str, str], Target] = TARGETS,
    title: str = "What emlab costs",
) -> list[Path]:
    """The folder holds the samples (events.parquet), their comparison (ratios.csv), its figure and report.html.

    Args:
        out_dir: "" writes nothing. params: what the run was told. conditions: as `conditions()` found them before it.
        targets: as for `compare`. title: of the page.
    Returns: the files.
    """
    if not out_dir:
        return []
    table = compare(samples, targets=targets)
    return write_run(
        Path(out_dir),
        samples,
        {"ratios.csv": table},
        params=params,
        figures={"ratios": plots.ratios(table)},
        title=title,
        environment=report.environment(" ".join(filter(None, samples["engine"].unique())), "plain", **conditions),
        lead=on_targets(table),
    )


def write_run(
    folder: Path,
    samples: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
    *,
    params: Mapping[str, object],
    figures: Mapping[str, Figure],
    title: str,
    environment: Mapping[str, object] | None = None,
    lead: str = "",
) -> list[Path]:
    """The folder holds samples as events.parquet, tables by name, figures and report.html; returns the files.

    Args:
        environment: as `report.environment` gives it; None is that of a run without clouds.
        lead: the first sentence of the page.
    """
    files = list(
        report.write(
            folder,
            frame=as_events(samples),
            release=None,
            params=params,
            environment=report.environment("", "plain") if environment is None else environment,
            figures=figures,
            title=title,
            lead=lead,
        )
    )
    for name, table in tables.items():
        table.to_csv(folder / name, index=table.index.name is not None)
    return [*files, *(folder / name for name in tables)]
