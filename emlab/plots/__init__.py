"""Every figure of emlab, drawn from recorded data alone.

Each function returns a Figure that belongs to nobody: no pyplot state, no window, no file; a notebook shows it. The
same span has the same colour and marker in every figure, the same engine the same line, the same mode of travel the
same colour; the colours differ in lightness, so that a figure can be read in greyscale.
"""

from emlab.plots.asks import decay, errors, misses, model_errors, participation
from emlab.plots.lab import latency, noise_of, ratios, release, vault_costs
from emlab.plots.models import models
from emlab.plots.phases import phases
from emlab.plots.travel import days, trip_map
from emlab.plots.waits import waits

__all__ = [
    "days",
    "decay",
    "errors",
    "latency",
    "misses",
    "model_errors",
    "models",
    "noise_of",
    "participation",
    "phases",
    "ratios",
    "release",
    "trip_map",
    "vault_costs",
    "waits",
]
