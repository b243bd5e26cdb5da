"""Experiments: a grid of parameters, a notebook, one run folder per parameter set."""

from __future__ import annotations

import itertools
import json
import re
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
            overrides: replace a parameter, or a whole list of the grid by one value.
        Raises: ConfigError (says what is wrong in which file).
        """
        try:
            raw = tomllib.loads(path.read_text())
        except (OSError, tomllib.TOMLDecodeError) as exc:
            raise ConfigError(f"{path} cannot be read as an experiment: {exc}") from exc
        unknown = set(raw) - _TABLES
        if unknown or "notebook" not in raw:
            raise ConfigError(f"{path}: needs a notebook; unknown: {', '.join(sorted(unknown)) or 'nothing'}")
        parameters, grid = dict(raw.get("parameters", {})), dict(raw.get("grid", {}))
        for name, value in (overrides or {}).items():
            if name not in parameters | grid:
                known = ", ".join(sorted(parameters | grid))
                raise ConfigError(f"{path} has no parameter {name!r}; it has {known}")
            grid.pop(name, None)
            parameters[name] = value
        return cls(
            notebook=_notebook(path, raw["notebook"]),
            title=str(raw.get("title", path.stem)),
            parameters=_scalars(path, parameters),
            grid={name: tuple(_scalars(path, {name: v})[name] for v in values) for name, values in _lists(path, grid)},
        )

    def sets(self) -> list[dict[str, Scalar]]:
        """All parameter sets, in the grid's order. Raises ConfigError if there are more than 10,000."""
        combinations = list(itertools.islice(itertools.product(*self.grid.values()), MAX_RUNS + 1))
        if len(combinations) > MAX_RUNS:
            raise ConfigError(f"an experiment has at most {MAX_RUNS} runs")
        return [{**self.parameters, **dict(zip(self.grid, values, strict=True))} for values in combinations]

    def run(self, out_dir: Path, *, progress: bool = True, clock: Clock = SYSTEM_CLOCK) -> pd.DataFrame:
        """Each parameter set is run; a run that fails is recorded and the others go on.

        Every run has a folder with params.json, run.json (ok, error, seconds), the executed notebook run.ipynb, and
        what the notebook wrote: release.json, events.parquet, environment.json, report.html, figures.
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
        import papermill
        from papermill.exceptions import PapermillExecutionError

        folder.mkdir(parents=True, exist_ok=True)
        folder = folder.resolve()
        start = clock.monotonic()
        (folder / "params.json").write_text(json.dumps(dict(parameters), indent=2))
        error = ""
        try:
            papermill.execute_notebook(
                self.notebook,
                folder / "run.ipynb",
                parameters={**parameters, "out_dir": str(folder)},
                cwd=folder,
                kernel_name="python3",
                progress_bar=False,
            )
        except PapermillExecutionError as exc:
            error = f"{exc.ename}: {exc.evalue}"[:500]
        except Exception as exc:
            # a kernel that dies, a notebook that is none: whatever ends one run is its result, not the experiment's end
            error = describe(exc)
        run = Run(name, parameters, ok=not error, error=error, duration_s=clock.monotonic() - start)
        (folder / "run.json").write_text(
            json.dumps({"ok": run.ok, "error": run.error, "duration_s": run.duration_s}, indent=2)
        )
        return run


def _notebook(experiment: Path, name: object) -> Path:
    if not isinstance(name, str):
        raise ConfigError(f"{experiment}: notebook is a path")
    for beside in (experiment.parent, experiment.parent.parent):
        if (beside / name).is_file():
            return (beside / name).resolve()
    raise ConfigError(f"{experiment}: there is no notebook {name}, neither beside it nor one folder up")


def _scalars(path: Path, values: Mapping[str, object]) -> dict[str, Scalar]:
    plain = {name: value for name, value in values.items() if isinstance(value, Scalar)}
    if len(plain) < len(values):
        wrong = ", ".join(sorted(set(values) - set(plain)))
        raise ConfigError(f"{path}: {wrong} must be a text, a number or a truth value")
    return plain


def _lists(path: Path, grid: Mapping[str, object]) -> list[tuple[str, list[object]]]:
    for name, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{path}: grid.{name} must be a list of at least one value")
    return [(name, list(values)) for name, values in grid.items() if isinstance(values, list)]


def _plain(value: Scalar) -> str:
    return re.sub(r"[^A-Za-z0-9.+-]", "_", str(value))[:40]
