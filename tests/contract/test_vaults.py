"""One contract for vaults, over every implementation that this host can run."""

from __future__ import annotations

from pathlib import Path

import pytest

from emlab.errors import VaultError, WrongKey
from emlab.key import Key
from emlab.parts import VAULTS, make_vault
from emlab.vaults.base import Vault


@pytest.fixture(params=sorted(VAULTS))
def vault(request: pytest.FixtureRequest, tmp_path: Path) -> Vault:
    return make_vault(request.param)(tmp_path / "vault")


@pytest.fixture
def key() -> Key:
    return Key.random()


class TestVault:
    def test_what_was_written_is_there_after_closing_and_opening(self, vault: Vault, key: Key) -> None:
        vault.create(key)
        assert not vault.is_open
        clear = vault.open(key)
        (clear / "file").write_bytes(b"kept")
        vault.close()
        assert not vault.is_open
        assert not clear.exists()
        assert (vault.open(key) / "file").read_bytes() == b"kept"

    def test_a_wrong_key_opens_nothing(self, vault: Vault, key: Key) -> None:
        vault.create(key)
        with pytest.raises(WrongKey):
            vault.open(Key.random())
        assert not vault.is_open

    def test_opening_and_closing_twice_is_as_once(self, vault: Vault, key: Key) -> None:
        vault.create(key)
        assert vault.open(key) == vault.open(key)
        vault.close()
        vault.close()
        assert not vault.is_open

    def test_a_vault_is_never_made_over_another(self, vault: Vault, key: Key) -> None:
        vault.create(key)
        with pytest.raises(VaultError, match="already"):
            vault.create(Key.random())
        vault.open(key)

    def test_there_is_nothing_to_open_before_it_was_made(self, vault: Vault, key: Key) -> None:
        with pytest.raises(VaultError):
            vault.open(key)

    def test_its_parent_holds_the_open_directory_and_nothing_else(self, vault: Vault, key: Key) -> None:
        vault.create(key)
        assert list(vault.parent.iterdir()) == []
        clear = vault.open(key)
        assert list(vault.parent.iterdir()) == [clear]

    def test_nobody_else_can_enter(self, vault: Vault, key: Key) -> None:
        vault.create(key)
        assert vault.open(key).stat().st_mode & 0o077 == 0
        assert vault.parent.stat().st_mode & 0o077 == 0
