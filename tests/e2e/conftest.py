"""Homes for clouds in encrypting vaults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emlab.vaults import mounts
from tests.conftest import NEEDED_BY_VAULT
from tests.mounting import mounts_below


@pytest.fixture(params=["gocryptfs", "fscrypt"])
def vault(request: pytest.FixtureRequest, need: Callable[[str], None]) -> str:
    """Each encrypting vault's name in turn; eCryptfs has its own tests in tests/guest."""
    for needed in NEEDED_BY_VAULT[request.param]:
        need(needed)
    return str(request.param)


@pytest.fixture
def vault_home(
    vault: str, home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A fresh emlab home, which EMLAB_HOME names, on a file system that the vault can work on.

    No mount is left in it: one of a test that failed would be in the way of later ones.
    """
    folder = home
    if vault == "fscrypt":
        folder = Path(request.getfixturevalue("encrypting_disk"), "home")
        folder.mkdir(mode=0o700)
        monkeypatch.setenv("EMLAB_HOME", str(folder))
    yield folder
    left = mounts_below(folder)
    for point in left:
        mounts.unmount(Path(point), lazy=True)
    assert left == []
