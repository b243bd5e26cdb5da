"""The central and the local model side by side: what each release's error is, and whom it protects from what. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from emlab.aggregate import ALPHA, Release
from emlab.ask import Model
from emlab.errors import ConfigError
from emlab.noise import is_exact, spread

if TYPE_CHECKING:
    import pandas as pd

# Whom a person who answered is protected from, and whom not; the unit is one person's whole record.
PROTECTS: dict[Model, str] = {
    "central": "the provider and whoever sees the release: the aggregator added noise before it left",
    "local": "the provider, the aggregator, and whoever breaks into it: no clear answer leaves the cloud",
}
PROTECTS_NOT: dict[Model, str] = {
    "central": "the aggregator, which sees each clear answer; the host of the cloud while it runs",
    "local": "the host of the cloud while it runs",
}


def compare(releases: Sequence[Release], *, alpha: float = ALPHA) -> pd.DataFrame:
    """One row for each release: model, price, error, and what it protects from.

    Args:
        alpha: the risk of the intervals; 1e-12 to below 1.
    Returns:
        query, model, epsilon, rho (the other one is 0), answered, value, low, high, half_width (of the value, in
        `unit`), unit, noise_scale (of a single draw), draws (in the sum), trust, protects_from, protects_not_from.
    Raises: ConfigError: there is none, or one has several numbers (see its `frame`). BadQuery: alpha is out of bounds.
    """
    import pandas as pd

    if not releases:
        raise ConfigError("there is no release to compare")
    return pd.DataFrame([_row(release, alpha) for release in releases])


def _row(release: Release, alpha: float) -> dict[str, object]:
    low, high = release.interval(alpha)
    exact = is_exact(release.noise)
    return {
        "query": release.kind,
        "model": release.model,
        "epsilon": release.epsilon,
        "rho": release.loss.rho_nano / 1e9,
        "answered": release.answered,
        "value": release.value,
        "low": low,
        "high": high,
        "half_width": (high - low) / 2,
        "unit": release.unit,
        "noise_scale": spread(release.noise[0]),
        "draws": release.draws,
        "trust": release.trust,
        "protects_from": "nobody: NOT PRIVATE, no noise was added" if exact else PROTECTS[release.model],
        "protects_not_from": "everybody who sees the release" if exact else PROTECTS_NOT[release.model],
    }
