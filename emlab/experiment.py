"""Experiments: a grid of parameters, a notebook, one run folder per parameter set."""

from __future__ import annotations

import ast
import itertools
import json
import math
import os
import re
import shutil
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.clock import SYSTEM_CLOCK, Clock
from emlab.errors import ConfigError
from emlab.record import describe

if TYPE_CHECKING:
    import pandas as pd

Scalar = str | int | float | bool
_TABLES = {"notebook", "title", "parameters", "grid"}
MAX_RUNS = 10_000
MAX_ERROR = 500  # characters of an error that are kept
CLOSING_S = 10.0  # a kernel gets SIGTERM after half of it, and is killed after the whole; a cloud goes in 0.05 s
_KINDS: dict[type, str] = {str: "a text", int: "a whole number", float: "a number", bool: "a truth value"}
OUT_DIR = "out_dir"  # the parameter by which a notebook is told where its results go


def shipped(relative: str) -> Path:
    """A notebook or experiment: in a checkout beside the package, in an installed wheel inside it."""
    package = Path(__file__).parent
    for root in (package.parent, package / "_data"):
        if (root / relative).is_file():
            return root / relative
    raise ConfigError(f"{relative} is not part of this installation")


@dataclass(frozen=True)
class Run:
    """One parameter set: its folder's name and what came of it (`error` is empty if the notebook ended)."""

    name: str
    parameters: Mapping[str, Scalar]
    ok: bool
    error: str
    duration_s: float


@dataclass(frozen=True)
class Experiment:
    """A notebook run over a grid.

    Attributes:
        notebook: the notebook's path. title: for people.
        parameters: the same for each run. grid: lists of values; each combination is one run.
    """

    notebook: Path
    title: str
    parameters: Mapping[str, Scalar]
    grid: Mapping[str, tuple[Scalar, ...]] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path, overrides: Mapping[str, Scalar] | None = None) -> Experiment:
        """The experiment in a TOML file: `notebook`, `title`, tables [parameters] and [grid].

        Args:
            overrides: values of any of the notebook's parameters, in place of those in the file; one value takes the
                place of a whole list of the grid. A number is a text for a parameter that is one, such as "10 20 50".
        Raises: ConfigError (says what is wrong in which file).
        """
        raw = _read(path)
        unknown = set(raw) - _TABLES
        if unknown or "notebook" not in raw:
            raise ConfigError(f"{path}: needs a notebook; unknown: {', '.join(sorted(unknown)) or 'nothing'}")
        notebook = _notebook(path, raw["notebook"])
        parameters, grid = _table(path, raw, "parameters"), _table(path, raw, "grid")
        if twice := sorted(set(parameters) & set(grid)):
            raise ConfigError(f"{path}: {', '.join(twice)} stands in both [parameters] and [grid]")
        known = declared(notebook)
        for name, value in (overrides or {}).items():
            grid.pop(name, None)
            is_text = isinstance(known.get(name), str) and type(value) in (int, float)
            parameters[name] = str(value) if is_text else value
        lists = _lists(path, grid)
        return cls(
            notebook=notebook,
            title=str(raw.get("title", path.stem)),
            parameters={name: _checked(path, name, value, known) for name, value in parameters.items()},
            grid={name: tuple(_checked(path, name, value, known) for value in lists[name]) for name in lists},
        )

    def sets(self) -> list[dict[str, Scalar]]:
        """All parameter sets, in the grid's order. Raises ConfigError if there are more than 10,000."""
        combinations = list(itertools.islice(itertools.product(*self.grid.values()), MAX_RUNS + 1))
        if len(combinations) > MAX_RUNS:
            raise ConfigError(f"an experiment has at most {MAX_RUNS} runs")
        return [{**self.parameters, **dict(zip(self.grid, values, strict=True))} for values in combinations]

    def run(self, out_dir: Path, *, progress: bool = True, clock: Clock = SYSTEM_CLOCK) -> pd.DataFrame:
        """Each parameter set is run; a run that fails is recorded and the others go on.

        Every run has a folder with params.json, environment.json, run.json (ok, error, seconds), the executed notebook
        run.ipynb, and what the notebook wrote: release.json, events.parquet, report.html, figures. A folder of the
        same name is replaced.
        Returns: one row per run: run, ok, error, duration_s and the grid's parameters; also in out_dir/runs.csv.
        """
        import pandas as pd
        from tqdm.auto import tqdm

        runs = []
        sets = self.sets()
        for number, parameters in enumerate(tqdm(sets, desc=self.title, disable=None if progress else True), start=1):
            name = "-".join([f"{number:03d}", *(f"{key}={_plain(parameters[key])}" for key in self.grid)])
            runs.append(self._run_one(out_dir / name, name, parameters, clock))
            rows = [
                {"run": run.name, "ok": run.ok, "error": run.error, "duration_s": run.duration_s}
                | {key: run.parameters[key] for key in self.grid}
                for run in runs
            ]
            frame = pd.DataFrame(rows)
            frame.to_csv(out_dir / "runs.csv", index=False)
        return frame

    def _run_one(self, folder: Path, name: str, parameters: Mapping[str, Scalar], clock: Clock) -> Run:
        from emlab import report

        if folder.exists():
            shutil.rmtree(folder)  # of an earlier experiment: a run that fails must not show another one's results
        folder.mkdir(parents=True)
        start = clock.monotonic()
        _write(folder / "params.json", parameters)
        where = {name: str(parameters.get(name, "")) for name in ("engine", "vault")}
        _write(folder / "environment.json", report.environment(**where))
        error = self._execute(folder.resolve(), parameters)
        run = Run(name, parameters, ok=not error, error=error, duration_s=clock.monotonic() - start)
        _write(folder / "run.json", {"ok": run.ok, "error": run.error, "duration_s": run.duration_s})
        return run

    def _execute(self, folder: Path, parameters: Mapping[str, Scalar]) -> str:
        """The notebook was run with its results in that folder; "", or the error that ended it."""
        import papermill
        from papermill.exceptions import PapermillExecutionError
        from traitlets.config import Config

        try:
            with tempfile.TemporaryDirectory(prefix="em-", dir=_short_dir()) as private:
                # sockets in a folder of this user's: over TCP every user of the machine could read what a cell shows
                kernel = {"shutdown_wait_time": CLOSING_S, "transport": "ipc", "ip": f"{private}/kernel"}
                papermill.execute_notebook(
                    self.notebook,
                    folder / "run.ipynb",
                    parameters={**parameters, OUT_DIR: str(folder)},
                    cwd=folder,
                    kernel_name="python3",
                    progress_bar=False,
                    config=Config({"KernelManager": kernel}),
                )
        except PapermillExecutionError as exc:
            return f"{exc.ename}: {exc.evalue}"[:MAX_ERROR]
        except Exception as exc:
            # a kernel that dies, a notebook that is none: whatever ends one run is its result, not the experiment's end
            return describe(exc)
        return ""


def _short_dir() -> str:
    """Where sockets can lie: their whole paths have at most 107 bytes."""
    usual = tempfile.gettempdir()
    return usual if len(os.fsencode(usual)) <= 80 else "/tmp"  # noqa: S108 - the folder in it is this user's alone


def declared(notebook: Path) -> dict[str, Scalar]:
    """The parameters of a notebook and their defaults: what its cell tagged `parameters` sets.

    Raises: ConfigError (no notebook, no such cell, a default that is not plain, or no `out_dir`).
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        (cell,) = (cell for cell in cells if "parameters" in cell.get("metadata", {}).get("tags", []))
        statements = ast.parse("".join(cell["source"])).body
    except (OSError, ValueError, SyntaxError, LookupError, TypeError, AttributeError) as exc:
        raise ConfigError(f"{notebook} is no notebook with one cell tagged 'parameters': {describe(exc)}") from exc
    found = dict(_default(notebook, statement) for statement in statements)
    if OUT_DIR not in found:
        raise ConfigError(f"{notebook} has no parameter {OUT_DIR!r}, so it cannot be told where its results go")
    return found


def _default(notebook: Path, statement: ast.stmt) -> tuple[str, Scalar]:
    """Name and value that a line of a parameters cell sets."""
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        (target,) = statement.targets
        try:
            value = ast.literal_eval(statement.value)
        except ValueError:
            value = None
        if isinstance(target, ast.Name) and isinstance(value, Scalar):
            return target.id, value
    raise ConfigError(
        f"{notebook}: a parameter is set to one text, number or truth value, not {ast.unparse(statement)}"
    )


def _read(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:  # not UTF-8, and not TOML, are ValueErrors
        raise ConfigError(f"{path} cannot be read as an experiment: {exc}") from exc


def _table(path: Path, raw: Mapping[str, object], name: str) -> dict[str, object]:
    table = raw.get(name, {})
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {name} is a table, [{name}], not {table!r}")
    return dict(table)


def _checked(path: Path, name: str, value: object, known: Mapping[str, Scalar]) -> Scalar:
    """The value, if the notebook has that parameter and it can have that value. Raises ConfigError."""
    if name == OUT_DIR:
        raise ConfigError(f"{path}: {OUT_DIR} is each run's own folder and cannot be set")
    if name not in known:
        raise ConfigError(f"{path}: the notebook has no parameter {name!r}; it has {', '.join(known)}")
    if not isinstance(value, Scalar) or (isinstance(value, float) and not math.isfinite(value)):
        raise ConfigError(f"{path}: {name} must be a text, a finite number or a truth value, not {value!r}")
    wanted, given = type(known[name]), type(value)
    if given is not wanted and (wanted, given) != (float, int):
        raise ConfigError(f"{path}: {name} is {_KINDS[wanted]} in the notebook, not {value!r}")
    return value


def _notebook(experiment: Path, name: object) -> Path:
    if not isinstance(name, str):
        raise ConfigError(f"{experiment}: notebook is a path")
    for beside in (experiment.parent, experiment.parent.parent):
        if (beside / name).is_file():
            return (beside / name).resolve()
    raise ConfigError(f"{experiment}: there is no notebook {name}, neither beside it nor one folder up")


def _lists(path: Path, grid: Mapping[str, object]) -> dict[str, list[object]]:
    lists = {name: values for name, values in grid.items() if isinstance(values, list) and values}
    if wrong := sorted(set(grid) - set(lists)):
        raise ConfigError(f"{path}: grid.{wrong[0]} must be a list of at least one value")
    return lists


def _write(path: Path, values: Mapping[str, object]) -> None:
    path.write_text(json.dumps(dict(values), indent=2) + "\n", encoding="utf-8")


def _plain(value: Scalar) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]", "_", str(value))[:40]
