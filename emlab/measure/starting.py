"""How long a person waits for a new cloud, beside the same container started with the Docker SDK."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emlab.errors import ConfigError
from emlab.lab import Lab
from emlab.measure.plan import interleave
from emlab.measure.samples import Samples
from emlab.measure.twin import DockerTwin, docker_twin

if TYPE_CHECKING:
    import pandas as pd


def start(lab: Lab, *, n: int = 30, seed: int = 1) -> pd.DataFrame:
    """Samples of "start": from nothing to the first answer out of the cloud's MongoDB. Docker only.

    emlab: all of `controller.signup`: names, keys, registry, vault, directories, provisioning, container, readiness,
    and the answer. raw: create, start, and GET /health until it answers, asked after 1, 2, 4 ... 20 ms; with the same
    image, flags and mounts. Directories and provisioning of the raw arm are made before its time begins, since
    they are not Docker's work: the ratio therefore charges emlab with all that it does besides. Removal is not timed.
    One start of each arm comes first and is not a sample: it fills the caches of the machine.
    """
    from tqdm.auto import tqdm

    if lab.engine != "docker":
        raise ConfigError(f"there is no container to start beside those of the engine {lab.engine!r}")
    samples = Samples(lab.engine)
    with docker_twin(lab) as twin:
        with twin.place() as spec:
            twin.start(spec)
        for number, order in enumerate(tqdm(interleave(n, seed), desc="start", leave=False, disable=None)):
            for arm in order:
                if arm == "emlab":
                    _ours(samples, lab, number)
                else:
                    _raw(samples, twin, number)
    return samples.frame()


def _ours(samples: Samples, lab: Lab, number: int) -> None:
    user = f"measured-start-{number}"
    try:
        samples.time("start", "emlab", number, lambda: lab.controller.signup(user))
    finally:
        lab.controller.discard(user)


def _raw(samples: Samples, twin: DockerTwin, number: int) -> None:
    with twin.place() as spec:
        samples.time("start", "raw", number, lambda: twin.start(spec))
