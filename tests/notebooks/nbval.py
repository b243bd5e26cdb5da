"""Notebooks as a user runs them, by papermill's command, and their executed copies run again under nbval."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TypedDict
from xml.etree import ElementTree

ROOT = Path(__file__).parents[2]
CHECKED = "nbval-check-output"


class Output(TypedDict, total=False):
    data: dict[str, str | list[str]]


class Metadata(TypedDict, total=False):
    tags: list[str]


class Cell(TypedDict):
    id: str
    cell_type: str
    metadata: Metadata
    source: str | list[str]
    outputs: list[Output]
    execution_count: int | None


def papermill(notebook: str, out: Path, **parameters: str | int | float) -> subprocess.CompletedProcess[str]:
    """`papermill notebook out -p name value ...` from the checkout's root."""
    options = [word for name, value in parameters.items() for word in ("-p", name, str(value))]
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", notebook, str(out), *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def rerun(executed: Path) -> dict[str, str]:
    """What nbval says of each code cell: "" or the failure; the project's own pytest settings do not apply."""
    report = executed.with_suffix(".xml")
    (executed.parent / "pytest.ini").write_text("[pytest]")
    settings = ["-p", "no:cacheprovider", f"--junitxml={report}"]
    command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env", "-q", *settings, str(executed)]
    done = subprocess.run(command, cwd=executed.parent, capture_output=True, text=True, timeout=240, check=False)
    assert report.exists(), done.stdout + done.stderr
    names = [cell["id"] for cell in code_cells(executed)]
    found = {}
    for name, case in zip(names, ElementTree.parse(report).iter("testcase"), strict=True):
        failure = case.find("failure")
        found[name] = "" if failure is None else str(failure.text)
    return found


def write(path: Path, *sources: str) -> Path:
    """A notebook of these code cells, the first one tagged `parameters`."""
    cells = [
        {
            "id": f"cell-{index}",
            "cell_type": "code",
            "source": source.splitlines(keepends=True),
            "metadata": {} if index else {"tags": ["parameters"]},
            "execution_count": None,
            "outputs": [],
        }
        for index, source in enumerate(sources)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return path


def code_cells(path: Path) -> list[Cell]:
    cells: list[Cell] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def checked(path: Path) -> list[str]:
    """The ids of the cells whose values nbval compares."""
    return [cell["id"] for cell in code_cells(path) if CHECKED in cell["metadata"].get("tags", [])]


def mutate(executed: Path, cell_id: str, before: str, after: str) -> Path:
    """A copy in which one value of that cell's output is another one."""
    notebook = json.loads(executed.read_text(encoding="utf-8"))
    (cell,) = (cell for cell in notebook["cells"] if cell["id"] == cell_id)
    texts = [output["data"] for output in cell["outputs"] if before in "".join(output["data"]["text/plain"])]
    assert len(texts) == 1, f"{before!r} is not once in the outputs of {cell_id}"
    texts[0]["text/plain"] = "".join(texts[0]["text/plain"]).replace(before, after)
    copy = executed.with_name(f"mutated-{cell_id}.ipynb")
    copy.write_text(json.dumps(notebook), encoding="utf-8")
    return copy
