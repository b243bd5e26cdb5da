"""The kernel's structures as bytes: where each field must lie."""

from __future__ import annotations

import hashlib
import struct

import pytest

from emlab.vaults import ecryptfs_token as token
from emlab.vaults import fscrypt_calls

KEY = bytes(range(64))


def test_a_token_has_the_size_and_fields_of_the_kernels_struct() -> None:
    payload = token.payload(KEY)
    assert len(payload) == 740
    assert struct.unpack_from("=HHI", payload) == (4, 0, 0)  # version, kind, flags
    assert payload[8:628] == bytes(620)  # the session key and what is reserved
    assert struct.unpack_from("=IiIII", payload, 628) == (0, 10, 65536, 64, 2)
    assert payload[648:712] == KEY
    assert payload[712:729] == hashlib.sha512(KEY).digest()[:8].hex().encode() + b"\0"
    assert payload[729:] == bytes(11)


def test_a_signature_is_the_name_of_a_key() -> None:
    assert token.signature(KEY) == hashlib.sha512(KEY).hexdigest()[:16]
    assert token.signature(KEY) != token.signature(KEY[::-1])


@pytest.mark.parametrize("size", [0, 32, 63, 65])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"not {size}"):
        token.payload(bytes(size))


def test_fscrypts_structures_have_the_sizes_that_are_in_the_numbers_of_its_calls() -> None:
    """The size of the argument stands in bits 16 to 29 of an ioctl's number."""
    sizes = {
        fscrypt_calls._ADD_KEY: fscrypt_calls._ADD.size,
        fscrypt_calls._REMOVE_KEY: fscrypt_calls._REMOVE.size,
        fscrypt_calls._REMOVE_KEY_OF_ALL: fscrypt_calls._REMOVE.size,
        fscrypt_calls._KEY_STATUS: fscrypt_calls._STATUS.size,
    }
    assert {number: number >> 16 & 0x3FFF for number in sizes} == sizes
    assert fscrypt_calls._POLICY.size == 24
    assert fscrypt_calls._SPECIFIER.size == 40
