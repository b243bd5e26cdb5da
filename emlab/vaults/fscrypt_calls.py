"""The kernel's calls for encrypted directories (fscrypt), as ioctls; no library, no helper program.

Source: linux/fscrypt.h and the kernel's Documentation/filesystems/fscrypt.rst.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import struct
from pathlib import Path

_SET_POLICY, _GET_POLICY = 0x800C6613, 0xC0096616
_ADD_KEY, _REMOVE_KEY, _REMOVE_KEY_OF_ALL, _KEY_STATUS = 0xC0506617, 0xC0406618, 0xC0406619, 0xC080661A
_POLICY_V2 = 2
_POLICY = struct.Struct("=4B4x16s")  # version, mode of contents, mode of names, flags, identifier
_POLICY_QUERY = struct.Struct("=Q24s")
_AES_256_XTS, _AES_256_CTS, _PAD_NAMES_TO_32 = 1, 4, 3
_SPECIFIER = struct.Struct("=I4x16s16x")  # kind of name, identifier
_BY_IDENTIFIER = 2
_ADD = struct.Struct("=40sII32x")  # specifier, size of the key, serial number of a key in a keyring
_REMOVE = struct.Struct("=40sI20x")  # specifier, out: flags
_STATUS = struct.Struct("=40s24xI60x")  # specifier, out: status
KEY_BYTES = 64
IDENTIFIER_BYTES = 16


class KeyStatus(enum.IntEnum):
    """Whether the kernel has a key. BUSY: it was removed, but some files that it opened are still in use."""

    ABSENT = 1
    PRESENT = 2
    BUSY = 3


def identifier(key: bytes) -> bytes:
    """The name that the kernel gives this key: HKDF-SHA512 without salt, context 1."""
    from cryptography.hazmat.primitives.hashes import SHA512
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA512(), length=IDENTIFIER_BYTES, salt=None, info=b"fscrypt\0\x01").derive(key)


def supported(folder: Path) -> bool:
    """Whether the file system of a folder can encrypt. Raises OSError."""
    try:
        policy(folder)
    except OSError as exc:
        if exc.errno in (errno.ENOTTY, errno.EOPNOTSUPP):
            return False
        raise
    return True


def policy(folder: Path) -> bytes | None:
    """The identifier of the key that a directory is encrypted with, None if with none. Raises OSError."""
    try:
        answer = _call(folder, _GET_POLICY, _POLICY_QUERY.pack(_POLICY.size, b""))
    except OSError as exc:
        if exc.errno == errno.ENODATA:
            return None
        raise
    version, *_, name = _POLICY.unpack(_POLICY_QUERY.unpack(answer)[1])
    return bytes(name) if version == _POLICY_V2 else None


def set_policy(folder: Path, name: bytes) -> None:
    """All that will be in this empty directory is encrypted under that key, which was added. Raises OSError."""
    _call(folder, _SET_POLICY, _POLICY.pack(_POLICY_V2, _AES_256_XTS, _AES_256_CTS, _PAD_NAMES_TO_32, name))


def add_key(near: Path, key: bytes) -> None:
    """The file system of a path has this key. Idempotent. Raises OSError."""
    _call(near, _ADD_KEY, _ADD.pack(_SPECIFIER.pack(_BY_IDENTIFIER, b""), len(key), 0) + key)


def remove_key(near: Path, name: bytes) -> None:
    """The kernel has forgotten that key, and all clear data that no file in use needs. Idempotent. Raises OSError."""
    call = _REMOVE_KEY_OF_ALL if os.geteuid() == 0 else _REMOVE_KEY
    try:
        _call(near, call, _REMOVE.pack(_SPECIFIER.pack(_BY_IDENTIFIER, name), 0))
    except OSError as exc:
        if exc.errno != errno.ENOKEY:
            raise


def key_status(near: Path, name: bytes) -> KeyStatus:
    """Whether the file system of a path has that key. Raises OSError."""
    answer = _call(near, _KEY_STATUS, _STATUS.pack(_SPECIFIER.pack(_BY_IDENTIFIER, name), 0))
    return KeyStatus(_STATUS.unpack(answer)[1])


def _call(path: Path, number: int, argument: bytes) -> bytes:
    """What the kernel wrote over the argument."""
    there = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        buffer = bytearray(argument)
        fcntl.ioctl(there, number, buffer, True)
        return bytes(buffer)
    finally:
        os.close(there)
