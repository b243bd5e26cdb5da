"""An import may only point down: the layers of ARCHITECTURE.md, read from the source itself."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import emlab

Sources = Mapping[str, str]  # module, as it is named below emlab ("engines.base"), and its text

# A module belongs to the layer that names it or its folder. A new module must be entered here.
LAYERS = {
    0: "errors entries state key clock record geo polygon verdict",
    1: "arguments gate turns limits query queries loss noise tails ask receipt privacy policy explanation wishes "
    "profile restricted idle aggregate placement provision intake simulate planning models",
    2: "engines vaults store mongo_errors mongod ledger chain registry tokens audit tls images wire files releases",
    3: "admission archive controller lease remote_lease usercloud clouds lifecycle lives "
    "sweeping fanout custodian logbook me aggregator remote_aggregator provider pipeline diary emission service "
    "session waking uses removal",
    4: "apps",
    5: "kept lab remote rows machines serving parts cleaning ending experiment report plots panel cli cli_served "
    "cli_verify verifying demo measure __main__",
}
LAYER = {name: layer for layer, names in LAYERS.items() for name in names.split()}
# Of a folder with many implementations, others see these modules only ...
SHARED = {"engines": {"engines.base", "engines.rundir"}, "vaults": {"vaults.base"}}
# ... except the one that turns a name like "docker" into the thing.
CHOOSERS = {"parts"}
# `import emlab` stays under half a second because these wait in the functions that use them.
HEAVY = {"docker", "httpx", "ipywidgets", "jinja2", "matplotlib", "opendp", "pandas", "pyarrow", "shapely"}


def read_package() -> dict[str, str]:
    """Every module but emlab itself, whose `__init__` hands out names of all layers."""
    root = Path(emlab.__file__).parent
    files = {path.relative_to(root).with_suffix("").parts: path for path in root.rglob("*.py")}
    named = {".".join(parts[:-1] if parts[-1] == "__init__" else parts): path for parts, path in files.items()}
    return {name: path.read_text(encoding="utf-8") for name, path in sorted(named.items()) if name}


def statements(node: ast.AST, *, lazy: bool = True) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports under a node that run; not those for type checkers, without `lazy` not those in functions."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from statements(ast.Module(body=child.orelse, type_ignores=[]), lazy=lazy)
        elif lazy or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from statements(child, lazy=lazy)


def absolute(module: str, statement: ast.ImportFrom, *, is_package: bool) -> str:
    """The full dotted name that a `from ... import` takes things from."""
    if not statement.level:
        return statement.module or ""
    here = ["emlab", *module.split(".")]
    base = here[: len(here) - statement.level + is_package]
    return ".".join([*base, *([statement.module] if statement.module else [])])


def names(module: str, text: str, *, is_package: bool, lazy: bool = True) -> Iterator[tuple[str, str]]:
    """What a module imports, as (full dotted name of a module, name that is taken from it or "")."""
    for statement in statements(ast.parse(text), lazy=lazy):
        if isinstance(statement, ast.Import):
            yield from ((alias.name, "") for alias in statement.names)
        else:
            source = absolute(module, statement, is_package=is_package)
            yield from ((source, alias.name) for alias in statement.names)


def graph(sources: Sources) -> dict[str, set[str]]:
    """For each module the modules of emlab that it imports; "" stands for emlab itself."""
    edges: dict[str, set[str]] = {module: set() for module in sources}
    for module, text in sources.items():
        is_package = any(other.startswith(f"{module}.") for other in sources)
        for source, name in names(module, text, is_package=is_package):
            if source == "emlab" or source.startswith("emlab."):
                below = source.removeprefix("emlab").removeprefix(".")
                inner = f"{below}.{name}".removeprefix(".")
                edges[module].add(inner if inner in sources else below)
    return edges


def layer(module: str) -> int:
    """Where a module stands; one that no layer names stands at the top, where `strangers` finds it."""
    return LAYER.get(module.split(".")[0], max(LAYERS))


def strangers(sources: Sources) -> list[str]:
    """The modules that no layer names."""
    return [module for module in sources if module.split(".")[0] not in LAYER]


def upward(sources: Sources) -> list[str]:
    """The imports that point up, or to emlab itself, which imports all layers."""
    return [
        f"{module} -> {target or 'emlab'}"
        for module, targets in graph(sources).items()
        for target in sorted(targets)
        if not target or layer(target) > layer(module)
    ]


def too_concrete(sources: Sources) -> list[str]:
    """The imports of one engine or vault where only their common contract may be known."""
    return [
        f"{module} -> {target}"
        for module, targets in graph(sources).items()
        for target in sorted(targets)
        for folder, shared in SHARED.items()
        if target.split(".")[0] == folder and module.split(".")[0] != folder
        if target not in shared and module.split(".")[0] not in CHOOSERS
    ]


def cycle(sources: Sources) -> list[str]:
    """One circle of imports, empty if there is none."""
    try:
        TopologicalSorter(graph(sources)).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def too_early(sources: Sources) -> list[str]:
    """The heavy libraries that load together with a module."""
    return [
        f"{module} -> {source}"
        for module, text in sources.items()
        for source, _ in names(module, text, is_package=False, lazy=False)
        if source.split(".")[0] in HEAVY
    ]


def test_every_module_belongs_to_a_layer() -> None:
    assert strangers(read_package()) == []


def test_imports_point_down() -> None:
    assert upward(read_package()) == []


def test_only_one_place_knows_one_engine_from_another() -> None:
    assert too_concrete(read_package()) == []


def test_no_imports_go_in_circles() -> None:
    assert cycle(read_package()) == []


def test_heavy_libraries_are_imported_where_they_are_used() -> None:
    assert too_early(read_package()) == []


def test_the_whole_package_is_read() -> None:
    found = read_package()
    assert {"errors", "engines", "engines.base", "wire.transport", "privacy"} <= set(found)
    assert "" not in found
    assert graph(found)["engines.base"] >= {"state", "wire.transport"}


def test_a_module_without_a_layer_is_found() -> None:
    assert strangers({"errors": "", "helpers": "", "engines.new": "", "tools.new": ""}) == ["helpers", "tools.new"]


@pytest.mark.parametrize(
    "text",
    [
        "import emlab.lab",
        "import os, emlab.lab as lab",
        "from emlab.lab import Lab",
        "from emlab import lab",
        "from . import lab",
        "from .lab import Lab",
        "def f():\n    from emlab.lab import Lab",
        "class A:\n    async def f(self):\n        import emlab.lab",
        "try:\n    import emlab.lab\nexcept ImportError:\n    pass",
        "if TYPE_CHECKING:\n    import os\nelse:\n    import emlab.lab",
    ],
)
def test_an_import_that_points_up_is_found(text: str) -> None:
    assert upward({"lab": "", "store": text}) == ["store -> lab"]
    assert upward({"lab": "", "store": "", "cli": text}) == []


def test_emlab_itself_is_imported_by_no_module() -> None:
    assert upward({"store": "import emlab"}) == ["store -> emlab"]
    assert upward({"cli": "from emlab import Lab"}) == ["cli -> emlab"]


@pytest.mark.parametrize("test", ["TYPE_CHECKING", "typing.TYPE_CHECKING"])
def test_an_import_for_type_checkers_does_not_count(test: str) -> None:
    assert upward({"lab": "", "store": f"if {test}:\n    from emlab.lab import Lab"}) == []


def test_names_of_a_folder_are_told_from_its_modules() -> None:
    sources = {
        "engines": "from .base import Engine",
        "engines.base": "",
        "controller": "from emlab.engines import base",
    }
    assert graph(sources) == {"engines": {"engines.base"}, "engines.base": set(), "controller": {"engines.base"}}
    assert graph({"wire": "", "wire.a": "from ..state import X", "state": ""})["wire.a"] == {"state"}
    assert graph({"engines": "", "lab": "from emlab.engines import Engine"})["lab"] == {"engines"}


@pytest.mark.parametrize("actor", ["controller", "apps.controller", "store", "vaults.plain", "experiment"])
def test_a_concrete_engine_is_found_where_it_must_not_be_known(actor: str) -> None:
    sources = {"engines": "", "engines.base": "", "engines.docker": "", actor: "import emlab.engines.docker"}
    assert too_concrete(sources) == [f"{actor} -> engines.docker"]
    assert too_concrete({**sources, actor: "from emlab.engines.base import Engine"}) == []


def test_who_chooses_by_name_and_another_engine_may_know_it() -> None:
    text = "from emlab.engines import docker"
    assert too_concrete({"engines": "", "engines.docker": "", "parts": text, "engines.fleet": text}) == []


def test_a_circle_is_found_even_in_functions() -> None:
    found = cycle({"query": "import emlab.ask", "ask": "def f():\n    from emlab.query import Query", "geo": ""})
    assert set(found) == {"query", "ask"}


def test_a_heavy_library_is_found_unless_a_function_waits_for_it() -> None:
    assert too_early({"store": "import pandas as pd"}) == ["store -> pandas"]
    assert too_early({"store": "class A:\n    from matplotlib.figure import Figure"}) == ["store -> matplotlib.figure"]
    assert too_early({"store": "def f():\n    import pandas\nif TYPE_CHECKING:\n    import docker"}) == []
