"""What is kept of a vault's keys: its data key, wrapped once for each secret that opens it, in one small file.

Failing to unwrap is what tells a wrong key; a checksum over the file tells damage from it. The file is replaced whole,
so that a crash leaves the old one or the new one, and what was replaced is overwritten. (A journal, a snapshot, a flash
disk or a backup may keep copies; who has one and the secret of that time opens the vault.)
"""

from __future__ import annotations

import errno
import hashlib
import hmac
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from emlab.errors import DiskFull, VaultDamaged, VaultError, WrongKey
from emlab.key import Cost, Key, OwnerSecret, Passphrase, RecoveryCode, Secret

VERSION = 1
MAX_BYTES = 16 * 1024
SALT_BYTES = 32
Step: TypeAlias = Callable[[str], None]  # told what has just been done: where a test lets the process die
Salt = Annotated[bytes, Meta(min_length=SALT_BYTES, max_length=SALT_BYTES)]
Wrapped = Annotated[bytes, Meta(min_length=48, max_length=48)]  # 32 bytes and a tag of 16
OpensWith = Literal["key", "passphrase", "code"]


class Slot(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """The data key, wrapped for one secret; `cost` is that of stretching a passphrase."""

    opens_with: OpensWith
    salt: Salt
    wrapped: Wrapped
    cost: Cost | None = None


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All that is kept. `proof` is derived from the data key, so that both slots are known to hold the same one."""

    version: int
    kind: Annotated[str, Meta(max_length=32)]
    vault: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    proof: Annotated[bytes, Meta(min_length=32, max_length=32)]
    owner: Slot
    recovery: Slot | None = None

    def unlock(self, secret: Secret) -> Key:
        """The data key. Raises WrongKey."""
        slot, where = (self.recovery, "recovery") if isinstance(secret, RecoveryCode) else (self.owner, "owner")
        if slot is None:
            raise WrongKey("this vault has no recovery code")
        if slot.opens_with != (kind := _kind(secret)):
            raise WrongKey(f"this vault opens with a {slot.opens_with}, not with a {kind}")
        data_key = _unwrap(slot, secret, self._bound_to(where, slot.opens_with))
        if not hmac.compare_digest(_proof(data_key), self.proof):
            raise WrongKey(f"the {kind} opens another vault than this one")
        return data_key

    def with_owner(self, data_key: Key, secret: OwnerSecret) -> Header:
        """The same, opened by another secret of the owner. Raises WrongKey (it can be no owner's)."""
        return msgspec.structs.replace(self, owner=_owner_slot(self.kind, self.vault, data_key, secret))

    def with_recovery(self, data_key: Key, code: RecoveryCode) -> Header:
        """The same, opened by this code and no other."""
        return msgspec.structs.replace(self, recovery=_wrap(data_key, code, self._bound_to("recovery", "code")))

    def _bound_to(self, where: str, opens_with: str) -> bytes:
        """What a wrapped key is bound to: moved to another vault, kind or slot it does not open."""
        return _bound_to(self.kind, self.vault, where, opens_with)


def new_header(kind: str, secret: OwnerSecret) -> tuple[Header, Key]:
    """A header for a new vault of this kind, and the data key in it. Raises WrongKey (the secret can be no owner's)."""
    data_key, vault = Key.random(), secrets.token_hex(16)
    slot = _owner_slot(kind, vault, data_key, secret)
    return Header(version=VERSION, kind=kind, vault=vault, proof=_proof(data_key), owner=slot), data_key


def _owner_slot(kind: str, vault: str, data_key: Key, secret: OwnerSecret) -> Slot:
    """The owner's place in a header. Nobody would look for a recovery code there, and so nothing open the vault."""
    if not isinstance(secret, OwnerSecret):
        raise WrongKey(f"an owner opens a vault with a Key or a Passphrase, not with {type(secret).__name__}")
    return _wrap(data_key, secret, _bound_to(kind, vault, "owner", _kind(secret)))


def _proof(data_key: Key) -> bytes:
    return data_key.derive("vault proof")


def _bound_to(kind: str, vault: str, where: str, opens_with: str) -> bytes:
    return f"emlab vault {VERSION}/{kind}/{vault}/{where}/{opens_with}".encode()


def _kind(secret: Secret) -> OpensWith:
    if isinstance(secret, Key):
        return "key"
    if isinstance(secret, Passphrase):
        return "passphrase"
    if isinstance(secret, RecoveryCode):
        return "code"
    raise WrongKey(f"a vault opens with a Key, a Passphrase or a RecoveryCode, not with {type(secret).__name__}")


def _wrapping_key(secret: Secret, salt: bytes, cost: Cost | None) -> bytes:
    if isinstance(secret, Passphrase):
        if cost is None:
            raise VaultDamaged("the cost of stretching the passphrase is not kept")
        return secret.stretch(salt, cost).derive("vault wrap", salt=salt)
    return secret.derive("vault wrap", salt=salt)


def _wrap(data_key: Key, secret: Secret, bound_to: bytes) -> Slot:
    """ChaCha20-Poly1305; the nonce is zero, because the salt is fresh and so each wrapping key encrypts once."""
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    kind, salt = _kind(secret), secrets.token_bytes(SALT_BYTES)
    cost = Cost() if kind == "passphrase" else None
    sealed = ChaCha20Poly1305(_wrapping_key(secret, salt, cost)).encrypt(bytes(12), data_key.raw(), bound_to)
    return Slot(opens_with=kind, salt=salt, wrapped=sealed, cost=cost)


def _unwrap(slot: Slot, secret: Secret, bound_to: bytes) -> Key:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    try:
        wrapping = ChaCha20Poly1305(_wrapping_key(secret, slot.salt, slot.cost))
        return Key(wrapping.decrypt(bytes(12), slot.wrapped, bound_to))
    except InvalidTag as exc:
        raise WrongKey(f"this {slot.opens_with} does not open the vault") from exc


# -- the file ----------------------------------------------------------------------------------------------------------


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    header: msgspec.Raw
    sha256: str


def encode(header: Header) -> bytes:
    """The bytes of the file, every one of which matters to `decode`."""
    inner = msgspec.json.encode(header)
    return msgspec.json.encode(_File(msgspec.Raw(inner), hashlib.sha256(inner).hexdigest()))


def decode(raw: bytes) -> Header:
    """The header in a file's bytes. Raises VaultDamaged, VaultError (a newer version wrote it)."""
    try:
        outer = msgspec.json.decode(raw, type=_File)
        if not hmac.compare_digest(hashlib.sha256(bytes(outer.header)).hexdigest().encode(), outer.sha256.encode()):
            raise VaultDamaged("the header of the vault is damaged: its checksum differs")
        version = msgspec.json.decode(outer.header, type=_Version).version
        if version != VERSION:
            raise VaultError(f"the vault was made by another emlab: its version is {version}, not {VERSION}")
        header = msgspec.json.decode(outer.header, type=Header)
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise VaultDamaged(f"the header of the vault is damaged: {exc}") from exc
    if encode(header) != raw:
        raise VaultDamaged("the header of the vault is damaged: it is not in the form that emlab writes")
    return header


class _Version(msgspec.Struct, frozen=True):
    version: int


def proceed(_step: str) -> None:
    """What is told of each step and lets it go on."""


class HeaderFile:
    """The file vault.json of one vault: mode 0600, replaced whole. The caller has the vault's lock."""

    def __init__(self, path: Path, step: Step = proceed) -> None:
        self._path = path
        self._fresh = path.with_name(path.name + ".new")
        self._step = step

    @property
    def exists(self) -> bool:
        """Whether there is a header."""
        return self._path.exists()

    def read(self, kind: str) -> Header:
        """The header. Raises VaultError (none, or of another kind), VaultDamaged."""
        try:
            with open(self._path, "rb", opener=_no_link_no_pipe) as file:
                raw = file.read(MAX_BYTES + 1)
        except FileNotFoundError as exc:
            raise VaultError(f"there is no vault in {self._path.parent}") from exc
        except OSError as exc:
            raise VaultDamaged(f"{self._path} cannot be read: {exc.strerror}") from exc
        if len(raw) > MAX_BYTES:
            raise VaultDamaged(f"{self._path} is no header of a vault: it is too large")
        try:
            header = decode(raw)
        except VaultError as exc:
            raise type(exc)(f"{exc} ({self._path})") from exc
        if header.kind != kind:
            raise VaultError(f"the vault in {self._path.parent} is of kind {header.kind!r}, not {kind!r}")
        return header

    def write(self, header: Header) -> None:
        """The file holds this header, on disk; what it held before is overwritten. Raises DiskFull, VaultError."""
        with disk_errors(self._path.parent, "keep the vault's keys"):
            try:
                self._write(encode(header))
            finally:
                self._fresh.unlink(missing_ok=True)

    def _write(self, raw: bytes) -> None:
        self._fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(self._fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(raw)
            file.flush()
            self._step("written")
            os.fsync(file.fileno())
        self._step("on disk")
        before = _no_link_no_pipe(str(self._path), os.O_WRONLY) if self._path.exists() else None
        try:
            self._fresh.replace(self._path)
            self._step("replaced")
            sync_directory(self._path.parent)
            self._step("replaced on disk")
            if before is not None:
                _overwrite_open(before)
        finally:
            if before is not None:
                os.close(before)
        self._step("overwritten")

    def tidy(self) -> None:
        """What a crash left of a header that never took effect is gone. Idempotent. Raises as `destroy`."""
        if os.path.lexists(self._fresh):
            with disk_errors(self._path.parent, "remove a header that never took effect"):
                self._destroy(self._fresh)

    def destroy(self) -> None:
        """Nothing opens the vault any more: the wrapped keys are overwritten on disk, then the files go. Idempotent.

        Raises DiskFull, VaultError: a key may still be there.
        """
        with disk_errors(self._path.parent, "destroy the vault's keys"):
            for path in (self._path, self._fresh):
                if os.path.lexists(path):
                    self._destroy(path)
            sync_directory(self._path.parent)

    def _destroy(self, path: Path) -> None:
        """It is gone, whatever it is; only a file is written to: a link names another's, a pipe would wait."""
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode):
            _overwrite(path)
            self._step("overwritten")
        if stat.S_ISDIR(mode):
            shutil.rmtree(path)
        else:
            path.unlink()
        self._step("unlinked")


def _no_link_no_pipe(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _overwrite(path: Path) -> None:
    with open(path, "r+b", buffering=0, opener=_no_link_no_pipe) as file:
        _overwrite_open(file.fileno())


def _overwrite_open(file: int) -> None:
    """No key stands there any more; what is larger than a header is none beyond its size."""
    os.pwrite(file, secrets.token_bytes(min(os.fstat(file).st_size, MAX_BYTES)), 0)
    os.fsync(file)


def sync_directory(path: Path) -> None:
    """The names in a directory are on disk as they are now."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def disk_error(exc: OSError, path: Path, what: str) -> DiskFull | VaultError:
    """The error to raise for a failed system call of a vault: DiskFull if the disk is full."""
    if exc.errno in (errno.ENOSPC, errno.EDQUOT):
        found = os.statvfs(path if path.exists() else path.parent)
        return DiskFull(f"the disk under {path} is full ({found.f_bavail * found.f_frsize} bytes free): cannot {what}")
    return VaultError(f"cannot {what} in {path}: {exc.strerror}")


@contextmanager
def disk_errors(path: Path, what: str) -> Iterator[None]:
    """What the system refuses meanwhile is one of emlab's errors; see `disk_error`."""
    try:
        yield
    except OSError as exc:
        raise disk_error(exc, path, what) from exc
