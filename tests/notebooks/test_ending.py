"""However a program or a kernel with an open lab ends, short of SIGKILL, none of its clouds is left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from emlab.experiment import Experiment
from emlab.parts import make_engine
from tests.notebooks.nbval import write

pytestmark = [pytest.mark.needs("mongod"), pytest.mark.slow]
START = (
    "import emlab as em\nlab = em.Lab('process').start()\n[lab.controller.signup(name) for name in ('ann', 'bob')]\n"
)
HANG = "import threading\nthreading.Thread(target=threading.Event().wait, args=(60.0,)).start()\n"


def nothing_left(home: Path) -> bool:
    return not make_engine("process", home).find() and not list((home / "labs").iterdir())


def test_a_program_that_forgets_its_lab_leaves_no_cloud(home: Path) -> None:
    done = subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert nothing_left(home)


def test_a_program_that_is_told_to_end_leaves_no_cloud(home: Path) -> None:
    waiting = f"{START}print('open', flush=True)\nimport threading\nthreading.Event().wait(60.0)"
    with subprocess.Popen([sys.executable, "-c", waiting], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "open\n"
        assert not nothing_left(home)
        program.terminate()
        assert program.wait(30.0) == 128 + 15
    assert nothing_left(home)


@pytest.mark.needs("notebooks")
def test_a_kernel_that_fails_and_then_does_not_end_by_itself_leaves_no_cloud(home: Path, tmp_path: Path) -> None:
    write(tmp_path / "n.ipynb", 'out_dir = ""  # folder', "import math", f"{START}{HANG}1 / 0")
    (tmp_path / "e.toml").write_text('notebook = "n.ipynb"')
    frame = Experiment.load(tmp_path / "e.toml").run(tmp_path / "out", progress=False)
    assert frame["error"].tolist() == ["ZeroDivisionError: division by zero"]
    assert nothing_left(home)
