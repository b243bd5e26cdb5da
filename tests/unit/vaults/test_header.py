"""The wrapped data key: what is bound to what, and what a header made by somebody else can do."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.errors import VaultDamaged, VaultError, WrongKey
from emlab.key import Cost, Key, Passphrase, RecoveryCode
from emlab.vaults import header
from emlab.vaults.header import HeaderFile, Slot, decode, encode, new_header

KEY = Key(bytes(range(32)))


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cost.__init__, "__defaults__", (2**10, 8, 1))


def forged(change: dict[str, object]) -> bytes:
    """A header that was changed by somebody who also computes the checksum."""
    inner = json.loads(encode(new_header("plain", KEY)[0]))["header"]
    return sealed(json.dumps({**inner, **change}, separators=(",", ":")).encode())


def sealed(inner: bytes) -> bytes:
    return msgspec.json.encode({"header": msgspec.Raw(inner), "sha256": hashlib.sha256(inner).hexdigest()})


def test_each_secret_opens_its_own_slot_only() -> None:
    made, data_key = new_header("plain", KEY)
    code = RecoveryCode.random()
    both = made.with_recovery(data_key, code)
    assert both.unlock(KEY) == both.unlock(code) == data_key
    with pytest.raises(WrongKey, match="does not open"):
        both.unlock(Key.random())
    with pytest.raises(WrongKey, match="does not open"):
        both.unlock(RecoveryCode.random())
    with pytest.raises(WrongKey, match="with a key, not with a passphrase"):
        both.unlock(Passphrase("correct horse"))
    with pytest.raises(WrongKey, match="no recovery code"):
        made.unlock(code)


def test_a_wrapped_key_works_in_its_own_vault_kind_and_slot_only() -> None:
    made, data_key = new_header("plain", KEY)
    replace = msgspec.structs.replace
    for moved in (replace(made, kind="gocryptfs"), replace(made, vault="0" * 32)):
        with pytest.raises(WrongKey):
            moved.unlock(KEY)
    code = RecoveryCode.random()
    swapped = replace(made, owner=made.with_recovery(data_key, code).recovery)
    with pytest.raises(WrongKey):
        swapped.unlock(KEY)


def test_a_slot_with_another_data_key_is_noticed() -> None:
    """Somebody who knows the owner's key and may write the header gives the recovery code another vault to open."""
    made, _ = new_header("plain", KEY)
    code = RecoveryCode.random()
    other = made.with_recovery(Key.random(), code)
    with pytest.raises(WrongKey, match="another vault"):
        other.unlock(code)


def test_the_same_secret_is_never_wrapped_in_the_same_way_twice() -> None:
    made, data_key = new_header("plain", KEY)
    again = made.with_owner(data_key, KEY)
    assert (made.owner.salt, made.owner.wrapped) != (again.owner.salt, again.owner.wrapped)
    assert new_header("plain", KEY)[1] != data_key


def test_a_recovery_code_has_a_place_of_its_own_and_not_the_owner_s() -> None:
    made, data_key = new_header("plain", KEY)
    code = RecoveryCode.random()
    with pytest.raises(WrongKey, match="not with RecoveryCode"):
        made.with_owner(data_key, code)  # type: ignore[arg-type]
    with pytest.raises(WrongKey, match="not with RecoveryCode"):
        new_header("plain", code)  # type: ignore[arg-type]


def test_what_is_kept_of_a_passphrase_is_how_to_stretch_it() -> None:
    made, data_key = new_header("plain", Passphrase("correct horse"))
    assert made.owner.cost == Cost()
    assert decode(encode(made)).unlock(Passphrase("correct horse")) == data_key
    assert b"horse" not in encode(made)


@pytest.mark.parametrize(
    "cost",
    [
        {"n": 2**20, "r": 32, "p": 1},
        {"n": 2**30, "r": 8, "p": 1},
        {"n": 1000, "r": 8, "p": 1},
        {"n": 2**10, "r": 8, "p": 10**6},
        {"n": -1, "r": 8, "p": 1},
        {"n": 2**10, "r": 8, "p": 1, "more": 1},
        {"n": "1024"},
    ],
)
def test_a_header_cannot_ask_for_much_memory_or_time(cost: dict[str, object]) -> None:
    slot = {"opens_with": "passphrase", "salt": "A" * 43 + "=", "wrapped": "A" * 64, "cost": cost}
    with pytest.raises(VaultDamaged):
        decode(forged({"owner": slot}))


def test_a_passphrase_without_its_cost_is_damage() -> None:
    made, _ = new_header("plain", Passphrase("correct horse"))
    slot = Slot(opens_with="passphrase", salt=made.owner.salt, wrapped=made.owner.wrapped)
    with pytest.raises(VaultDamaged, match="cost"):
        msgspec.structs.replace(made, owner=slot).unlock(Passphrase("correct horse"))


def test_a_newer_version_says_so() -> None:
    with pytest.raises(VaultError, match="its version is 2, not 1") as caught:
        decode(forged({"version": 2, "something": "new"}))
    assert not isinstance(caught.value, VaultDamaged)


@pytest.mark.parametrize(
    "change",
    [
        {"vault": "X" * 32},
        {"vault": 3},
        {"proof": ""},
        {"owner": None},
        {"owner": {}},
        {"recovery": 1},
        {"more": 1},
        {"version": None},
        {"kind": "x" * 100},
    ],
)
def test_what_is_out_of_bounds_is_damage(change: dict[str, object]) -> None:
    with pytest.raises(VaultDamaged):
        decode(forged(change))


def test_only_the_form_that_is_written_is_read() -> None:
    good = encode(new_header("plain", KEY)[0])
    inner = json.dumps(json.loads(good)["header"], indent=1).encode()
    with pytest.raises(VaultDamaged, match="form"):
        decode(sealed(inner))
    for bad in (good + b" ", b" " + good, good + good, good[:-1], good.replace(b'"sha256"', b'"sha512"')):
        with pytest.raises(VaultDamaged):
            decode(bad)


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_damage(raw: bytes) -> None:
    with pytest.raises(VaultDamaged):
        decode(raw)


class TestFile:
    def test_nobody_else_can_read_it(self, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            HeaderFile(tmp_path / "vault.json").write(new_header("plain", KEY)[0])
        finally:
            os.umask(old)
        assert (tmp_path / "vault.json").stat().st_mode & 0o777 == 0o600

    def test_what_it_held_before_is_overwritten(self, tmp_path: Path) -> None:
        file = HeaderFile(tmp_path / "vault.json")
        made, data_key = new_header("plain", KEY)
        file.write(made)
        (tmp_path / "kept").hardlink_to(tmp_path / "vault.json")  # the blocks of the old file
        before = (tmp_path / "kept").read_bytes()
        file.write(made.with_owner(data_key, Key.random()))
        assert len((tmp_path / "kept").read_bytes()) == len(before)
        assert (tmp_path / "kept").read_bytes()[:20] != before[:20]

    def test_a_crash_just_after_the_new_header_is_there_leaves_the_bytes_of_the_old_one(self, tmp_path: Path) -> None:
        def die(step: str) -> None:
            if step == "replaced on disk":
                raise KeyboardInterrupt

        made, data_key = new_header("plain", KEY)
        HeaderFile(tmp_path / "vault.json").write(made)
        (tmp_path / "kept").hardlink_to(tmp_path / "vault.json")
        with pytest.raises(KeyboardInterrupt):
            HeaderFile(tmp_path / "vault.json", die).write(made.with_owner(data_key, Key.random()))
        assert (tmp_path / "kept").read_bytes() == encode(made)

    def test_destroying_overwrites_also_what_a_crash_left(self, tmp_path: Path) -> None:
        file = HeaderFile(tmp_path / "vault.json")
        file.write(new_header("plain", KEY)[0])
        (tmp_path / "vault.json.new").write_bytes((tmp_path / "vault.json").read_bytes())
        for name in ("vault.json", "vault.json.new"):
            (tmp_path / f"kept {name}").hardlink_to(tmp_path / name)
        file.destroy()
        file.destroy()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["kept vault.json", "kept vault.json.new"]
        assert all(b"wrapped" not in path.read_bytes() for path in tmp_path.iterdir())

    def test_a_link_in_its_place_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "mine").write_text("keep this")
        file = HeaderFile(tmp_path / "vault.json")
        for name in ("vault.json", "vault.json.new"):
            (tmp_path / name).symlink_to("mine")
        file.destroy()
        assert [path.name for path in tmp_path.iterdir()] == ["mine"]
        (tmp_path / "vault.json.new").symlink_to("mine")
        file.write(new_header("plain", KEY)[0])
        assert (tmp_path / "mine").read_text() == "keep this"

    def test_it_is_not_read_to_the_end_if_it_is_large(self, tmp_path: Path) -> None:
        with (tmp_path / "vault.json").open("wb") as file:
            file.truncate(2**40)
        with pytest.raises(VaultDamaged, match="too large"):
            HeaderFile(tmp_path / "vault.json").read("plain")

    def test_another_kind_is_named(self, tmp_path: Path) -> None:
        file = HeaderFile(tmp_path / "vault.json")
        file.write(new_header("plain", KEY)[0])
        with pytest.raises(VaultError, match="of kind 'plain', not 'gocryptfs'"):
            file.read("gocryptfs")


def test_the_largest_header_fits() -> None:
    made, data_key = new_header("x" * 32, Passphrase("correct horse"))
    assert len(encode(made.with_recovery(data_key, RecoveryCode.random()))) * 4 < header.MAX_BYTES
