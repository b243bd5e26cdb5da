"""The cost of encryption measured with real clouds and few rounds: every vault took every turn. No time is judged."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import emlab as em
from emlab.measure import encryption
from emlab.parts import VAULTS
from emlab.vaults.gocryptfs import GocryptfsVault

N = 2
TIMED = {
    encryption.INSERT,
    encryption.STORE,
    encryption.READ,
    encryption.ASK,
    encryption.OPEN,
    encryption.FSYNC,
    encryption.CLOSE,
    encryption.COLD,
    encryption.FIRST,
}
FILES = {"params.json", "environment.json", "events.parquet", "costs.csv", "costs.png", "report.html"}
pytestmark = pytest.mark.needs("mongod")


def check(samples: pd.DataFrame) -> set[str]:
    """Every vault works or says what it lacks; those that work, which are returned, took each turn of each measure."""
    works = samples[samples["measure"] == encryption.WORKS].set_index("arm")
    assert set(works.index) == set(VAULTS)
    assert works.loc["plain", "ok"]
    assert works.loc["gocryptfs", "ok"] == (GocryptfsVault.missing() is None)
    assert works.loc[~works["ok"], "error"].str.match("VaultMissing: |VaultError: ").all()
    there = set(works.index[works["ok"]])
    rest = samples[samples["measure"] != encryption.WORKS]
    assert rest["error"].tolist() == [""] * len(rest)
    assert (rest["value"] > 0).all()
    expected = {(measure, name, number) for measure in TIMED for name in there for number in range(N)}
    expected |= {(encryption.DISK, name, 0) for name in there}
    assert set(zip(rest["measure"], rest["arm"], rest["round"], strict=True)) == expected
    assert len(rest) == len(expected)
    return there


@pytest.mark.parametrize("engine_name", ["process", pytest.param("docker", marks=pytest.mark.slow)], indirect=True)
def test_every_vault_takes_every_turn_and_nothing_is_left(engine_name: str, home: Path) -> None:
    check(encryption.side_by_side(engine_name, n=N, seed=5))
    assert list((home / "labs").iterdir()) == []
    assert str(home) not in Path("/proc/self/mountinfo").read_text()


def test_where_no_cloud_starts_each_vault_says_why(home: Path) -> None:
    samples = encryption.side_by_side("no-engine", n=N, seed=5)
    assert samples["measure"].tolist() == [encryption.WORKS] * len(VAULTS)
    table = encryption.costs(samples)
    assert sorted(table["vault"]) == sorted(VAULTS)
    assert table["note"].str.contains("no-engine|VaultMissing").all()


@pytest.mark.slow
@pytest.mark.needs("notebooks")
def test_the_shipped_experiment_compares_all_vaults(home: Path, tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "experiments" / "encryption_cost.toml"
    frame = em.Experiment.load(shipped, {"n": N}).run(tmp_path / "out", progress=False)
    assert frame["error"].tolist() == [""]
    (folder,) = (path for path in (tmp_path / "out").iterdir() if path.is_dir())
    assert {path.name for path in folder.iterdir()} == FILES | {"run.json", "run.ipynb"}
    samples = pd.read_parquet(folder / "events.parquet")
    there = check(samples)
    table = pd.read_csv(folder / "costs.csv", keep_default_na=False)
    assert set(table["vault"]) == set(VAULTS) - {"plain"}
    assert set(table.loc[table["note"] == "", "vault"]) == there - {"plain"}
    computed = encryption.costs(samples)
    assert computed["note"].tolist() == table["note"].tolist()
    assert computed["median"].round(9).dropna().tolist() == pd.to_numeric(table["median"]).round(9).dropna().tolist()
