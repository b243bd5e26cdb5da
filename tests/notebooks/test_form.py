"""Every notebook has the form that STYLE asks for, and the check finds each way of leaving it."""

from __future__ import annotations

from pathlib import Path

import pytest

from emlab.experiment import declared
from tests.notebooks.form import faults
from tests.notebooks.nbval import write

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
PARAMETERS = 'n = 1  # people\nout_dir = ""  # folder'


def test_there_are_notebooks() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_has_the_form_of_all(path: Path) -> None:
    assert faults(path) == []
    assert "out_dir" in declared(path)


def test_a_good_notebook_has_no_faults(tmp_path: Path) -> None:
    many = "\n".join(["# prose in code", "", *["1"] * 32])
    assert faults(write(tmp_path / "n.ipynb", PARAMETERS, "import emlab as em", many)) == []


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        ((PARAMETERS, "import os", "\n".join(["1"] * 33)), "36 lines of code, more than 35"),
        (("n = 1", "import os"), "a parameter has no comment with its unit or meaning"),
        (("n = [1]  # people", "import os"), "a parameter is no plain scalar"),
        (("n = int()  # people", "import os"), "a parameter is no plain scalar"),
        ((PARAMETERS, "import os\nos"), "the second code cell has more than imports"),
        ((PARAMETERS, "import os", "import re"), "code cell 2 imports something; only the second one does"),
        ((PARAMETERS, "import os", "def f():\n    pass"), "code cell 2 defines something"),
        ((PARAMETERS, "import os", "f = lambda: 1"), "code cell 2 defines something"),
        ((PARAMETERS, "import os", "class A:\n    pass"), "code cell 2 defines something"),
        ((PARAMETERS, "import os", "time.sleep(1)"), "code cell 2 sleeps"),
        ((PARAMETERS, "from time import sleep"), "code cell 1 sleeps"),
        ((PARAMETERS, "import os", "!ls"), "code cell 2 calls a shell or a magic"),
        ((PARAMETERS, "import os", "%matplotlib inline"), "code cell 2 calls a shell or a magic"),
        ((PARAMETERS, "import os", "open('/etc/passwd')"), "code cell 2 has an absolute path"),
        ((PARAMETERS, "import os", "open('~/x')"), "code cell 2 has an absolute path"),
    ],
)
def test_each_fault_is_found(tmp_path: Path, sources: tuple[str, ...], fault: str) -> None:
    assert set(faults(write(tmp_path / "n.ipynb", *sources))) == {fault}


def test_parameters_that_are_not_tagged_and_outputs_that_are_kept_are_found(tmp_path: Path) -> None:
    path = write(tmp_path / "n.ipynb", PARAMETERS, "import os")
    good = path.read_text()
    path.write_text(good.replace('"parameters"', '"other"'))
    assert faults(path) == ["not the first code cell alone is tagged 'parameters', but []"]
    path.write_text(good.replace('"outputs": []', '"outputs": [{}]', 1))
    assert faults(path) == ["code cell 0 has outputs"]
    path.write_text(good.replace('"execution_count": null', '"execution_count": 1'))
    assert faults(path) == ["code cell 0 has outputs", "code cell 1 has outputs"]
