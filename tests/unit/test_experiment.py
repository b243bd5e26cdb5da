"""Experiments: what a TOML file may say, what it must not, and in which order its runs come."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from emlab.cli import _assignment
from emlab.errors import ConfigError
from emlab.experiment import Experiment, Scalar, declared, shipped

PARAMETERS = """\
engine = "auto"  # a name
n = 3  # people
epsilon = -0.5  # no unit
exact = False  # yes or no
out_dir = ""  # folder
"""


def write_notebook(path: Path, source: str = PARAMETERS, tags: tuple[str, ...] = ("parameters",)) -> Path:
    cell = {"cell_type": "code", "source": source.splitlines(keepends=True), "metadata": {"tags": list(tags)}}
    prose = {"cell_type": "markdown", "source": ["# A title"], "metadata": {}}
    path.write_text(json.dumps({"cells": [prose, cell], "nbformat": 4, "nbformat_minor": 5, "metadata": {}}))
    return path


def load(folder: Path, toml: str, overrides: Mapping[str, Scalar] | None = None) -> Experiment:
    """The experiment in this TOML, beside a notebook with PARAMETERS."""
    write_notebook(folder / "n.ipynb")
    (folder / "e.toml").write_text(toml)
    return Experiment.load(folder / "e.toml", overrides)


GOOD = """
notebook = "n.ipynb"
title = "a title"
[parameters]
engine = "memory"
exact = true
[grid]
epsilon = [0.5, 2]
n = [2, 1]
"""


def test_an_experiment_has_what_its_file_says(tmp_path: Path) -> None:
    experiment = load(tmp_path, GOOD)
    assert experiment.notebook == tmp_path / "n.ipynb"
    assert experiment.title == "a title"
    assert experiment.parameters == {"engine": "memory", "exact": True}
    assert experiment.grid == {"epsilon": (0.5, 2), "n": (2, 1)}


def test_a_file_needs_only_a_notebook(tmp_path: Path) -> None:
    experiment = load(tmp_path, 'notebook = "n.ipynb"')
    assert (experiment.title, experiment.sets()) == ("e", [{}])


def test_runs_come_in_the_order_of_the_grid_the_last_list_changing_fastest(tmp_path: Path) -> None:
    always = {"engine": "memory", "exact": True}
    assert load(tmp_path, GOOD).sets() == [
        {**always, "epsilon": 0.5, "n": 2},
        {**always, "epsilon": 0.5, "n": 1},
        {**always, "epsilon": 2, "n": 2},
        {**always, "epsilon": 2, "n": 1},
    ]


def test_a_notebook_is_found_beside_the_file_or_one_folder_up(tmp_path: Path) -> None:
    (tmp_path / "experiments").mkdir()
    (tmp_path / "notebooks").mkdir()
    notebook = write_notebook(tmp_path / "notebooks" / "n.ipynb")
    toml = tmp_path / "experiments" / "e.toml"
    toml.write_text('notebook = "notebooks/n.ipynb"')
    assert Experiment.load(toml).notebook == notebook


def test_an_override_takes_the_place_of_a_value_of_a_list_and_of_the_notebooks_default(tmp_path: Path) -> None:
    experiment = load(tmp_path, GOOD.replace("exact = true\n", ""), {"engine": "docker", "n": 7, "exact": True})
    assert experiment.parameters == {"engine": "docker", "n": 7, "exact": True}
    assert experiment.grid == {"epsilon": (0.5, 2)}


@pytest.mark.parametrize(
    ("toml", "sentence"),
    [
        ("notebook = ", "cannot be read as an experiment: "),
        ("", "needs a notebook; unknown: nothing"),
        ('notebook = "n.ipynb"\nrepeat = 3', "needs a notebook; unknown: repeat"),
        ("notebook = 3", "notebook is a path"),
        ('notebook = "m.ipynb"', "there is no notebook m.ipynb, neither beside it nor one folder up"),
        ('notebook = "n.ipynb"\nparameters = 3', "parameters is a table, [parameters], not 3"),
        ('notebook = "n.ipynb"\ngrid = [1, 2]', "grid is a table, [grid], not [1, 2]"),
        ('notebook = "n.ipynb"\n[parameters]\nm = 1', "the notebook has no parameter 'm'; it has engine, n, epsilon, "),
        ('notebook = "n.ipynb"\n[grid]\nm = [1]', "the notebook has no parameter 'm'; it has engine, n, epsilon, "),
        ('notebook = "n.ipynb"\n[parameters]\nn = 2000-01-01', "n must be a text, a finite number or a truth value, "),
        ('notebook = "n.ipynb"\n[parameters]\nn = [1]', "n must be a text, a finite number or a truth value, not [1]"),
        ('notebook = "n.ipynb"\n[grid]\nn = [1, [2]]', "n must be a text, a finite number or a truth value, not [2]"),
        ('notebook = "n.ipynb"\n[parameters]\nepsilon = nan', "epsilon must be a text, a finite number or a truth "),
        ('notebook = "n.ipynb"\n[parameters]\nepsilon = "1"', "epsilon is a number in the notebook, not '1'"),
        ('notebook = "n.ipynb"\n[parameters]\nn = 1.5', "n is a whole number in the notebook, not 1.5"),
        ('notebook = "n.ipynb"\n[parameters]\nn = true', "n is a whole number in the notebook, not True"),
        ('notebook = "n.ipynb"\n[parameters]\nexact = 1', "exact is a truth value in the notebook, not 1"),
        ('notebook = "n.ipynb"\n[grid]\nengine = ["memory", 2]', "engine is a text in the notebook, not 2"),
        ('notebook = "n.ipynb"\n[grid]\nn = 2', "grid.n must be a list of at least one value"),
        ('notebook = "n.ipynb"\n[grid]\nn = []', "grid.n must be a list of at least one value"),
        ('notebook = "n.ipynb"\n[parameters]\nn = 1\n[grid]\nn = [2]', "n stands in both [parameters] and [grid]"),
        ('notebook = "n.ipynb"\n[parameters]\nout_dir = "x"', "out_dir is each run's own folder and cannot be set"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_wrong(tmp_path: Path, toml: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, toml)
    assert str(tmp_path / "e.toml") in str(caught.value)
    assert sentence in str(caught.value)


def test_a_file_that_is_missing_or_no_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read as an experiment"):
        Experiment.load(tmp_path / "none.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot be read as an experiment"):
        Experiment.load(tmp_path / "binary.toml")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"m": 1}, "the notebook has no parameter 'm'"),
        ({"n": "two"}, "n is a whole number in the notebook, not 'two'"),
        ({"out_dir": "x"}, "out_dir is each run's own folder"),
    ],
)
def test_a_wrong_override_is_said_before_anything_runs(
    tmp_path: Path, overrides: Mapping[str, Scalar], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence):
        load(tmp_path, GOOD, overrides)


def test_a_number_on_the_command_line_is_a_text_where_one_is_wanted(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD, dict(map(_assignment, ["engine=10", "n=4"]))).parameters == {
        "engine": "10",
        "n": 4,
        "exact": True,
    }


def test_more_runs_than_anybody_means_are_refused(tmp_path: Path) -> None:
    values = ", ".join(str(n) for n in range(101))
    experiment = load(tmp_path, f'notebook = "n.ipynb"\n[grid]\nn = [{values}]\nepsilon = [{values}]')
    with pytest.raises(ConfigError, match="at most 10000 runs"):
        experiment.run(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_a_notebook_declares_is_read_with_its_defaults(tmp_path: Path) -> None:
    assert declared(write_notebook(tmp_path / "n.ipynb")) == {
        "engine": "auto",
        "n": 3,
        "epsilon": -0.5,
        "exact": False,
        "out_dir": "",
    }


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("n = 1", "has no parameter 'out_dir', so it cannot be told where its results go"),
        ('out_dir = ""\nn = [1]', "a parameter is set to one text, number or truth value, not n = [1]"),
        ('out_dir = ""\na, b = 1, 2', "a parameter is set to one text, number or truth value, not a, b = (1, 2)"),
        ('out_dir = ""\nn = len("x")', "a parameter is set to one text, number or truth value, not n = len('x')"),
        ("import os", "a parameter is set to one text, number or truth value, not import os"),
        ("!ls", "is no notebook with one cell tagged 'parameters': SyntaxError"),
    ],
)
def test_a_notebook_that_cannot_be_run_over_a_grid_says_why(tmp_path: Path, source: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        declared(write_notebook(tmp_path / "n.ipynb", source))
    assert sentence in str(caught.value)


def test_a_notebook_without_a_parameters_cell_or_that_is_none_is_said(tmp_path: Path) -> None:
    path = write_notebook(tmp_path / "n.ipynb", tags=("other",))
    with pytest.raises(ConfigError, match="no notebook with one cell tagged 'parameters'"):
        declared(path)
    for text in ("{}", "[]", "not json", '{"cells": [3]}'):
        path.write_text(text)
        with pytest.raises(ConfigError, match="no notebook with one cell tagged 'parameters'"):
            declared(path)


def test_the_experiment_that_is_shipped_fits_its_notebook() -> None:
    experiment = Experiment.load(shipped("experiments/quickstart.toml"), {"engine": "process", "n_users": 2})
    assert experiment.notebook == shipped("notebooks/quickstart.ipynb")
    assert all(run["n_users"] == 2 and run["engine"] == "process" for run in experiment.sets())
    assert len(experiment.sets()) > 1
    with pytest.raises(ConfigError, match="is not part of this installation"):
        shipped("experiments/none.toml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("x=5", 5),
        ("x=-5", -5),
        ("x=0.5", 0.5),
        ("x=1e-3", 1e-3),
        ("x=true", True),
        ("x=True", "True"),
        ("x=docker", "docker"),
        ('x="5"', "5"),
        ("x=", ""),
        ("x=a=b", "a=b"),
        (" x =5", 5),
    ],
)
def test_a_value_on_the_command_line_is_a_number_a_truth_value_or_else_a_text(text: str, value: Scalar) -> None:
    name, found = _assignment(text)
    assert (name, found, type(found)) == ("x", value, type(value))


@pytest.mark.parametrize("text", ["x", "=5", " =5", "x=[1, 2]", "x={a=1}", "x=2000-01-01"])
def test_what_is_no_value_on_the_command_line_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        _assignment(text)
