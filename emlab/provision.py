"""What a custodian is told before it starts, and what it tells whoever wakes it: two files in its run directory."""

from __future__ import annotations

import hmac
import logging
import os
import secrets
import stat
from pathlib import Path
from typing import Annotated

import msgspec

from emlab.ask import Id, Name, Public
from emlab.errors import ConfigError, Locked
from emlab.loss import NOTHING, Spent
from emlab.policy import Policy, Published

log = logging.getLogger(__name__)
PROVISION, PROVIDERS = "provision.json", "providers.json"
MAX_PROVIDERS_BYTES = 1 << 20
MARKER = ".emlab-vault"
DATABASE_DIR = "db"


class OwnerToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a token of the owner: its SHA-256, and when it expires (UTC seconds), if ever."""

    hash: Public
    expires_ts: float | None = None

    def holds(self, now: float) -> bool:
        """Whether it has not expired; at the moment of its expiry it has."""
        return self.expires_ts is None or now < self.expires_ts


class Provision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """No secret is in it, nor a name of a person: of owner tokens only hashes, of the controller only the public key.

    Attributes:
        cloud: the cloud's id; also the user_id of its entries.
        owner_tokens: those that are neither revoked nor expired at the start.
        controller: public key that signs capabilities.
        policy: holds until the owner sets another; nothing of that one leaves the vault but what is `Published`.
        spent: what this person had spent in an earlier cloud of this lab; the ledger never says less.
        ledger_seq: what the controller remembers of the ledger; an older one is refused.
        marker: what the file `.emlab-vault` in the open vault must hold.
    """

    lab: Name
    cloud: Id
    generation: int
    owner_tokens: list[OwnerToken]
    controller: Public
    policy: Policy
    spent: Spent = NOTHING
    ledger_seq: Annotated[int, msgspec.Meta(ge=0)] = 0
    marker: Public


def new_marker() -> str:
    """What proves that an open vault is this cloud's: 32 random bytes in hex, which outlive any change of the key."""
    return secrets.token_hex(32)


def write_marker(vault_dir: Path, value: str) -> None:
    """The new vault has its marker file, and the directory of its database.

    It is made only now: in a vault that has gone there is none, even if that is noticed by nobody before mongod starts.
    """
    (vault_dir / DATABASE_DIR).mkdir(mode=0o700)
    (vault_dir / MARKER).write_text(value)


def check_marker(vault_dir: Path, value: str) -> None:
    """Returns if the vault is open and right. Raises Locked, before mongod could write into a bare directory."""
    try:
        found = (vault_dir / MARKER).read_text()
    except OSError as exc:
        raise Locked(f"no marker in {vault_dir.name}: the vault is not open") from exc
    if not hmac.compare_digest(found, value):
        raise Locked(f"the marker in {vault_dir.name} is of another vault or key")


def write(run_dir: Path, provision: Provision) -> None:
    """The provisioning file is there, complete, with mode 0400."""
    path = run_dir / PROVISION
    fresh = run_dir / (PROVISION + ".new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as file:
        file.write(msgspec.json.encode(provision))
        owner = run_dir.stat()
        if owner.st_uid != os.geteuid():  # root writes it for the uid that runs the cloud, which could place a link
            os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
    fresh.replace(path)


def publish(run_dir: Path, published: Published) -> None:
    """Whom the policy permits to ask is there for the controller to read, also while the cloud sleeps. No secret.

    It is no more than a hint of whom to wake and when to pause: at each ask the policy in the vault decides. So a disk
    without room for it is logged, and fails nothing.
    """
    path = run_dir / PROVIDERS
    fresh = path.with_suffix(".new")
    try:
        fresh.write_bytes(msgspec.json.encode(published))
        fresh.replace(path)
    except OSError as exc:
        log.warning("%s does not say any more who may ask: %s", path, exc.strerror)


def published(run_dir: Path) -> Published | None:
    """What a cloud said of whom it permits to ask; None if it never did, or wrote something else there."""
    path = run_dir / PROVIDERS
    try:
        # the cloud's program could place a link or a pipe there
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError("it is no file")
            return msgspec.json.decode(file.read(MAX_PROVIDERS_BYTES), type=Published)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as exc:
        log.warning("%s cannot be read: %s", path, exc)
        return None


def read(run_dir: Path) -> Provision:
    """The provisioning of a cloud. Raises ConfigError."""
    try:
        return msgspec.json.decode((run_dir / PROVISION).read_bytes(), type=Provision)
    except (OSError, msgspec.DecodeError) as exc:
        raise ConfigError(f"{PROVISION} cannot be read: {exc}") from exc
