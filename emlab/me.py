"""What an owner sees of the own cloud: who asked, what it cost, what remains, what was refused, and the log of it all.

Imports of emlab chain, errors, ledger, policy, verdict and wire; pandas when a frame is made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from emlab.chain import PAGE, Head, Link, check
from emlab.ledger import Row
from emlab.loss import Accounting, Spent
from emlab.policy import Policy, admits
from emlab.verdict import Verdict
from emlab.wire.log import MAX_ASKED, Links, LinksRequest, Remaining, RemainingRequest
from emlab.wire.table import LedgerReport

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R")
MICRO, NANO = 1e6, 1e9
SHOWN = 10  # refusals in a notebook


class Call(Protocol):
    """A call of one of the custodian's routes by its owner."""

    def __call__(
        self, name: str, response: type[R], request: msgspec.Struct | None = None, *, timeout_s: float = ...
    ) -> R:
        """The response."""


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """All that a cloud has logged, oldest first, and whether it can be trusted."""

    links: list[Link]
    head: Head
    verdict: Verdict

    def frame(self) -> pd.DataFrame:
        """One row per link, by UTC time: seq, kind, hash, and a column for each fact."""
        import pandas as pd

        rows = [{"seq": link.seq, "kind": link.kind, **link.facts, "hash": link.hash} for link in self.links]
        index = pd.to_datetime([link.ts for link in self.links], unit="s", utc=True)
        return pd.DataFrame(rows, index=pd.DatetimeIndex(index, name="time"))

    def _repr_html_(self) -> str:
        return self.verdict._repr_html_() + self.frame().tail(SHOWN).to_html(border=0)


class ProviderUse(msgspec.Struct, frozen=True, kw_only=True):
    """What one provider did here.

    Attributes:
        provider: its name. key: its public key, by which the policy knows it; "" if the log does not tell.
        asked: asks that were debited, of which so many were answered; refused: asks that were not.
        epsilon, rho: what they cost, refunds taken off; of Laplace and of Gaussian noise.
        remaining: what it may still spend now, as epsilon or rho (see `Me.accounting`); None if the key is not known.
        permitted: whether the policy permits it now.
    """

    provider: str
    key: str
    asked: int
    answered: int
    refused: int
    epsilon: float
    rho: float
    remaining: float | None
    permitted: bool


class Denied(msgspec.Struct, frozen=True, kw_only=True):
    """One ask that was refused: when (UTC seconds), whose, what, and which error says why."""

    ts: float
    provider: str
    query: str
    purpose: str
    why: str


class Me(msgspec.Struct, frozen=True, kw_only=True):
    """The owner's view of one cloud, as it was when it was asked for.

    Attributes:
        user: whose it is. policy: what the owner permits.
        accounting, spent, remaining: of all providers together; `remaining` as epsilon or, with "zcdp", as rho.
        providers: those that asked or may ask. refusals: oldest first.
        log: see Log.
    """

    user: str
    policy: Policy
    accounting: Accounting
    spent: Spent
    remaining: float
    providers: list[ProviderUse]
    refusals: list[Denied]
    log: Log

    @property
    def verified(self) -> bool:
        """Whether the log is whole, and its head signed."""
        return bool(self.log.verdict)

    def frame(self) -> pd.DataFrame:
        """One row per provider; see ProviderUse."""
        import pandas as pd

        columns = list(ProviderUse.__struct_fields__)
        return pd.DataFrame([msgspec.structs.astuple(one) for one in self.providers], columns=columns)

    def __repr__(self) -> str:
        left = f"{self.remaining:g} {_unit(self.accounting)} left"
        log = f"log of {self.log.head.seq} {'verified' if self.verified else 'NOT VERIFIED'}"
        return f"Me(user={self.user!r}, {left}, {len(self.providers)} providers, {len(self.refusals)} refusals, {log})"

    def _repr_html_(self) -> str:
        unit = _unit(self.accounting)
        facts = {
            "spent": f"epsilon {self.spent.micro / MICRO:g}, rho {self.spent.nano / NANO:g}",
            "remains": f"{unit} {self.remaining:g}",
            "log": str(self.log.verdict).partition("\n")[0],
        }
        providers = self.frame().assign(key=[one.key[:12] for one in self.providers])
        refusals = [_shown(one) for one in self.refusals[-SHOWN:]]
        return "".join(
            [
                _table(f"the cloud of {self.user}", [["", ""], *map(list, facts.items())]),
                providers.rename(columns={"remaining": f"remaining ({unit})"}).to_html(index=False, border=0),
                _table(f"refused: {len(self.refusals)}", _rows(refusals)) if refusals else "<p>nothing was refused</p>",
                f"<pre>{escape(self.policy.explain())}</pre>",
            ]
        )


def _shown(denied: Denied) -> dict[str, str]:
    """A row about the refusal."""
    told = msgspec.structs.asdict(denied)
    return {"time (UTC)": f"{datetime.fromtimestamp(told.pop('ts'), UTC):%Y-%m-%d %H:%M:%S}", **told}


def _unit(accounting: Accounting) -> str:
    return "epsilon" if accounting == "pure" else "rho"


def _rows(found: Sequence[dict[str, str]]) -> list[list[str]]:
    return [list(found[0]), *(list(one.values()) for one in found)]


def _table(caption: str, rows: Sequence[Sequence[str]]) -> str:
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><caption>{escape(caption)}</caption>{body}</table>"


# -- gathering -------------------------------------------------------------------------------------------------


def pages(call: Call, until: int) -> Iterator[Links]:
    """The log page by page, up to this seq: it grows while it is read."""
    after = 0
    while after < until:
        page = call("links", Links, LinksRequest(after=after, limit=min(PAGE, until - after)))
        if not page.links:
            return  # and the check will say that some are missing
        yield page
        after = page.links[-1].seq


def read_log(call: Call, earlier: Iterable[Head] = ()) -> Log:
    """The whole log of a cloud, checked."""
    head = call("head", Head)
    links = [link for page in pages(call, head.seq) for link in page.links]
    return Log(links=links, head=head, verdict=check(links, head, earlier=list(earlier)))


def gather(call: Call, user: str, earlier: Iterable[Head] = ()) -> Me:
    """The owner's view of a cloud whose routes are called by `call`."""
    policy, ledger, log = call("policy", Policy), call("ledger", LedgerReport), read_log(call, earlier)
    names = _names(log.links, policy)
    keys = [key for key in names if key][:MAX_ASKED]
    left = call("remaining", Remaining, RemainingRequest(providers=keys)).by_provider if keys else {}
    scale = MICRO if ledger.accounting == "pure" else NANO
    refused = Counter(link.facts.get("provider_key") for link in log.links if link.kind == "refused")
    providers = [
        _use(name, key, rows, refused[key], policy, left[key] / scale if key in left else None)
        for (key, name), rows in _by_provider(ledger.rows, log.links, names).items()
    ]
    return Me(
        user=user,
        policy=policy,
        accounting=ledger.accounting,
        spent=ledger.spent,
        remaining=ledger.remaining / scale,
        providers=providers,
        refusals=[_denied(link) for link in log.links if link.kind == "refused"],
        log=log,
    )


def _names(links: Iterable[Link], policy: Policy) -> dict[str, str]:
    """The name of each provider by its key, as it last called itself; of those that never asked, the key's start."""
    pinned = () if policy.providers == "anyone" else policy.providers
    names = {key: f"{key[:12]}…" for key in (*pinned, *policy.quotas)}
    for link in links:
        key = link.facts.get("provider_key")
        if isinstance(key, str):
            names[key] = str(link.facts.get("provider"))
    return names


def _by_provider(
    rows: Iterable[Row], links: Iterable[Link], names: Mapping[str, str]
) -> dict[tuple[str, str], list[Row]]:
    """The debits of each (key, name): all in `names`, then names whose key nobody tells, as of another lab.

    The log tells the key of an ask, but for one that came with an import or was found after a crash: that is by name.
    """
    by_ask = {link.facts.get("ask"): str(link.facts["provider_key"]) for link in links if "provider_key" in link.facts}
    by_name = {name: key for key, name in names.items()}
    found: dict[tuple[str, str], list[Row]] = {item: [] for item in names.items()}
    for row in sorted(rows, key=lambda row: row.provider):
        key = by_ask.get(row.id) or by_name.get(row.provider, "")
        found.setdefault((key, names.get(key, row.provider)), []).append(row)
    return found


def _use(
    name: str, key: str, rows: Sequence[Row], refused: int, policy: Policy, remaining: float | None
) -> ProviderUse:
    paid = [row.loss for row in rows if not row.refunded]
    return ProviderUse(
        provider=name,
        key=key,
        asked=len(rows),
        answered=sum(row.answered for row in rows),
        refused=refused,
        epsilon=sum(loss.epsilon_micro for loss in paid) / MICRO,
        rho=sum(loss.rho_nano for loss in paid) / NANO,
        remaining=remaining,
        permitted=admits(policy.providers, key),
    )


def _denied(link: Link) -> Denied:
    told = {name: str(link.facts.get(name, "")) for name in ("provider", "query", "purpose", "why")}
    return Denied(ts=link.ts, **told)
