"""TLS for a controller: a given certificate, or one of a private authority that is made here."""

from __future__ import annotations

import ipaddress
import logging
import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from emlab.errors import ConfigError
from emlab.files import replacing

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

log = logging.getLogger(__name__)
AUTHORITY_DAYS, CERTIFICATE_DAYS = 3650, 397
RENEW_DAYS = 30
_HOST = re.compile(r"(\*\.)?[a-z0-9_][a-z0-9_.-]*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Certificate:
    """Files in PEM form: the chain and key that a server shows; `ca`: what its callers need to trust, if it is ours."""

    chain: Path
    key: Path
    ca: Path | None = None


def given(chain: Path, key: Path) -> Certificate:
    """A certificate from elsewhere.

    Raises: ConfigError: a file is missing, they do not belong together, the key is encrypted, or it has expired.
    """
    from cryptography import x509

    try:
        _check_pair(chain, key)
        until = x509.load_pem_x509_certificates(chain.read_bytes())[0].not_valid_after_utc
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{chain} and {key} are no certificate with its key, without a password: {exc}") from exc
    if until < datetime.now(UTC):
        raise ConfigError(f"the certificate {chain} has expired ({until:%Y-%m-%d}): give one that callers accept")
    _look_at_mode(key)
    return Certificate(chain, key)


def private(folder: Path, hosts: list[str]) -> Certificate:
    """A certificate for these names and addresses, by an authority in the folder; both are made when needed.

    The authority stays the same, so that callers trust `ca.pem` once; `ca.key` may be kept elsewhere while no other
    certificate is needed. Keys have mode 0600.

    Raises: ConfigError: what is none among the names; a new certificate is needed, and of the authority something is
        missing or damaged.
    """
    names = _names(hosts)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = Certificate(folder / "server.pem", folder / "server.key", folder / "ca.pem")
    assert made.ca is not None
    if not any(path.exists() for path in (made.ca, made.chain, made.key)):  # a first start, or one that was cut off
        _make_authority(folder)
    authority = _authority(made.ca)
    if not _is_good(made, authority, names):
        _make_certificate(folder, authority, str(names[0].value), names)
    for key in (made.key, folder / "ca.key"):
        _look_at_mode(key)
    return made


def fingerprint(certificate: Certificate) -> str:
    """The SHA-256, in hex, of the certificate that its server shows."""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    return x509.load_pem_x509_certificates(certificate.chain.read_bytes())[0].fingerprint(SHA256()).hex()


def _check_pair(chain: Path, key: Path) -> None:
    """Returns if that is a certificate with its key, which nobody is asked a password for. Raises OSError."""
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(chain, key, password="")


def _look_at_mode(key: Path) -> None:
    if key.exists() and key.stat().st_mode & 0o007:
        log.warning("every user of this host can read or change %s: chmod 600 it, or have another one made", key)


def _authority(path: Path) -> x509.Certificate:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        if found.not_valid_after_utc < datetime.now(UTC):
            raise ValueError("it has expired")
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"{path}, by which callers trust this server, is not there, damaged or expired: restore it; or remove"
            f" {path.parent}, and let everybody trust the new one"
        ) from exc
    return found


def _is_good(made: Certificate, authority: x509.Certificate, names: x509.SubjectAlternativeName) -> bool:
    """Whether the certificate has its key, is by this authority, names these hosts and lasts for a while."""
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        _check_pair(made.chain, made.key)
        found = x509.load_pem_x509_certificate(made.chain.read_bytes())
        found.verify_directly_issued_by(authority)
        named = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return named == names and found.not_valid_after_utc > datetime.now(UTC) + timedelta(days=RENEW_DAYS)


def _signer(path: Path, authority: x509.Certificate) -> EllipticCurvePrivateKey:
    """The authority's key. Raises ConfigError."""
    found = _private_key(path)
    if found.public_key() != authority.public_key():
        raise ConfigError(f"{path} is not the key of the authority beside it: restore the one that is")
    return found


def _private_key(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        found = load_pem_private_key(path.read_bytes(), None)
        if not isinstance(found, EllipticCurvePrivateKey):
            raise ValueError("it is of another kind")
    except (OSError, ValueError, TypeError) as exc:
        raise ConfigError(f"a new certificate is needed, and the key {path} to sign it cannot be read: {exc}") from exc
    return found


def _make_authority(folder: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    path = folder / "ca.key"  # of which who trusts an earlier certificate trusts this one, too
    key = _private_key(path) if path.exists() else generate_private_key(SECP256R1())
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    name = _name("emlab private authority")
    built = (
        _builder(name, name, key, AUTHORITY_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    _write(folder / "ca", _signed(built, key), key)


def _make_certificate(folder: Path, authority: x509.Certificate, host: str, names: x509.SubjectAlternativeName) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
    from cryptography.x509.oid import ExtendedKeyUsageOID

    signer = _signer(folder / "ca.key", authority)
    key = generate_private_key(SECP256R1())
    built = (
        _builder(_name(host), authority.subject, key, CERTIFICATE_DAYS)
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    _write(folder / "server", _signed(built, signer), key)


def _names(hosts: list[str]) -> x509.SubjectAlternativeName:
    from cryptography import x509

    def general(host: str) -> x509.GeneralName:
        try:
            return x509.IPAddress(ipaddress.ip_address(host.partition("%")[0]))
        except ValueError:
            return x509.DNSName(_ascii(host))

    return x509.SubjectAlternativeName([general(host) for host in hosts])


def _ascii(host: str) -> str:
    """The name as certificates have it. Raises ConfigError."""
    try:
        name = host.encode("idna").decode()
    except UnicodeError as exc:
        raise ConfigError(f"{host[:80]!r} is no name of a host") from exc
    if not _HOST.fullmatch(name):
        raise ConfigError(f"{host[:80]!r} is no name of a host")
    return name


def _name(text: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text[:64])])


def _builder(subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    from cryptography import x509

    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # a caller's clock may be a little behind
        .not_valid_after(now + timedelta(days=days))
    )


def _signed(builder: x509.CertificateBuilder, key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding

    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def _write(path: Path, certificate: bytes, key: EllipticCurvePrivateKey) -> None:
    """The key is there before the certificate, so that nobody sees a certificate without its key."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    for file, content in ((path.with_suffix(".key"), secret), (path.with_suffix(".pem"), certificate)):
        with replacing(file) as out:
            out.write(content)
