"""Files that can be verified: a receipt, a release with its receipt, an archive with its log. Each on its own, and
against each other: receipts against the log of a cloud that they name, and a log against a later one."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import msgspec

from emlab import archive, chain, receipt
from emlab.aggregate import Release
from emlab.chain import Head, Link
from emlab.errors import BadEntry, NotPermitted
from emlab.files import sections
from emlab.files.opening import opened
from emlab.key import verify as verify_signature
from emlab.ledger import Row
from emlab.receipt import Receipt
from emlab.verdict import Check, Verdict, checked
from emlab.wire.archive import ArchiveHead


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """One check of one file."""

    file: str
    check: str
    holds: bool
    why: str


def verify(paths: Sequence[Path], aggregators: Collection[str] | None = None) -> dict[Path, Verdict]:
    """What can be said of these files. Raises BadEntry, ConfigError: one is none of those, or cannot be read.

    Args:
        aggregators: the signing keys that are trusted, in hex; without them whoever signed is.
    """
    heads = {path: _head(path) for path in paths if _is_archive(path)}
    receipts = {path: receipt.read(path) for path in paths if path not in heads}
    verdicts: dict[Path, Verdict] = {}
    for path in paths:
        if path in heads:
            others = [one for other, one in heads.items() if other != path]
            verdicts[path] = _of_archive(path, heads[path], others, [found for found, _ in receipts.values()])
        else:
            found, raw = receipts[path]
            release = None if raw is None else Release.of(raw, path.name)
            verdicts[path] = found.verify(release, aggregators=aggregators)
    return verdicts


def rows(verdicts: dict[Path, Verdict]) -> list[Verified]:
    """The same as rows."""
    return [
        Verified(file=str(path), check=one.says, holds=one.holds, why=one.why)
        for path, verdict in verdicts.items()
        for one in verdict.checks
    ]


def _is_archive(path: Path) -> bool:
    """Whether a file begins as archives do. Raises ConfigError, BadEntry."""
    with opened(path) as file:
        start = file.read(1 << 10).lstrip(b"\xef\xbb\xbf \t\r\n")
    return start.startswith(b"{") and start[1:].lstrip().startswith(b'"%s"' % archive.HEAD.encode())


def _head(path: Path) -> ArchiveHead:
    _, value = next(sections(path))
    return archive.head_of(value, path.name)


def _of_archive(path: Path, head: ArchiveHead, others: Sequence[ArchiveHead], receipts: Sequence[Receipt]) -> Verdict:
    """The whole file is read, so that one that was cut is told from a whole one."""
    if head.head is None:
        raise BadEntry(f"{path.name} is an archive without a log: it was made before there were any")
    links = [_link(value, path.name) for field, value in sections(path) if field == archive.LOG]
    same = [one.head for one in others if one.cloud == head.cloud and one.head is not None]
    earlier = [one for one in same if one.ts <= head.head.ts]
    whole = chain.check(links, head.head, earlier=earlier)
    checks = [*whole.checks, _of_cloud(head, head.head), _policy(head, links), _ledger(head.rows, links)]
    answers = {
        found.ask_digest: one.stub.digest()
        for found in receipts
        for one in found.answers
        if one.stub.answered_ts < int(head.head.ts) and _is_of(head.head, one)  # what came later it cannot know
    }
    if answers:
        checks.append(chain.tells(links, answers))
    return Verdict(f"the archive of cloud {head.cloud[:12]} with {len(links)} links", tuple(checks))


def _link(value: object, name: str) -> Link:
    try:
        return msgspec.convert(value, Link)
    except msgspec.ValidationError as exc:
        raise BadEntry(f"{name}: a link of the log is malformed: {exc}") from exc


def _is_of(head: Head, one: receipt.Countersigned) -> bool:
    """Whether the cloud of that head signed the answer."""
    try:
        verify_signature(head.public, one.signature, one.stub.signed(), "it")
    except NotPermitted:
        return False
    return True


def _of_cloud(head: ArchiveHead, signed: Head) -> Check:
    return checked("the log is of the archive's cloud", [signed.cloud[:12]] if signed.cloud != head.cloud else [])


def _policy(head: ArchiveHead, links: Sequence[Link]) -> Check:
    told = [link.facts.get("policy") for link in links if link.kind == "policy"][-1:]
    wrong = [] if told == [head.policy.digest] else ["it is another one"]
    return checked("the policy is the last that the log tells of", wrong)


def _ledger(kept: Sequence[Row], links: Sequence[Link]) -> Check:
    """Rows of other clouds, which an import brought, are not in this log; so it is asked the other way round."""
    costs = {row.id: (row.loss.epsilon_micro, row.loss.rho_nano) for row in kept}

    def wrong() -> Iterator[str]:
        for link in links:
            if link.kind in ("answered", "debited"):
                ask = str(link.facts.get("ask"))
                told = (link.facts.get("epsilon_micro", 0), link.facts.get("rho_nano", 0))
                if ask not in costs:
                    yield f"ask {ask[:12]} is missing"
                elif costs[ask] != told:
                    yield f"ask {ask[:12]} cost something else"

    return checked("the ledger has each debit that the log tells of", wrong())
