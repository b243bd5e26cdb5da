"""The log of a cloud: each entry holds the hash of the one before, so that none can be changed or dropped unnoticed.

A link is (seq, ts, kind, facts, before) and its hash. The first one's `before` is that of the cloud's id. Whoever keeps
a head (the seq and hash of the newest link) notices a log that was cut or rewritten since. Links are never removed;
one of an answer has about 700 bytes as a document, which MongoDB packs.

Imports pymongo when a log in MongoDB is opened, and of emlab errors, key, mongo_errors and verdict.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol, cast

import msgspec

from emlab.errors import NotPermitted, StoreError
from emlab.key import SigningKey, verify
from emlab.mongo_errors import wrapped
from emlab.verdict import Check, Verdict, checked

if TYPE_CHECKING:
    from pymongo import MongoClient
    from pymongo.collection import Collection as MongoCollection

DATABASE, COLLECTION = "emlab", "chain"
MAX_FACTS, MAX_FACT = 20, 300
PAGE = 1_000
TRIES = 100  # to append, while others append too
Document = dict[str, object]
Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$")]
Seq = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Fact = Annotated[str, msgspec.Meta(max_length=MAX_FACT)] | Annotated[int, msgspec.Meta(ge=-(2**53), le=2**53)]
Facts = Annotated[dict[Annotated[str, msgspec.Meta(max_length=40)], Fact], msgspec.Meta(max_length=MAX_FACTS)]


class Link(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One entry of the log.

    Attributes:
        seq: counts them, from 1. ts: UTC seconds by the cloud's clock. kind: what happened, in a word.
        facts: more of it, none of them a person's data. before: the hash of the link before.
        hash: SHA-256 of all this.
    """

    seq: Seq
    ts: float
    kind: Annotated[str, msgspec.Meta(max_length=40)]
    facts: Facts
    before: Hash
    hash: Annotated[str, msgspec.Meta(max_length=64)] = ""

    def digest(self) -> str:
        """What the hash should be."""
        bare = msgspec.structs.replace(self, hash="")
        return hashlib.sha256(b"emlab/link\0" + msgspec.json.encode(bare, order="deterministic")).hexdigest()


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The newest link of a cloud's log, signed by the cloud; with seq 0 there is none yet.

    Attributes:
        cloud: its id. ts: when it was signed. public: its key, in hex. signature: of all the rest.
    """

    cloud: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}$")]
    seq: Annotated[int, msgspec.Meta(ge=0, le=2**53)]
    hash: Hash
    ts: float
    public: Hash
    signature: bytes = b""

    def signed(self) -> bytes:
        """The bytes that the signature covers."""
        bare = msgspec.structs.replace(self, signature=b"")
        return b"emlab/head\0" + msgspec.json.encode(bare, order="deterministic")


def root(cloud: str) -> str:
    """What stands before the first link of this cloud's log."""
    return hashlib.sha256(b"emlab/chain\0" + cloud.encode()).hexdigest()


def following(before: Link | None, cloud: str, kind: str, facts: Mapping[str, str | int], ts: float) -> Link:
    """The link after that one, or the first. Long texts are cut."""
    bare = Link(
        seq=1 if before is None else before.seq + 1,
        ts=ts,
        kind=kind,
        facts={name: fact[:MAX_FACT] if isinstance(fact, str) else fact for name, fact in facts.items()},
        before=root(cloud) if before is None else before.hash,
    )
    return msgspec.structs.replace(bare, hash=bare.digest())


def head(newest: Link | None, cloud: str, key: SigningKey, now: float) -> Head:
    """The head, signed."""
    seq, hash_ = (0, root(cloud)) if newest is None else (newest.seq, newest.hash)
    bare = Head(cloud=cloud, seq=seq, hash=hash_, ts=now, public=key.public)
    return msgspec.structs.replace(bare, signature=key.sign(bare.signed()))


def check(links: Iterable[Link], told: Head, *, earlier: Collection[Head] = (), public: str | None = None) -> Verdict:
    """What can be checked of a whole log: each link, the order, the head, and that it goes on from earlier heads.

    Args:
        links: from the first on. told: the head that came with them.
        earlier: heads of this log that somebody remembers. public: the cloud's key, if it is known from elsewhere.
    """
    remembered: dict[int, set[str]] = {}
    for one in earlier:
        remembered.setdefault(one.seq, set()).add(one.hash)
    broken: list[str] = []
    lost: list[str] = []
    last = Link(seq=1, ts=0.0, kind="", facts={}, before=root(told.cloud), hash=root(told.cloud))
    number = 0
    for number, link in enumerate(links, 1):
        broken += _wrong(link, number, last.hash)
        last = link
        if remembered.get(number, {link.hash}) != {link.hash}:
            lost.append(f"link {number} is another one now")
    lost += [f"it ended at {seq} once, and now at {number}" for seq in remembered if seq > number]
    lost += [f"a head of {one.cloud[:12]} is of another cloud" for one in earlier if one.cloud != told.cloud]
    checks = [
        checked("each link is whole, and follows the one before", broken),
        checked("it ends where its head says", _elsewhere(told, number, last.hash)),
        checked("the cloud signed the head", _unsigned(told, public)),
    ]
    if earlier:
        checks.append(checked(f"it goes on from {len(earlier)} earlier heads", lost))
    return Verdict(f"the log of cloud {told.cloud[:12]}, {number} links", tuple(checks))


def _wrong(link: Link, number: int, before: str) -> Iterator[str]:
    if link.seq != number:
        yield f"where link {number} should be is {link.seq}"
    if link.before != before:
        yield f"link {link.seq} does not follow the one before it"
    if link.hash != link.digest():
        yield f"link {link.seq} was altered"


def _elsewhere(told: Head, number: int, newest: str) -> Iterator[str]:
    if told.seq != number:
        yield f"the head is link {told.seq}, and there are {number}"
    elif told.hash != newest:
        yield "the head's hash is another one"


def _unsigned(told: Head, public: str | None) -> Iterator[str]:
    try:
        verify(told.public, told.signature, told.signed(), "the head")
    except NotPermitted as exc:
        yield str(exc)
    if public is not None and told.public != public:
        yield "it is signed with another key"


def tells(links: Iterable[Link], answers: Mapping[str, str]) -> Check:
    """Whether the log tells of these answers of receipts.

    Args:
        answers: of each ask's digest the digest of the stub that this cloud signed.
    """
    logged = {link.facts.get("stub") for link in links if link.kind == "answered"}
    return checked(
        "it tells of each of its answers in the receipts",
        (f"nothing of that to ask {ask[:12]}" for ask, stub in answers.items() if stub not in logged),
    )


class Chain(Protocol):
    """Keeps the links of one cloud. Blocks; threads may append at once; what `append` returned survives a crash.

    Raises StoreError when the database cannot be reached, DiskFull (with path and free bytes) when it has no room.
    """

    def append(self, kind: str, facts: Mapping[str, str | int], ts: float, *, once: str | None = None) -> Link:
        """The link is there, and the newest one then.

        Args:
            once: what it tells of. If a link tells of that already, it is returned instead, and nothing is added.
        """

    def untold(self, once: Sequence[str]) -> list[str]:
        """Those of which no link tells."""

    def newest(self) -> Link | None:
        """The newest link."""

    def page(self, after: int, limit: int) -> list[Link]:
        """The links after that seq, oldest first, at most so many."""


class MongoChain:
    """A log in the cloud's own MongoDB, beside the ledger.

    Args:
        client: a client of the cloud's mongod; stays the caller's. cloud: its id.
        data_dir: where that mongod keeps its files, to tell a full disk from other faults.
    """

    def __init__(self, client: MongoClient[Document], cloud: str, *, data_dir: Path | None = None) -> None:
        from pymongo import WriteConcern

        self._cloud = cloud
        self._data_dir = data_dir
        database = client.get_database(DATABASE, write_concern=WriteConcern(w=1, j=True))
        self._links: MongoCollection[Document] = database[COLLECTION]

    def recover(self) -> None:
        """The index is there by which nothing is told twice."""
        with wrapped("open the log", self._data_dir):
            self._links.create_index("once", unique=True, sparse=True)

    def append(self, kind: str, facts: Mapping[str, str | int], ts: float, *, once: str | None = None) -> Link:
        """See Chain. The seq is the document's id, so that of two who append at once one finds it taken."""
        with wrapped("write the log", self._data_dir):
            for _ in range(TRIES):
                link = following(self._newest(), self._cloud, kind, facts, ts)
                if self._insert(link, once):
                    return link
                if once is not None and (told := self._links.find_one({"once": once})) is not None:
                    return _link(told)
        raise StoreError(f"the log could not be written: in {TRIES} tries others were always first")

    def _insert(self, link: Link, once: str | None) -> bool:
        from pymongo.errors import DuplicateKeyError

        document: Document = {**msgspec.to_builtins(link), "_id": link.seq, **({} if once is None else {"once": once})}
        del document["seq"]
        try:
            self._links.insert_one(document)
        except DuplicateKeyError:
            return False
        return True

    def untold(self, once: Sequence[str]) -> list[str]:
        """See Chain."""
        told: set[str] = set()
        with wrapped("read the log", self._data_dir):
            for start in range(0, len(once), PAGE):
                found = self._links.find({"once": {"$in": list(once[start : start + PAGE])}}, {"once": 1})
                told |= {cast(str, one["once"]) for one in found}
        return [one for one in once if one not in told]

    def newest(self) -> Link | None:
        """See Chain."""
        with wrapped("read the log", self._data_dir):
            return self._newest()

    def _newest(self) -> Link | None:
        found = self._links.find_one(sort=[("_id", -1)])
        return None if found is None else _link(found)

    def page(self, after: int, limit: int) -> list[Link]:
        """See Chain."""
        with wrapped("read the log", self._data_dir):
            return [_link(one) for one in self._links.find({"_id": {"$gt": after}}).sort("_id", 1).limit(limit)]


def _link(document: Document) -> Link:
    """The link in a document, as it stands there: whether it is whole is for `check` to say."""
    named = {name: value for name, value in document.items() if name not in ("_id", "once")}
    try:
        return msgspec.convert({**named, "seq": document["_id"]}, Link)
    except msgspec.ValidationError as exc:
        raise StoreError(f"the log holds something that is no link: {exc}") from exc


class MemoryChain:
    """The same in this process's memory, for unit tests and MemoryEngine."""

    def __init__(self, cloud: str) -> None:
        self._cloud = cloud
        self._lock = threading.Lock()
        self._links: list[Link] = []
        self._told: dict[str, Link] = {}

    def append(self, kind: str, facts: Mapping[str, str | int], ts: float, *, once: str | None = None) -> Link:
        """See Chain."""
        with self._lock:
            if once is not None and once in self._told:
                return self._told[once]
            link = following(self._links[-1] if self._links else None, self._cloud, kind, facts, ts)
            self._links.append(link)
            if once is not None:
                self._told[once] = link
            return link

    def untold(self, once: Sequence[str]) -> list[str]:
        """See Chain."""
        with self._lock:
            return [one for one in once if one not in self._told]

    def newest(self) -> Link | None:
        """See Chain."""
        with self._lock:
            return self._links[-1] if self._links else None

    def page(self, after: int, limit: int) -> list[Link]:
        """See Chain."""
        with self._lock:
            return self._links[after : after + limit]
