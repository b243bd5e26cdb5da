"""How long a fresh interpreter takes to import emlab."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

from emlab.measure.plan import interleave
from emlab.measure.samples import Samples

if TYPE_CHECKING:
    import pandas as pd

# `import emlab` loads names when they are used; the second one loads all that a lab is made of.
PROGRAMS = {"import emlab": "import emlab", "import Lab": "from emlab import Lab"}
NOTHING = "pass"


def imports(*, n: int = 30, seed: int = 1) -> pd.DataFrame:
    """Samples of "import emlab" and "import Lab": a whole interpreter, from its start to its end.

    emlab: `python -c "import emlab"`, and `"from emlab import Lab"`. raw: `python -c pass`.
    """
    from tqdm.auto import tqdm

    samples = Samples("")
    for measure, program in PROGRAMS.items():
        programs = {"emlab": program, "raw": NOTHING}
        for number, order in enumerate(tqdm(interleave(n, seed), desc=measure, leave=False, disable=None)):
            for arm in order:
                samples.time(measure, arm, number, partial(_run, programs[arm]))
    return samples.frame()


def _run(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True)
