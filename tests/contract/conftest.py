"""A mongod for many tests; a place and a key for a vault of each kind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emlab.key import Key
from emlab.ledger import DATABASE
from emlab.mongod import Mongod
from tests.contract.rest import Client


@pytest.fixture(scope="module")
def shared_client(need: Callable[[str], None]) -> Iterator[Client]:
    """One mongod for the tests of a module that do not end it."""
    need("mongod")
    folder = Path(tempfile.mkdtemp(prefix="em-"))
    (folder / "db").mkdir()
    with Mongod(folder / "db", folder) as server, server.client() as client:
        yield client
    shutil.rmtree(folder)


@pytest.fixture
def client(shared_client: Client) -> Iterator[Client]:
    """The same, with nothing of another test in its ledger."""
    yield shared_client
    shared_client.drop_database(DATABASE)


@pytest.fixture
def where(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """The vault's own directory, which is not there yet, on a file system that the vault can work on."""
    disk = request.getfixturevalue("encrypting_disk") if kind == "fscrypt" else tmp_path
    return Path(disk, "vault")


@pytest.fixture
def key() -> Key:
    """A fresh one."""
    return Key.random()
