"""Policy: what an owner permits. A frozen value and pure decisions."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Literal, Protocol

import msgspec

from emlab.ask import Ask, Public
from emlab.errors import BadQuery, PolicyRefused
from emlab.privacy import EPSILON_MICRO_MAX, MICRO, micro_epsilon

Anyone = Literal["anyone"]
Pinned = tuple[Public, ...] | Anyone


_KEY = re.compile("[0-9a-f]{64}")


class HasPublicKey(Protocol):
    """A provider, an aggregator or a key pair."""

    @property
    def public(self) -> str:
        """The public key in hex."""


def _keys(who: Iterable[HasPublicKey | str]) -> tuple[str, ...]:
    if isinstance(who, str) or not isinstance(who, Iterable):
        raise BadQuery("providers and aggregators come as a list")
    keys = tuple(dict.fromkeys(one if isinstance(one, str) else one.public for one in who))
    for key in keys:
        if not _KEY.fullmatch(key):
            raise BadQuery(
                f"give the provider or aggregator itself, or its public key (64 hex digits), not {key[:80]!r}"
            )
    return keys


class Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who may ask this person's cloud, through whom, and for how much in all.

    Attributes:
        providers, aggregators: their public keys, or "anyone". Because keys are pinned, nobody else (the
            controller included) can invent a provider or an aggregator.
        total_epsilon_micro: the whole privacy budget, in millionths of epsilon.
        min_users: asks that may be released with fewer people are refused.
        name: what the owner calls it.
    """

    providers: Pinned
    aggregators: Pinned
    total_epsilon_micro: Annotated[int, msgspec.Meta(ge=0, le=EPSILON_MICRO_MAX)]
    min_users: Annotated[int, msgspec.Meta(ge=1)]
    name: Annotated[str, msgspec.Meta(max_length=64)] = "custom"

    @classmethod
    def research(
        cls,
        providers: Iterable[HasPublicKey | str] = (),
        aggregators: Iterable[HasPublicKey | str] = (),
        *,
        total_epsilon: float = 3.0,
        min_users: int = 10,
    ) -> Policy:
        """Only these providers, through these aggregators, in groups of ten or more, epsilon 3 in all.

        Without arguments nobody may ask until the owner permits somebody (`UserCloud.permit`).
        """
        return _checked(
            cls(
                providers=_keys(providers),
                aggregators=_keys(aggregators),
                total_epsilon_micro=micro_epsilon(total_epsilon),
                min_users=min_users,
                name="research",
            )
        )

    @classmethod
    def open(cls, *, total_epsilon: float = 100.0) -> Policy:
        """Anyone, alone, for an epsilon of 100: for demonstrations with simulated people, not for a real person."""
        return _checked(
            cls(
                providers="anyone",
                aggregators="anyone",
                total_epsilon_micro=micro_epsilon(total_epsilon),
                min_users=1,
                name="open",
            )
        )

    @property
    def total_epsilon(self) -> float:
        """The whole budget as epsilon."""
        return self.total_epsilon_micro / MICRO

    def permitting(
        self, *, providers: Iterable[HasPublicKey | str] = (), aggregators: Iterable[HasPublicKey | str] = ()
    ) -> Policy:
        """This policy with these providers and aggregators permitted besides."""
        return _checked(
            msgspec.structs.replace(
                self,
                providers=_more(self.providers, _keys(providers)),
                aggregators=_more(self.aggregators, _keys(aggregators)),
            )
        )

    def check(self, ask: Ask) -> None:
        """Returns if the policy allows the ask; the budget is the ledger's to check. Raises PolicyRefused."""
        if not admits(self.providers, ask.provider):
            raise PolicyRefused(f"the owner has not permitted the provider {ask.provider_name}")
        if not admits(self.aggregators, ask.aggregator):
            raise PolicyRefused("the owner has not permitted this aggregator")
        if ask.min_users < self.min_users:
            raise PolicyRefused(
                f"the owner answers only in groups of {self.min_users} or more, the ask says {ask.min_users}"
            )


def admits(pinned: Pinned, public: str) -> bool:
    """Whether who has this public key is among those."""
    return pinned == "anyone" or public in pinned


def _more(pinned: Pinned, keys: tuple[str, ...]) -> Pinned:
    return "anyone" if pinned == "anyone" else _keys((*pinned, *keys))


def _checked(policy: Policy) -> Policy:
    """The policy, its fields validated as they would be on the wire. Raises BadQuery."""
    try:
        return msgspec.convert(msgspec.to_builtins(policy), Policy)
    except msgspec.ValidationError as exc:
        raise BadQuery(f"not a policy: {exc}") from exc
