"""An owner's everything: out of a cloud into one file, and from files into a cloud.

An archive is a JSON object, packed if its name ends in .gz, that e-mission's tools read like an answer of find_entries:

* `emlab`: what a cloud holds besides documents (`wire.archive.ArchiveHead`): format, policy, ledger, counts, and the
  head of its log;
* `log`: the links of the log (`chain.Link`), which `emlab verify` checks; an import leaves them where they are;
* `phone_data`: all entries, raw, formatted and computed, an entry on each line, invalid ones included;
* `rejected`: the raw entries that could not be formatted;
* `documents`: `{"collection": ..., "document": ...}` of every other collection: the profile with the labels, the
  pipeline's state.

Imports of emlab chain, entries, errors, files, me, store.base and wire.archive; tqdm where a bar is drawn.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Never, Protocol, TypeVar

import msgspec

from emlab.entries import Rejected, StoreReport, parse_each, summed
from emlab.errors import BadEntry, BadQuery, ConfigError
from emlab.files import LISTS, replacing, sections, write
from emlab.me import Call, pages
from emlab.store.base import ANALYSIS, ERRORS, TIMESERIES, USERCACHE
from emlab.wire.archive import FORMAT, MAX_ROWS, AdoptRequest, ArchiveHead, Page, PageRequest, RestoreRequest
from emlab.wire.table import LedgerReport

if TYPE_CHECKING:
    from tqdm.auto import tqdm

T = TypeVar("T")
HEAD, LOG, ENTRIES, REJECTED, DOCUMENTS = "emlab", "log", "phone_data", "rejected", "documents"
BATCH = 500
PAGE_TIMEOUT_S = 300.0


class Item(NamedTuple):
    """Something to store, and the collection that it came from; None for an entry, which finds its own."""

    place: str | None
    content: object


class Put(Protocol):
    """The `store` of a cloud."""

    def __call__(self, entries: Iterable[object], *, partial: bool = ...) -> StoreReport:
        """What became of the entries."""


# -- out -------------------------------------------------------------------------------------------------------


def export_track(call: Call, path: Path) -> None:
    """The fixes of the cloud are in a GPX file, which only this user can read; see `files.gpx`. Raises as `export`."""
    write(path, (msgspec.json.decode(document) for _, document in _pages(call, (TIMESERIES, ANALYSIS))))


def export(call: Call, path: Path) -> ArchiveHead:
    """All that the cloud holds is in the file, which only this user can read; returns its head.

    Raises: ConfigError: it cannot be written; what stood there is left then. What the routes raise.
    """
    if not path.name.endswith((".json", ".json.gz")):
        raise ConfigError(f"an archive's name ends in .json or .json.gz, not like {path.name!r}")
    head = call("archive", ArchiveHead)
    rest = [name for name in head.documents if name not in (USERCACHE, ERRORS, TIMESERIES, ANALYSIS)]
    with replacing(path) as file, _bar("exporting", sum(head.documents.values())) as bar:
        file.write(b'{"%s": %s' % (HEAD.encode(), msgspec.json.encode(head)))
        if head.head is not None:
            links = (link for page in pages(call, head.head.seq) for link in page.links)
            file.writelines(_list(LOG, map(msgspec.json.encode, links)))
        # raw entries before formatted ones: what the pipeline moves meanwhile is there twice, not never
        for field, collections in ((ENTRIES, (USERCACHE, TIMESERIES, ANALYSIS)), (REJECTED, (ERRORS,))):
            found = _counted(bar, _pages(call, collections))
            file.writelines(_list(field, (bytes(document) for _, document in found)))
        wrapped = ({"collection": name, "document": document} for name, document in _counted(bar, _pages(call, rest)))
        file.writelines(_list(DOCUMENTS, map(msgspec.json.encode, wrapped)))
        file.write(b"}\n")
    return head


def _pages(call: Call, collections: Iterable[str]) -> Iterator[tuple[str, msgspec.Raw]]:
    for collection in collections:
        page = call("page", Page, PageRequest(collection=collection), timeout_s=PAGE_TIMEOUT_S)
        yield from ((collection, document) for document in page.documents)
        while page.after is not None:
            request = PageRequest(collection=collection, after=page.after)
            page = call("page", Page, request, timeout_s=PAGE_TIMEOUT_S)
            yield from ((collection, document) for document in page.documents)


def _list(field: str, items: Iterable[bytes]) -> Iterator[bytes]:
    yield b',\n"%s": [' % field.encode()
    for number, item in enumerate(items):
        yield (b",\n" if number else b"\n") + item
    yield b"]"


# -- in --------------------------------------------------------------------------------------------------------


def load(
    path: Path, call: Call, put: Put, *, partial: bool = False, with_policy: bool = False, zone: str = "UTC"
) -> StoreReport:
    """What the file holds is in the cloud. It is looked through before: of a broken file nothing is stored.

    Raises: BadEntry, ConfigError: as `files.read`, and of an entry that is malformed unless `partial`. What the routes
        raise.
    """
    head = _head(path, zone)
    with _bar(f"checking {path.name}", None) as bar:
        places = _counted(bar, _items(path, zone))
        entries = (content for place, content in places if place in (None, ERRORS))
        rejected = [one for one in parse_each(entries) if isinstance(one, Rejected)]
        total = int(bar.n)
    if rejected and not partial:
        raise BadEntry(f"{path.name}: {rejected[0].message}", rejected[0].position)
    if head is not None:  # before its data, which nobody shall have without what was spent on it
        policy = head.policy if with_policy else None
        call("adopt", LedgerReport, AdoptRequest(spent=head.spent, rows=head.rows, policy=policy))
    bad = {one.position for one in rejected}
    with _bar(f"importing {path.name}", total) as bar:
        items = _counted(bar, _items(path, zone))
        reports = [_bring(call, put, place, batch, partial=partial) for place, batch in _batches(items, bad)]
    return summed(reports, rejected)


def _head(path: Path, zone: str) -> ArchiveHead | None:
    """The head of an archive, None for another file. Raises BadEntry."""
    field, value = next(sections(path, zone=zone), ("", None))
    return head_of(value, path.name) if field == HEAD else None


def head_of(value: object, name: str) -> ArchiveHead:
    """The head of an archive in a file of that name. Raises BadEntry."""
    try:
        head = msgspec.convert(value, ArchiveHead)
    except (msgspec.ValidationError, BadQuery) as exc:
        raise BadEntry(f"{name}: the archive's head is malformed: {exc}") from exc
    if head.format > FORMAT:
        raise BadEntry(f"{name} has the format {head.format} of a newer emlab; this one reads {FORMAT}")
    if len(head.rows) > MAX_ROWS:
        raise BadEntry(f"{name}: the archive's ledger is longer than any")
    return head


def _items(path: Path, zone: str) -> Iterator[Item]:
    """All that is to be stored: entries without a place, and documents with their collection."""
    is_archive = False
    for field, value in sections(path, zone=zone):
        is_archive = is_archive or field == HEAD
        if field in LISTS:
            yield Item(None, value)
        elif is_archive and field == REJECTED:
            yield Item(ERRORS, value)
        elif is_archive and field == DOCUMENTS:
            named = value if isinstance(value, dict) else {}
            yield Item(str(named.get("collection")), named.get("document"))


def _batches(items: Iterable[Item], bad: Container[int]) -> Iterator[tuple[str | None, list[object]]]:
    """What goes to one place, at most BATCH at once, without the entries of these numbers."""
    numbers = itertools.count()
    good = (item for item in items if item.place not in (None, ERRORS) or next(numbers) not in bad)
    for place, same in itertools.groupby(good, key=lambda item: item.place):
        while batch := [item.content for item in itertools.islice(same, BATCH)]:
            yield place, batch


def _bring(call: Call, put: Put, place: str | None, batch: list[object], *, partial: bool) -> StoreReport:
    if place is None:
        return put(batch, partial=partial)
    documents = [msgspec.Raw(msgspec.json.encode(one)) for one in batch]
    request = RestoreRequest(collection=place, documents=documents, partial=partial)
    return call("restore", StoreReport, request, timeout_s=PAGE_TIMEOUT_S)


# -- a bar -----------------------------------------------------------------------------------------------------


def _bar(what: str, total: int | None) -> tqdm[Never]:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=what, leave=False, disable=None)


def _counted(bar: tqdm[Never], items: Iterable[T]) -> Iterator[T]:
    for item in items:
        yield item
        bar.update()
