"""Cleaning up after labs whose process is gone: by label and state file, never more than an emlab home's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from emlab.engines.base import Engine
from emlab.engines.rundir import make_run_dir
from emlab.errors import ConfigError, EmlabError, EngineMissing, LabInUse
from emlab.parts import ENGINES, load, make_engine, make_vault, missing_of
from emlab.registry import Registry


def clean(home: Path, lab: str | None = None, *, confirm: Callable[[], object] = lambda: None) -> list[str]:
    """Labs whose process is gone are removed, with clouds and data; one sentence for each.

    A lab whose engine or vault cannot be used now, or that cannot be read, is left as it is, and its sentence says so.

    Args:
        lab: only this one, even if it was kept; without it all but the kept ones, and clouds of these that they do
            not know.
        confirm: called before that one is removed, when nothing is in the way of it; what it raises keeps the lab.
    Raises: ConfigError (no such lab); if only one is to be removed, whatever keeps it from being: LabInUse, VaultBusy
        and others.
    """
    usable = [name for name in ("docker", "process") if missing_of(load(ENGINES, name, "engine")) is None]
    engines = [make_engine(name, home) for name in usable]
    labs = {path.name for path in (home / "labs").glob("*") if path.is_dir()} | {
        h.lab for engine in engines for h in engine.find()
    }
    if lab is not None and lab not in labs:
        raise ConfigError(f"there is no lab {lab!r} here; there are: {', '.join(sorted(labs)) or 'none'}")
    if lab is not None:
        return [_clean_one(home, lab, engines, confirm)]
    return [_try_one(home, name, engines) for name in sorted(labs)]


def _try_one(home: Path, name: str, engines: list[Engine]) -> str:
    try:
        return _clean_one(home, name, engines)
    except LabInUse as exc:
        return str(exc)
    except (EmlabError, OSError) as exc:
        return f"the lab {name} cannot be cleaned: {exc}"


def _remove_lost(home: Path, name: str, engines: list[Engine], known: set[str]) -> int:
    """No engine has a cloud that the lab does not know; how many there were. Their data stay in the lab's folder."""
    lost = [(engine, handle) for engine in engines for handle in engine.find(name) if handle.cloud not in known]
    for engine, handle in lost:
        engine.remove(handle)
        shutil.rmtree(make_run_dir(home, handle.cloud))
    return len(lost)


def _clean_one(home: Path, name: str, engines: list[Engine], confirm: Callable[[], object] | None = None) -> str:
    """With `confirm` also a lab that was kept."""
    registry = Registry(home / "labs" / name)
    registry.open(bereft=confirm is not None)
    try:
        if registry.known("keep") == "yes" and confirm is None:
            lost = _remove_lost(home, name, engines, {row.cloud for row in registry.clouds()})
            but = f", but {lost} clouds that it does not know are removed from their engines" if lost else ""
            return f"the lab {name} is kept{but}; remove it with: emlab clean --lab {name}"
        uses = registry.known("engine")
        if uses not in (None, "memory", *(engine.name for engine in engines)):
            raise EngineMissing(f"it is on the engine {uses}, which cannot be used now")
        if confirm is not None:
            confirm()
        make = make_vault(registry.known("vault") or "plain")
        vaults = [make(folder) for folder in sorted((home / "labs" / name / "clouds").glob("*"))]
        for vault in vaults:
            vault.shred_keys()  # first: whatever fails then, what is on disk is unreadable once it is closed
        handles = [(engine, handle) for engine in engines for handle in engine.find(name)]
        for engine, handle in handles:
            engine.remove(handle)
        clouds = {handle.cloud for _, handle in handles} | {row.cloud for row in registry.clouds()}
        for vault in vaults:
            vault.shred()  # also closes it
        for cloud in clouds:
            shutil.rmtree(make_run_dir(home, cloud))
        shutil.rmtree(home / "labs" / name)
        return f"the lab {name} is removed, with {len(clouds)} clouds"
    finally:
        registry.close()
