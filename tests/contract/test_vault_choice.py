"""Which vault is chosen where nobody names one, and that the reason says what is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from emlab.key import Key
from emlab.parts import VAULTS, choose_vault, make_vault


@pytest.fixture
def without_gocryptfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")


def without_ecryptfs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("emlab.vaults.ecryptfs._kernel_has_it", lambda: False)


@pytest.mark.needs("gocryptfs")
def test_what_notices_changed_data_comes_first(tmp_path: Path) -> None:
    assert choose_vault(tmp_path) == ("gocryptfs", "gocryptfs works here")


def test_what_the_file_system_offers_comes_next(encrypting_disk: Path, without_gocryptfs: None) -> None:
    name, reason = choose_vault(encrypting_disk)
    assert name == "fscrypt"
    assert reason.startswith("fscrypt works here; no gocryptfs on PATH")


def test_plain_is_chosen_last_and_not_silently(
    tmp_path: Path, without_gocryptfs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_ecryptfs(monkeypatch)
    monkeypatch.setattr("emlab.vaults.fscrypt._FEATURES", ())
    name, reason = choose_vault(tmp_path)
    assert name == "plain"
    assert reason.startswith("nothing is encrypted: ")
    for word in ("gocryptfs", "CONFIG_FS_ENCRYPTION", "no eCryptfs"):
        assert word in reason
    assert list(VAULTS)[-1] == "plain"


@pytest.mark.parametrize("crippled", [False, True])
def test_what_was_chosen_works_there(encrypting_disk: Path, crippled: bool, request: pytest.FixtureRequest) -> None:
    if crippled:
        request.getfixturevalue("without_gocryptfs")
    vault, key = make_vault(choose_vault(encrypting_disk)[0])(encrypting_disk / "vault"), Key.random()
    vault.create(key)
    (vault.open(key) / "file").write_text("kept")
    vault.close()
    assert (vault.open(key) / "file").read_text() == "kept"
    vault.shred()
