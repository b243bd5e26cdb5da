"""Every error that emlab raises, as one tree.

::

    EmlabError
    ├── EngineError        an engine could not do what was asked
    │   ├── EngineMissing  this host cannot run the engine; the message says how to get it
    │   ├── ImageMissing   the engine has no image of this tree
    │   ├── StartTimeout   a cloud did not answer in time; carries its last log lines
    │   ├── CloudGone      the engine no longer knows the cloud
    │   └── InUse          a cloud is busy: leased, or with a run of its pipeline and one that waits
    ├── VaultError
    │   ├── VaultMissing   this host cannot run the vault
    │   ├── VaultBusy      somebody uses the vault, or works on it; nothing was changed
    │   ├── VaultDamaged   what is kept of the vault's keys is not what was written
    │   ├── WrongKey       the key does not open this vault
    │   │   └── MistypedCode  a recovery code contradicts itself
    │   └── Locked         the vault is closed; unlock it first
    ├── StoreError         the database could not keep or read entries
    │   ├── MongodMissing  no mongod on this host
    │   └── DiskFull       names the path and the free bytes
    ├── Refused            somebody may not do this; nothing was spent
    │   ├── NotPermitted   wrong token, signature or capability
    │   │   └── NoToken    none at all
    │   ├── PolicyRefused  the owner's policy says no
    │   ├── BudgetExhausted the owner's privacy budget does not cover it
    │   ├── TooFewUsers    fewer people answered than the ask or a policy demands
    │   └── TooMany        somebody asks too often
    ├── WireError
    │   ├── Unreachable    the other side did not answer
    │   └── BadReply       the other side answered nonsense
    ├── BadEntry           an entry is malformed; says which one and where
    ├── BadQuery           a query, epsilon or another number is out of bounds
    ├── UnknownUser        no such cloud in this lab
    └── ConfigError        a lab, an experiment or an argument is set up wrongly
        └── LabInUse       another process owns this lab

`status` is the HTTP status with which a class crosses the wire; `kind` (the class name) brings it back.
Imports nothing.
"""

from __future__ import annotations

from typing import ClassVar


class EmlabError(Exception):
    """The root: catching it catches everything that emlab raises on purpose."""

    status: ClassVar[int] = 500

    @property
    def kind(self) -> str:
        """The class name, which names the error on the wire."""
        return type(self).__name__


class EngineError(EmlabError):
    """An engine could not do what was asked."""

    status = 503


class EngineMissing(EngineError):
    """This host cannot run the engine; the message says what it lacks and how to get it."""


class ImageMissing(EngineError):
    """The engine has no image built from this tree."""


class StartTimeout(EngineError):
    """A cloud died or did not answer in time; the message ends with its last log lines."""


class CloudGone(EngineError):
    """The engine no longer knows this cloud."""

    status = 404


class InUse(EngineError):
    """Somebody uses this cloud: it is not paused or locked before the lease ends, nor do runs of its pipeline queue."""

    status = 409


class VaultError(EmlabError):
    """A vault could not do what was asked."""

    status = 409


class VaultMissing(VaultError):
    """This host cannot run the vault; the message says what it lacks and how to get it."""


class VaultBusy(VaultError):
    """Somebody uses the open vault, or works on it, and did not end in time; the message says who. Nothing is lost."""


class VaultDamaged(VaultError):
    """What is kept of a vault's keys is not what was written; restore the file that the message names."""


class WrongKey(VaultError):
    """The key does not open this vault."""

    status = 403


class MistypedCode(WrongKey):
    """A recovery code that contradicts itself: it was mistyped. The vault was not even asked."""

    status = 400


class Locked(VaultError):
    """The vault is closed: unlock it with the owner's key first."""


class StoreError(EmlabError):
    """The database could not keep or read entries."""


class MongodMissing(StoreError):
    """No mongod was found; the message says how to get one."""


class DiskFull(StoreError):
    """The disk under a cloud is full; the message names the path and the free bytes."""

    status = 507


class Refused(EmlabError):
    """Somebody may not do this; nothing was spent."""

    status = 403


class NotPermitted(Refused):
    """A token, signature or capability is missing, wrong, expired or meant for something else."""


class NoToken(NotPermitted):
    """A token is needed, and there is none."""

    status = 401


class PolicyRefused(Refused):
    """The owner's policy does not allow this ask."""


class BudgetExhausted(Refused):
    """What remains of the owner's privacy budget does not cover this ask."""

    status = 429


class TooFewUsers(Refused):
    """Fewer people answered than the ask or a policy demands, so nothing is released."""


class TooMany(Refused):
    """Somebody asks too often; the message says when to ask again, and so does `retry_after_s`, where it is known."""

    status = 429

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class WireError(EmlabError):
    """Talking to another program failed."""

    status = 502


class Unreachable(WireError):
    """The other side did not answer within the time given."""

    status = 504


class BadReply(WireError):
    """The other side answered, but not in the agreed form."""


class BadEntry(EmlabError, ValueError):
    """An entry is malformed; `position` is its index in what was handed over, from 0."""

    status = 400

    def __init__(self, message: str, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class BadQuery(EmlabError, ValueError):
    """A query, an epsilon or another number from outside is out of its bounds; nothing was spent."""

    status = 400


class UnknownUser(EmlabError, LookupError):
    """There is no cloud of that name in this lab."""

    status = 404


class ConfigError(EmlabError, ValueError):
    """A lab, an experiment or an argument is set up wrongly."""

    status = 400


class LabInUse(ConfigError):
    """Another process owns this lab; the message names its pid."""
