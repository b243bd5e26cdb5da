"""Keys and tokens: what opens a vault, who signs, who may read a sealed answer.

Nothing here prints itself, and secrets are compared in constant time. Python cannot wipe memory: a secret, and every
copy that an interpreter or a library made of it, stays until its memory is used again; it may reach swap. So a
process that held a key counts as one that knows it until it has ended.
Imports `cryptography` when a pair or a sub-key is made, and nothing of emlab but errors.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
import secrets
import threading
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from emlab.errors import ConfigError, MistypedCode, NotPermitted, WrongKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

TokenKind = Literal["owner", "provider", "admin", "invitation", "aggregator"]
_PREFIX: dict[TokenKind, str] = {
    "owner": "emo_",
    "provider": "emp_",
    "admin": "ema_",
    "invitation": "emi_",
    "aggregator": "emg_",
}
MAX_STRETCH_BYTES = 512 * 2**20  # what a header made by somebody else can make this process use
# Each takes a core and much memory for a while: whoever asks for many leaves others half of the machine.
STRETCHED_AT_ONCE = min(max((os.cpu_count() or 1) // 2, 1), 4)
_stretching = threading.BoundedSemaphore(STRETCHED_AT_ONCE)


def new_token(kind: TokenKind) -> str:
    """A fresh bearer token of 32 random bytes, whose first letters tell its kind."""
    return _PREFIX[kind] + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is kept of a token: its SHA-256 in hex (the token is random, so no salt is needed)."""
    return hashlib.sha256(token.encode()).hexdigest()


def kind_of(token: str) -> TokenKind | None:
    """What a token says that it is for; None if it says nothing."""
    return next((kind for kind, prefix in _PREFIX.items() if token.startswith(prefix)), None)


def check_kind(token: str, kind: TokenKind) -> None:
    """Returns unless `token` shows that it is of another kind. Raises NotPermitted, saying which."""
    other = kind_of(token)
    if other not in (None, kind):
        raise NotPermitted(f"this is a token of kind {other}, but one of kind {kind} is asked for")


def _hkdf(secret: bytes, info: bytes, salt: bytes | None = None, size: int = 32) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=size, salt=salt, info=info).derive(secret)


class _Unshown:
    """Is neither pickled nor copied: that would write it to a file, a cache or another process without a word."""

    __slots__ = ()

    def __reduce__(self) -> str:
        raise TypeError(f"a {type(self).__name__} must not be pickled: it would be written somewhere in the clear")


class Key(_Unshown):
    """The 32 bytes that open one person's vault. Equal in constant time; its repr shows nothing of it."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        if not isinstance(raw, bytes):
            raise WrongKey(f"a key is 32 bytes, and no {type(raw).__name__}")
        if len(raw) != 32:
            raise WrongKey(f"a key has 32 bytes, not {len(raw)}")
        self._raw = raw

    @classmethod
    def random(cls) -> Key:
        """A fresh key from the system's random source."""
        return cls(secrets.token_bytes(32))

    def derive(self, purpose: str, *, salt: bytes | None = None, size: int = 32) -> bytes:
        """Bytes for one purpose, from which nobody can compute the key or another purpose's bytes.

        Args:
            salt: makes the bytes differ from those of another time. size: how many, at most 8160.
        Source: HKDF-SHA256, RFC 5869.
        """
        return _hkdf(self._raw, b"emlab/key/" + purpose.encode(), salt, size)

    def raw(self) -> bytes:
        """The 32 bytes themselves, to be encrypted under another key, or for the body of a request over TLS."""
        return self._raw

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and hmac.compare_digest(self._raw, other._raw)

    def __hash__(self) -> int:
        return hash(self.derive("hash"))

    def __repr__(self) -> str:
        return "Key(32 bytes, not shown)"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one guess at a passphrase costs: scrypt's n (a power of two), r and p; 128 n r bytes of memory.

    The default takes about 0.4 s and 128 MiB. Source: RFC 7914; n as OWASP's password storage cheat sheet advises.
    """

    n: int = 2**17
    r: int = 8
    p: int = 1

    def __post_init__(self) -> None:
        if not (1 < self.n <= 2**20 and self.n & (self.n - 1) == 0 and 0 < self.r <= 32 and 0 < self.p <= 16):
            raise ValueError(f"{self} is not a cost of scrypt that emlab works with")
        if 128 * self.n * self.r > MAX_STRETCH_BYTES:
            raise ValueError(f"{self} needs more than {MAX_STRETCH_BYTES >> 20} MiB")


class Passphrase(_Unshown):
    """Words that open a vault. Stretched by scrypt, so that each guess costs time and memory; never shown.

    Args:
        text: 8 to 1024 characters. Different ways to type the same accented letter are the same (NFC).
    Raises: WrongKey: shorter or longer.
    """

    MIN, MAX = 8, 1024
    __slots__ = ("_stretched", "_text")

    def __init__(self, text: str) -> None:
        if not isinstance(text, str) or not self.MIN <= len(text) <= self.MAX:
            raise WrongKey(f"a passphrase has {self.MIN} to {self.MAX} characters")
        try:
            self._text = unicodedata.normalize("NFC", text).encode()
        except UnicodeEncodeError as exc:
            raise WrongKey("a passphrase is text: half a surrogate pair is none") from exc
        self._stretched: tuple[bytes, Cost, Key] | None = None

    def reveal(self) -> str:
        """The words themselves, for the body of a request over TLS. Whoever reads them can open the vault."""
        return self._text.decode()

    def stretch(self, salt: bytes, cost: Cost) -> Key:
        """The key of this passphrase for one salt; the same again takes no time. Source: scrypt, RFC 7914."""
        from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

        known = self._stretched  # once: another thread may stretch it for another vault
        if known is None or known[:2] != (salt, cost):
            with _stretching:
                key = Key(Scrypt(salt=salt, length=32, n=cost.n, r=cost.r, p=cost.p).derive(self._text))
            self._stretched = known = salt, cost, key
        return known[2]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Passphrase) and hmac.compare_digest(self._text, other._text)

    def __hash__(self) -> int:
        return hash(_hkdf(self._text, b"emlab/passphrase/hash"))

    def __repr__(self) -> str:
        return "Passphrase(not shown)"


class RecoveryCode(_Unshown):
    """A code on paper that opens a vault whose key is lost: 160 random bits and 20 that tell a typing error.

    Args:
        text: as `reveal` gave it; case, spaces and hyphens do not matter, O counts as 0, I and L as 1.
    Raises: MistypedCode: it has another length or letter, or its last four letters do not fit the others.
    """

    ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U
    _SIZE = 20  # bytes
    _LETTERS = 36  # 32 of the secret, 4 of its checksum
    __slots__ = ("_raw",)

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise MistypedCode(f"a recovery code is text, and no {type(text).__name__}")
        letters = "".join(text.split()).replace("-", "").upper().translate(str.maketrans("OIL", "011"))
        if len(letters) != self._LETTERS:
            raise MistypedCode(f"a recovery code has {self._LETTERS} letters and digits, not {len(letters)}")
        strange = sorted(set(letters) - set(self.ALPHABET))
        if strange:
            raise MistypedCode(f"{len(strange)} signs of the recovery code never stand in one (such as U)")
        value = 0
        for letter in letters[:32]:
            value = value * 32 + self.ALPHABET.index(letter)
        self._raw = value.to_bytes(self._SIZE, "big")
        if not hmac.compare_digest(self._letters(), letters):
            raise MistypedCode("the recovery code is mistyped: its last four letters do not fit the others")

    @classmethod
    def random(cls) -> RecoveryCode:
        """A fresh code from the system's random source."""
        code = cls.__new__(cls)
        code._raw = secrets.token_bytes(cls._SIZE)
        return code

    def reveal(self) -> str:
        """The code itself, in nine groups of four, to be written down. Whoever reads it can open the vault."""
        letters = self._letters()
        return "-".join(letters[i : i + 4] for i in range(0, len(letters), 4))

    def derive(self, purpose: str, *, salt: bytes) -> bytes:
        """32 bytes for one purpose and salt. Source: HKDF-SHA256, RFC 5869."""
        return _hkdf(self._raw, b"emlab/code/" + purpose.encode(), salt)

    def _letters(self) -> str:
        check = int.from_bytes(hashlib.sha256(b"emlab/code/check" + self._raw).digest()[:3], "big") >> 4
        value = int.from_bytes(self._raw, "big") << 20 | check
        return "".join(self.ALPHABET[value >> shift & 31] for shift in range(5 * (self._LETTERS - 1), -1, -5))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecoveryCode) and hmac.compare_digest(self._raw, other._raw)

    def __hash__(self) -> int:
        return hash(self.derive("hash", salt=b""))

    def __repr__(self) -> str:
        return "RecoveryCode(not shown; reveal() gives it)"


OwnerSecret: TypeAlias = Key | Passphrase  # what an owner opens the own vault with
Secret: TypeAlias = Key | Passphrase | RecoveryCode  # what opens a vault


class SigningKey:
    """An Ed25519 pair: signs asks, capabilities and answers. `public` is 64 hex digits."""

    def __init__(self, raw: bytes | None = None) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._private: Ed25519PrivateKey = (
            Ed25519PrivateKey.generate() if raw is None else Ed25519PrivateKey.from_private_bytes(raw)
        )
        self.public: str = self._private.public_key().public_bytes_raw().hex()

    @classmethod
    def kept(cls, path: Path | str) -> SigningKey:
        """The pair in this file of mode 0600; a fresh one is written there if there is no such file.

        Raises: ConfigError: what is there is none, or others can read it; the file cannot be made.
        """
        path = Path(path)
        try:
            there = path.exists() and path.stat().st_size > 0
            flags = os.O_RDONLY if there else os.O_RDWR | os.O_CREAT
            with os.fdopen(os.open(path, flags, 0o600), "rb" if there else "rb+") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                is_mine = not os.fstat(file.fileno()).st_mode & 0o077
                raw = bytes.fromhex(file.read().decode().strip())
                if not raw and is_mine:  # it was not there, or whoever made it died before this
                    raw = cls().raw()
                    file.write(f"{raw.hex()}\n".encode())
                    file.flush()
                    os.fsync(file.fileno())
            pair = cls(raw)
        except (OSError, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it holds something else"
            raise ConfigError(f"{path} is no file with a key: {why}") from exc
        if not is_mine:
            raise ConfigError(f"other users can read or change {path}: chmod 600 it, or make another key")
        return pair

    def derive(self, purpose: str) -> SigningKey:
        """The pair for one purpose; nobody without this one's private bytes can tell that they belong together."""
        return SigningKey(_hkdf(self.raw(), b"emlab/signing/" + purpose.encode()))

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of `message`."""
        return self._private.sign(message)

    def raw(self) -> bytes:
        """The 32 private bytes, for a file of mode 0600 and nothing else."""
        return self._private.private_bytes_raw()

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public[:12]}…)"


def verify(public: str, signature: bytes, message: bytes, what: str) -> None:
    """Returns if `signature` is that of `message` under the public key. Raises NotPermitted, naming `what`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(signature, message)
    except (InvalidSignature, ValueError) as exc:
        raise NotPermitted(f"the signature of {what} is not valid") from exc


class SealingKey:
    """An X25519 pair: only its holder opens what was sealed to `public` (64 hex digits)."""

    def __init__(self, raw: bytes | None = None) -> None:
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

        self._private: X25519PrivateKey = (
            X25519PrivateKey.generate() if raw is None else X25519PrivateKey.from_private_bytes(raw)
        )
        self.public: str = self._private.public_key().public_bytes_raw().hex()

    def open(self, sealed: bytes, bound_to: bytes) -> bytes:
        """The clear bytes. Raises NotPermitted if they were altered, sealed to another key or bound elsewhere."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
        from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

        try:
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(sealed[:32]))
            key = _hkdf(shared, b"emlab/seal", sealed[:32] + bytes.fromhex(self.public))
            return ChaCha20Poly1305(key).decrypt(bytes(12), sealed[32:], bound_to)
        except (InvalidTag, ValueError) as exc:
            raise NotPermitted("a sealed answer was altered, or sealed for another ask or aggregator") from exc

    def raw(self) -> bytes:
        """The 32 private bytes, for a file of mode 0600 and nothing else."""
        return self._private.private_bytes_raw()

    def __repr__(self) -> str:
        return f"SealingKey(public={self.public[:12]}…)"


def check_sealing(public: str) -> None:
    """Returns if something can be sealed to this key. Raises NotPermitted."""
    seal(public, b"", b"")


def seal(public: str, clear: bytes, bound_to: bytes) -> bytes:
    """`clear`, readable only for the holder of `public` who names the same `bound_to`.

    32 bytes of a fresh X25519 public key, then ChaCha20-Poly1305 under HKDF-SHA256 of the exchange. The nonce is
    zero because each key encrypts once. Raises NotPermitted if `public` is no key.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
    from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

    once = X25519PrivateKey.generate()
    head = once.public_key().public_bytes_raw()
    try:
        shared = once.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(public)))
    except ValueError as exc:
        raise NotPermitted("the aggregator's public key is not valid") from exc
    key = _hkdf(shared, b"emlab/seal", head + bytes.fromhex(public))
    return head + ChaCha20Poly1305(key).encrypt(bytes(12), clear, bound_to)
