"""All that is measured on one engine, and where it was measured."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from emlab import images
from emlab.lab import Lab
from emlab.measure.memory import memory
from emlab.measure.pausing import pause_wake
from emlab.measure.phoning import phone
from emlab.measure.starting import start
from emlab.measure.storing import store
from emlab.simulate import Simulator

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd


def overhead(
    lab: Lab, entries: Sequence[object] | None = None, *, n: int = 30, n_clouds: int = 5, seed: int = 1
) -> pd.DataFrame:
    """Every comparison that this engine allows: start (Docker), pause, wake, store, a phone's calls, memory (Docker).

    Args:
        entries: of one day, in wire form; without it a simulated person's. n: rounds of each comparison.
        n_clouds: how many clouds' memory is read, after start and after work. seed: of the orders and the day.
    Returns:
        the samples, as `Samples.frame()` describes them.
    """
    import pandas as pd

    day: Sequence[object] = list(Simulator(1, 1, seed).person(0).entries()) if entries is None else entries
    frames = [pause_wake(lab, n=n, seed=seed), store(lab, day, n=n, seed=seed), phone(lab, day, n=n, seed=seed)]
    if lab.engine == "docker":
        frames = [start(lab, n=n, seed=seed), *frames, memory(lab, day, n=n_clouds)]
    return pd.concat(frames, ignore_index=True)


def conditions() -> dict[str, object]:
    """What the figures depend on besides versions: the image, and how busy the machine is now."""
    return {"image": images.current_tag(), "load_1min": round(os.getloadavg()[0], 2)}
