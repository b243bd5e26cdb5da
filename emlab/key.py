"""Keys and tokens: what opens a vault, who signs, who may read a sealed answer.

Nothing here prints itself. Python cannot wipe memory: a key lives until its object is collected.
Imports `cryptography` when a pair or a sub-key is made, and nothing of emlab but errors.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Literal

from emlab.errors import NotPermitted, WrongKey

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

TokenKind = Literal["owner", "provider"]
_PREFIX: dict[TokenKind, str] = {"owner": "emo_", "provider": "emp_"}


def new_token(kind: TokenKind) -> str:
    """A fresh bearer token of 32 random bytes, whose first letters tell its kind."""
    return _PREFIX[kind] + secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is kept of a token: its SHA-256 in hex (the token is random, so no salt is needed)."""
    return hashlib.sha256(token.encode()).hexdigest()


def check_token(token: str, kind: TokenKind, expected_hash: str) -> None:
    """Returns if `token` is of that kind and has that hash; compared in constant time.

    Raises NotPermitted.
    """
    other = next((k for k, prefix in _PREFIX.items() if k != kind and token.startswith(prefix)), None)
    if other is not None:
        raise NotPermitted(f"this is a token of a {other}, but the {kind} is asked for")
    if not hmac.compare_digest(token_hash(token), expected_hash):
        raise NotPermitted(f"wrong or missing token of the {kind}")


def _hkdf(secret: bytes, info: bytes, salt: bytes | None = None) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


class Key:
    """The 32 bytes that open one person's vault. Equal in constant time; its repr shows nothing of it."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        if len(raw) != 32:
            raise WrongKey(f"a key has 32 bytes, not {len(raw)}")
        self._raw = bytes(raw)

    @classmethod
    def random(cls) -> Key:
        """A fresh key from the system's random source."""
        return cls(secrets.token_bytes(32))

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one purpose, from which nobody can compute the key or another purpose's bytes.

        Source: HKDF-SHA256, RFC 5869.
        """
        return _hkdf(self._raw, b"emlab/key/" + purpose.encode())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and hmac.compare_digest(self._raw, other._raw)

    def __hash__(self) -> int:
        return hash(self.derive("hash"))

    def __repr__(self) -> str:
        return "Key(32 bytes, not shown)"


class SigningKey:
    """An Ed25519 pair: signs asks, capabilities and answers. `public` is 64 hex digits."""

    def __init__(self, raw: bytes | None = None) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self._private: Ed25519PrivateKey = (
            Ed25519PrivateKey.generate() if raw is None else Ed25519PrivateKey.from_private_bytes(raw)
        )
        self.public: str = self._private.public_key().public_bytes_raw().hex()

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
