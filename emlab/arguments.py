"""What people hand to a controller or a lab, checked with a sentence that says what is wanted. L1."""

from __future__ import annotations

import re
from numbers import Real

from emlab.errors import ConfigError
from emlab.key import OwnerSecret
from emlab.policy import Policy

MAX_LEASE_S = 86400.0
MAX_TTL_S = 10 * 366 * 86_400.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")


def check_name(whose: str, name: object) -> None:
    """Returns if that is a name of a user or provider. Raises ConfigError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(
            f"{str(name)[:80]!r} is no name of a {whose}: 1 to 64 of A-Z, a-z, 0-9 and ._@+-, a letter or digit first"
        )


def check_key(key: object) -> None:
    """Returns if it can be an owner's; a recovery code is kept in a place of its own. Raises ConfigError."""
    if not isinstance(key, OwnerSecret):
        raise ConfigError(f"a key is an em.Key or an em.Passphrase, not {type(key).__name__}")


def check_policy(policy: object, what: str = "a policy") -> None:
    """Returns if it is one. Raises ConfigError."""
    if not isinstance(policy, Policy):
        raise ConfigError(f"{what} is an em.Policy, such as em.Policy.open(), not {type(policy).__name__}")


def check_vault(policy: Policy, kind: str) -> None:
    """Returns if the owner's data may lie in a vault of this kind. Raises ConfigError."""
    if not policy.accepts_vault(kind):
        raise ConfigError(
            f"the policy accepts {', '.join(policy.vaults) or 'no'} vaults, and those of this lab are {kind}"
        )


def check_ttl(ttl_s: object) -> None:
    """Returns if a token can last so long; None is for ever. Raises ConfigError."""
    if ttl_s is None:
        return
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, Real) or not 0 < float(ttl_s) <= MAX_TTL_S:
        raise ConfigError(f"a token lasts more than 0 and at most {MAX_TTL_S:g} s, not {ttl_s!r}")


def check_lease(ttl_s: object) -> None:
    """Returns if a lease can last so long. Raises ConfigError."""
    if isinstance(ttl_s, bool) or not isinstance(ttl_s, Real) or not 0 < float(ttl_s) <= MAX_LEASE_S:
        raise ConfigError(f"a lease lasts more than 0 and at most {MAX_LEASE_S:g} s, not {ttl_s!r}")
