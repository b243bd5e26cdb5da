"""Keys, passphrases and recovery codes: what opens, what is a typing error, and that nothing shows itself."""

from __future__ import annotations

import copy
import logging
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.kdf import scrypt
from hypothesis import given
from hypothesis import strategies as st

from emlab.clock import wait_until
from emlab.errors import ConfigError, MistypedCode, WrongKey
from emlab.key import MAX_STRETCH_BYTES, STRETCHED_AT_ONCE, Cost, Key, Passphrase, RecoveryCode, Secret, SigningKey

CHEAP = Cost(2**4, 1, 1)
SALT = bytes(32)
FIXED = "000G-40R4-0M30-E209-185G-R38E-1W81-24GK-XN9M"


class TestKey:
    @pytest.mark.parametrize("size", [0, 31, 33])
    def test_it_has_32_bytes(self, size: int) -> None:
        with pytest.raises(WrongKey, match=f"not {size}"):
            Key(bytes(size))

    def test_bytes_differ_by_purpose_and_salt_and_have_the_size_asked_for(self) -> None:
        key = Key(bytes(range(32)))
        derived = [key.derive("a"), key.derive("b"), key.derive("a", salt=b"x"), Key.random().derive("a")]
        assert len(set(derived)) == 4
        assert key.derive("a") == key.derive("a") == key.derive("a", size=64)[:32]
        assert len(key.derive("a", size=64)) == 64

    def test_derived_bytes_never_change_from_one_version_to_the_next(self) -> None:
        assert Key(bytes(32)).derive("vault wrap", salt=SALT).hex()[:16] == "37c4960a82fc4a58"


class TestSigningKey:
    def test_a_kept_one_is_the_same_again(self, tmp_path: Path) -> None:
        path = tmp_path / "planner.key"
        key = SigningKey.kept(path)
        assert (path.stat().st_mode & 0o777, len(path.read_text())) == (0o600, 65)
        assert SigningKey.kept(str(path)).public == key.public

    def test_whoever_makes_it_at_once_gets_the_same_one(self, tmp_path: Path) -> None:
        for number in range(20):
            path = tmp_path / f"{number}.key"
            with ThreadPoolExecutor(4) as pool:
                found = set(pool.map(lambda _, path=path: SigningKey.kept(path).public, range(4)))
            assert found == {SigningKey.kept(path).public}
        assert len(list(tmp_path.iterdir())) == 20

    def test_what_is_no_key_or_is_not_mine_alone_is_refused_and_stays(self, tmp_path: Path) -> None:
        path = tmp_path / "planner.key"
        for text in ("xx", "00" * 31, "00" * 33):
            path.write_text(text)
            path.chmod(0o600)
            with pytest.raises(ConfigError, match="no file with a key"):
                SigningKey.kept(path)
            assert path.read_text() == text
        path.write_text("")  # whoever made it died then
        assert SigningKey.kept(path).public == SigningKey.kept(path).public
        path.chmod(0o400)
        assert SigningKey.kept(path).public == SigningKey.kept(path).public
        path.chmod(0o640)
        with pytest.raises(ConfigError, match="chmod 600"):
            SigningKey.kept(path)
        with pytest.raises(ConfigError, match="no file with a key"):
            SigningKey.kept(tmp_path / "none" / "planner.key")


class TestPassphrase:
    def test_the_same_words_give_the_same_key(self) -> None:
        one, two = Passphrase("correct horse"), Passphrase("correct horse")
        assert one == two
        assert hash(one) == hash(two)
        assert one.stretch(SALT, CHEAP) == two.stretch(SALT, CHEAP)
        assert one != Passphrase("correct horsf")
        assert one.stretch(SALT, CHEAP) != one.stretch(bytes(31) + b"\1", CHEAP)
        assert one.stretch(SALT, CHEAP) != one.stretch(SALT, Cost(2**5, 1, 1))

    def test_it_is_stretched_once_for_a_salt_and_few_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        under_way: list[int] = []
        most, real = 0, scrypt.Scrypt

        class Slow:
            def __init__(self, **how: Any) -> None:
                self._real = real(**how)

            def derive(self, text: bytes) -> bytes:
                nonlocal most
                under_way.append(1)
                most = max(most, len(under_way))
                assert not wait_until(lambda: len(under_way) > STRETCHED_AT_ONCE, 0.05)
                under_way.pop()
                return self._real.derive(text)

        monkeypatch.setattr(scrypt, "Scrypt", Slow)
        with ThreadPoolExecutor(8) as pool:
            one = [Passphrase(f"correct horse {number}") for number in range(8)]
            keys = list(pool.map(lambda each: each.stretch(SALT, CHEAP), one))
        assert most == STRETCHED_AT_ONCE
        monkeypatch.setattr(scrypt, "Scrypt", None)
        assert [each.stretch(SALT, CHEAP) for each in one] == keys

    def test_threads_that_share_it_get_each_the_own_key(self) -> None:
        one, other = Passphrase("correct horse"), bytes(31) + b"\1"
        right = one.stretch(SALT, CHEAP)

        class Late(Cost):
            """While it is compared, another thread stretches the same words for another vault."""

            def __eq__(self, cost: object) -> bool:
                if one._stretched is not None and one._stretched[0] == SALT:
                    one.stretch(other, CHEAP)
                return True

            __hash__ = Cost.__hash__

        assert one.stretch(SALT, Late(CHEAP.n, CHEAP.r, CHEAP.p)) == right

    def test_accents_may_be_typed_in_two_ways(self) -> None:
        assert Passphrase("z\u00fcrich hb") == Passphrase("zu\u0308rich hb")

    @pytest.mark.parametrize("text", ["", "seven77", "x" * 1025, "lone \ud800 half", None, b"correct horse"])
    def test_too_short_too_long_or_no_text_is_refused(self, text: str) -> None:
        with pytest.raises(WrongKey, match="passphrase"):
            Passphrase(text)

    def test_the_default_cost_is_that_of_a_hundred_million_bytes(self) -> None:
        assert 128 * Cost().n * Cost().r == 128 * 2**20

    @pytest.mark.parametrize(
        ("n", "r", "p"),
        [(0, 8, 1), (1, 8, 1), (1000, 8, 1), (2**21, 1, 1), (2**10, 0, 1), (2**10, 8, 0), (2, 2**20, 1)],
    )
    def test_a_cost_that_means_nothing_or_too_much_is_refused(self, n: int, r: int, p: int) -> None:
        with pytest.raises(ValueError, match="cost of scrypt"):
            Cost(n, r, p)

    def test_a_cost_has_a_bound_on_its_memory(self) -> None:
        assert MAX_STRETCH_BYTES == 128 * 2**18 * 16
        Cost(2**18, 16, 1)
        with pytest.raises(ValueError, match="more than 512 MiB"):
            Cost(2**19, 16, 1)


class TestRecoveryCode:
    def test_it_has_nine_groups_of_four(self) -> None:
        groups = RecoveryCode.random().reveal().split("-")
        assert [len(group) for group in groups] == [4] * 9
        assert set("".join(groups)) <= set(RecoveryCode.ALPHABET)

    def test_every_code_is_another(self) -> None:
        assert len({RecoveryCode.random() for _ in range(100)}) == 100

    def test_case_spaces_hyphens_and_letters_that_look_alike_do_not_matter(self) -> None:
        code = RecoveryCode.random()
        shown = code.reveal()
        spellings = [
            shown.lower(),
            shown.replace("-", ""),
            f"  {shown.replace('-', ' ')}\n",
            shown.replace("0", "O").replace("1", "I"),
            shown.replace("0", "o").replace("1", "l"),
        ]
        assert {RecoveryCode(text) for text in spellings} == {code}
        assert {RecoveryCode(text).reveal() for text in spellings} == {shown}

    @given(place=st.integers(0, 35), other=st.integers(1, 31))
    def test_one_wrong_letter_is_a_typing_error(self, place: int, other: int) -> None:
        """Of single errors in the secret part, one in 2^20 would pass; here the code is fixed, so none does."""
        letters = RecoveryCode(FIXED).reveal().replace("-", "")
        wrong = RecoveryCode.ALPHABET[(RecoveryCode.ALPHABET.index(letters[place]) + other) % 32]
        with pytest.raises(MistypedCode, match="mistyped"):
            RecoveryCode(letters[:place] + wrong + letters[place + 1 :])

    @given(place=st.integers(0, 34))
    def test_two_letters_in_the_wrong_order_are_a_typing_error(self, place: int) -> None:
        letters = RecoveryCode(FIXED).reveal().replace("-", "")
        swapped = letters[:place] + letters[place + 1] + letters[place] + letters[place + 2 :]
        if swapped != letters:
            with pytest.raises(MistypedCode, match="mistyped"):
                RecoveryCode(swapped)

    @pytest.mark.parametrize(
        ("text", "why"),
        [("", "not 0"), ("ABCD-EFGH", "not 8"), ("U" * 36, "never stand"), ("é" * 36, "never stand"), ("0" * 37, "37")],
    )
    def test_what_is_no_code_is_a_typing_error_too(self, text: str, why: str) -> None:
        with pytest.raises(MistypedCode, match=why):
            RecoveryCode(text)

    def test_a_typing_error_is_a_wrong_key_for_whoever_does_not_tell_them_apart(self) -> None:
        assert issubclass(MistypedCode, WrongKey)


SECRETS: list[tuple[Secret, str]] = [
    (Key(b"0123456789abcdef0123456789abcdef"), "0123456789abcdef"),
    (Passphrase("correct horse"), "horse"),
    (RecoveryCode.random(), ""),
]


@pytest.mark.parametrize(("secret", "part"), SECRETS)
def test_nothing_shows_itself(secret: Secret, part: str, caplog: pytest.LogCaptureFixture) -> None:
    if isinstance(secret, RecoveryCode):
        part = secret.reveal()[:9]
    with caplog.at_level(logging.DEBUG):
        logging.getLogger("emlab").info("%s %r", secret, secret)
    for text in (repr(secret), str(secret), f"{secret}", repr([secret]), repr({"key": secret}), caplog.text):
        assert part not in text
        assert "not shown" in text


@pytest.mark.parametrize(("secret", "part"), SECRETS)
def test_nothing_is_pickled_by_accident(secret: Secret, part: str) -> None:
    for write in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not be pickled"):
            write(secret)


def test_secrets_of_different_kinds_are_never_equal() -> None:
    assert Key(bytes(32)) != Passphrase("correct horse")
    assert Passphrase("correct horse") != "correct horse"
    assert RecoveryCode(FIXED) != FIXED


@pytest.mark.parametrize("odd", [None, "a" * 32, [300] * 32, 32, bytearray(32)])
def test_what_is_no_key_is_named(odd: object) -> None:
    with pytest.raises(WrongKey, match=f"no {type(odd).__name__}"):
        Key(odd)  # type: ignore[arg-type]
    if not isinstance(odd, str):
        with pytest.raises(MistypedCode, match=f"no {type(odd).__name__}"):
            RecoveryCode(odd)  # type: ignore[arg-type]
