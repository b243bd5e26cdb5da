"""The key of eCryptfs as the kernel wants it, and how the kernel is given it for the moment of a mount.

Source: struct ecryptfs_auth_tok in the kernel's include/linux/ecryptfs.h, keyrings(7), add_key(2), keyctl(2).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from emlab.vaults.mounts import libc

KEY_BYTES = 64
CIPHER_BYTES = 32  # of the key, those that AES uses
_VERSION = 0x0004  # major 0, minor 4
_PASSWORD_TOKEN = 0  # this token holds a key derived from a password, not one of a public-key module
_SHA512, _ITERATIONS = 10, 65536  # how a password would have been stretched; the kernel does not use them
_KEY_IS_SET = 2
# version, kind of token, flags; the session key (flags, sizes, 512 + 64 bytes) is made by the kernel for each file
_HEAD = struct.Struct("=HHI 12x512x64x 32x")
# password bytes, hash, iterations, key bytes, flags, key, signature with its zero, salt; three bytes of padding
_PASSWORD = struct.Struct("=IiIII 64s 17s 8x 3x")
_CALLS = {"x86_64": (248, 250), "aarch64": (217, 219), "riscv64": (217, 219)}  # add_key, keyctl
_THREAD_KEYRING, _UNLINK = -1, 9
_PROC_KEYS = Path("/proc/keys")


def signature(key: bytes) -> str:
    """The name under which eCryptfs looks for a key: 16 hex digits from which nobody computes the key."""
    return hashlib.sha512(key).hexdigest()[:16]


def payload(key: bytes) -> bytes:
    """The 740 bytes of an auth token with this key of 64 bytes."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key of eCryptfs has {KEY_BYTES} bytes, not {len(key)}")
    named = signature(key).encode()
    password = _PASSWORD.pack(0, _SHA512, _ITERATIONS, KEY_BYTES, _KEY_IS_SET, key, named)
    return _HEAD.pack(_VERSION, _PASSWORD_TOKEN, 0) + password


def machine_is_known() -> bool:
    """Whether the numbers of the system calls are known for this kind of machine."""
    return platform.machine() in _CALLS


@contextmanager
def lent(*keys: bytes) -> Iterator[None]:
    """The kernel finds these keys for what this thread does in the block, and not after it. Raises OSError.

    A mount keeps a reference of its own; the keyring is the thread's, which nobody else can search.
    """
    with ExitStack() as stack:
        for key in keys:
            serial = _add(signature(key), payload(key))
            stack.callback(_unlink, serial)
        yield


def known() -> str:
    """The kernel's table of the keys that this user may see; it names keys and never shows one."""
    return _PROC_KEYS.read_text() if _PROC_KEYS.exists() else ""


def _add(name: str, content: bytes) -> int:
    number = _CALLS[platform.machine()][0]
    return _checked(libc().syscall(number, b"user", name.encode(), content, len(content), _THREAD_KEYRING))


def _unlink(serial: int) -> None:
    _checked(libc().syscall(_CALLS[platform.machine()][1], _UNLINK, serial, _THREAD_KEYRING))


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
