"""The concrete engines and vaults, by name: so that everything above and below knows only their protocols."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from emlab.clock import SystemClock
from emlab.engines.base import Engine
from emlab.errors import ConfigError, EngineMissing, ImageMissing, VaultMissing
from emlab.state import CloudSpec
from emlab.vaults.base import Vault
from emlab.wire.transport import App

ENGINES = {
    "docker": "emlab.engines.docker:DockerEngine",
    "process": "emlab.engines.process:ProcessEngine",
    "memory": "emlab.engines.memory:MemoryEngine",
}
VAULTS = {
    "gocryptfs": "emlab.vaults.gocryptfs:GocryptfsVault",
    "fscrypt": "emlab.vaults.fscrypt:FscryptVault",
    "ecryptfs": "emlab.vaults.ecryptfs:EcryptfsVault",
    "plain": "emlab.vaults.plain:PlainVault",
}


def emlab_home() -> Path:
    """Where labs live: $EMLAB_HOME, or this user's data folder."""
    import platformdirs

    return Path(os.environ.get("EMLAB_HOME") or platformdirs.user_data_dir("emlab"))


def lab_names() -> list[str]:
    """The labs that are there, in the order of their names."""
    return sorted(path.name for path in (emlab_home() / "labs").glob("*") if path.is_dir())


def load(table: dict[str, str], name: str, kind: str) -> type:
    """The class of this name in ENGINES or VAULTS. Raises ConfigError, naming those that there are."""
    if name not in table:
        raise ConfigError(f"there is no {kind} {name!r}; choose one of auto, {', '.join(table)}")
    module, attribute = table[name].split(":")
    loaded = getattr(importlib.import_module(module), attribute)
    assert isinstance(loaded, type)
    return loaded


def missing_of(driver: type) -> str | None:
    """What this host lacks for an engine or vault; None if nothing."""
    lacks: str | None = driver.missing()  # type: ignore[attr-defined]
    return lacks


def make_engine(name: str, home: Path) -> Engine:
    """The engine of this name.

    Raises: ConfigError (no such engine), EngineMissing (this host cannot run it; says what to do).
    """
    engine = load(ENGINES, name, "engine")
    lacks = missing_of(engine)
    if lacks is not None:
        raise EngineMissing(lacks)
    made: Engine = engine(_memory_app()) if name == "memory" else engine(home)
    return made


def make_vault(name: str, folder: Path | None = None) -> Callable[[Path], Vault]:
    """Makes a vault of this kind in a directory.

    Args:
        folder: where it is to work; without it only the host is looked at.
    Raises: ConfigError (no such vault), VaultMissing (says what to do).
    """
    vault = load(VAULTS, name, "vault")
    lacks = missing_of(vault) if folder is None else vault.missing_in(folder)  # type: ignore[attr-defined]
    if lacks is not None:
        raise VaultMissing(lacks)
    return vault


def choose_vault(folder: Path) -> tuple[str, str]:
    """The vault that protects best of those that work in a folder, and the reason.

    First gocryptfs, the only one that notices changed data; then fscrypt and eCryptfs, which do not, and of which the
    kernel's own is faster and has a key for each file. If only "plain" is left, the reason says that nothing is
    encrypted, and the caller must pass that on.
    """
    lacks: list[str] = []
    for name in VAULTS:
        vault: Vault = load(VAULTS, name, "vault")  # type: ignore[assignment]
        reason = vault.missing_in(folder)
        if name == "plain":
            return name, f"nothing is encrypted: {'; '.join(lacks)}"
        if reason is None:
            return name, "; ".join([f"{name} works here", *lacks])
        lacks.append(reason)
    raise AssertionError("plain works everywhere")


def choose_engine() -> tuple[str, str]:
    """ "docker" or "process", and the reason."""
    from emlab import images

    lacks = missing_of(load(ENGINES, "docker", "engine")) or unready("docker")
    if lacks is not None:
        return "process", lacks
    return "docker", f"a Docker engine answers and has the image {images.current_tag()}"


def unready(engine: str) -> str | None:
    """Why an engine that answers cannot start a cloud now; None if it can."""
    if engine != "docker":
        return None
    import docker

    from emlab import images

    client = docker.from_env()
    try:
        images.require(client)
    except ImageMissing as exc:
        return str(exc)
    finally:
        client.close()
    return None


def build_image(say: Callable[[str], None], *, base: str | None = None) -> str:
    """The Docker engine has the image of this tree; returns its tag. Raises EngineMissing, EngineError."""
    import docker

    from emlab import images

    lacks = missing_of(load(ENGINES, "docker", "engine"))
    if lacks is not None:
        raise EngineMissing(lacks)
    client = docker.from_env(timeout=600)
    try:
        return images.build(client, base=base, progress=say)
    finally:
        client.close()


class _Hasty(SystemClock):
    """Does not wait: within one process an answer's time hides nothing."""

    def wait(self, seconds: float) -> None:
        """Return at once."""


def _memory_app() -> Callable[[CloudSpec], App]:
    """Makes the app of a cloud that lives in this process; a stopped cloud's data is kept for its next start."""
    from emlab import provision as provisioning
    from emlab.chain import MemoryChain
    from emlab.custodian import Custodian
    from emlab.ledger import MemoryLedger
    from emlab.store import MemoryStore
    from emlab.wire.serve import custodian_server

    kept: dict[str, tuple[MemoryStore, MemoryLedger, MemoryChain]] = {}

    def serve(spec: CloudSpec) -> App:
        import uuid

        provision = provisioning.read(spec.run_dir)
        provisioning.check_marker(spec.vault_dir, provision.marker)
        if spec.cloud not in kept:
            kept[spec.cloud] = MemoryStore(uuid.UUID(spec.cloud)), MemoryLedger(), MemoryChain(spec.cloud)
        store, ledger, chain = kept[spec.cloud]
        publish = partial(provisioning.publish, spec.run_dir)
        return custodian_server(Custodian(provision, store, ledger, publish=publish, chain=chain, clock=_Hasty()))

    return serve
