"""What a notebook of this project looks like: each sentence about one that does not."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.notebooks.nbval import Cell, code_cells

MAX_LINES = 35
TAG = "parameters"


def faults(path: Path) -> list[str]:
    """What is wrong with the notebook, a sentence each; its own outputs and metadata included."""
    cells = code_cells(path)
    sources = ["".join(cell["source"]) for cell in cells]
    return [*_length(sources), *_order(cells, sources), *_outputs(cells), *_constructs(sources)]


def _length(sources: Sequence[str]) -> Iterator[str]:
    lines = [line for source in sources for line in source.splitlines() if line.strip()]
    code = [line for line in lines if not line.lstrip().startswith("#")]
    if len(code) > MAX_LINES:
        yield f"{len(code)} lines of code, more than {MAX_LINES}"


def _order(cells: Sequence[Cell], sources: Sequence[str]) -> Iterator[str]:
    tagged = [index for index, cell in enumerate(cells) if TAG in cell["metadata"].get("tags", [])]
    if tagged != [0]:
        yield f"not the first code cell alone is tagged {TAG!r}, but {tagged}"
    elif any(not re.fullmatch(r"\w+ = .+  # .+", line) for line in sources[0].splitlines()):
        yield "a parameter has no comment with its unit or meaning"
    elif not all(isinstance(node, ast.Assign) and _scalar(node.value) for node in _parse(sources[0]).body):
        yield "a parameter is no plain scalar"
    for index, source in enumerate(sources):
        imports = [isinstance(node, ast.Import | ast.ImportFrom) for node in _parse(source).body]
        if index == 1 and not all(imports):
            yield "the second code cell has more than imports"
        if index != 1 and any(imports):
            yield f"code cell {index} imports something; only the second one does"


def _scalar(node: ast.expr) -> bool:
    try:
        return isinstance(ast.literal_eval(node), str | int | float | bool)
    except ValueError:
        return False


def _outputs(cells: Sequence[Cell]) -> Iterator[str]:
    for index, cell in enumerate(cells):
        if cell["outputs"] or cell["execution_count"] is not None:
            yield f"code cell {index} has outputs"


def _constructs(sources: Sequence[str]) -> Iterator[str]:
    for index, source in enumerate(sources):
        if re.search(r"^\s*[!%]", source, re.MULTILINE) or "get_ipython" in source:
            yield f"code cell {index} calls a shell or a magic"
        for node in ast.walk(_parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
                yield f"code cell {index} defines something"
            if isinstance(node, ast.Attribute | ast.Name | ast.alias) and "sleep" in ast.unparse(node):
                yield f"code cell {index} sleeps"
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.match(r"[/~]|\w:\\", node.value):
                yield f"code cell {index} has an absolute path"


def _parse(source: str) -> ast.Module:
    """The cell; lines of a shell or a magic, which are no Python, are found elsewhere."""
    return ast.parse(re.sub(r"^\s*[!%].*$", "pass", source, flags=re.MULTILINE))
