"""Finding too many entries, over a real mongod: which are answered, and when an answer is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from emlab.emission import actor
from emlab.errors import BadQuery
from emlab.store import emission
from tests.contract.rest import BATTERY, EVER, FIND, Client, Rest, find, numbers, phone_entry


@pytest.fixture
def rest(shared_client: Client) -> Rest:
    """A cloud with eight entries that came out of order."""
    shared_client.drop_database("Stage_database")
    rest = Rest(shared_client)
    keys = {n: BATTERY if n % 3 == 0 else "background/location" for n in (4, 2, 9, 0, 7, 5, 1, 3)}
    rest.ask("/usercache/put", phone_to_server=[phone_entry(n, key=key) for n, key in keys.items()])
    return rest


def test_too_many_are_cut(rest: Rest) -> None:
    assert numbers(find(rest, max_entries=3, trunc_method="first")) == [0, 1, 2]
    assert numbers(find(rest, max_entries=3, trunc_method="last")) == [5, 7, 9]
    assert numbers(find(rest, max_entries=3, trunc_method="sample")) == [0, 3, 7]
    assert len(find(rest, max_entries=0, trunc_method="sample")) == 8
    assert len(find(rest, max_entries=8)) == 8
    assert rest.post(FIND, {"key_list": None, **EVER, "max_entries": 7})[0] == 400
    assert rest.post(FIND, {"key_list": None, **EVER, "max_entries": -1, "trunc_method": "last"})[0] == 400


@pytest.mark.parametrize("tail", [0, 3, 1000])
def test_what_is_cut_is_a_part_of_all_in_their_order(rest: Rest, tail: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emission, "TAIL", tail)
    monkeypatch.setattr(emission, "BATCH", 2)
    done = {"write_fmt_time": "2015-08-27T08:18:38-07:00"}
    for written, key in (((8, 6, 12), BATTERY), ((11, 10), "analysis/cleaned_trip")):
        entries: list[Any] = [phone_entry(n, key=key) for n in written]
        rest.store.put([{**one, "metadata": {**one["metadata"], **done}} for one in entries])
    for limit in (250_000, 4):
        monkeypatch.setattr(emission, "FOUND_LIMIT", dict.fromkeys(emission.FOUND_LIMIT, limit))
        every = find(rest)
        assert len(every) == (13 if limit > 4 else 3 + 2 + 4)
        for most in range(1, 15):
            first, last, sample = (
                find(rest, max_entries=most, trunc_method=how) for how in ("first", "last", "sample")
            )
            assert (first, last) == (every[:most], every[-most:])
            assert sample == (every if len(every) <= most else every[:: len(every) // most + 1])


def test_too_large_an_answer_is_refused_before_all_of_it_is_read(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {"key_list": None, **EVER}
    assert rest.post(FIND, asked)[0] == 200
    monkeypatch.setattr(actor, "MAX_REPLY_BYTES", 1500)  # eight entries have more, two have not
    for many in (2, 10_000):
        monkeypatch.setattr(actor, "MANY", many)
        status, refused = rest.post(FIND, asked)
        assert (status, refused["kind"]) == (400, "BadQuery")
        assert "more than 1500 bytes" in refused["detail"]
        assert len(find(rest, max_entries=2, trunc_method="last")) == 2


def test_how_large_all_are_is_asked_once_there_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actor, "MANY", 3)
    entries: Iterator[dict[str, object]] = ({"n": n} for n in range(10))
    with pytest.raises(BadQuery, match="more than"):
        actor._encoded(entries, size=lambda: actor.MAX_REPLY_BYTES + 1)
    assert next(entries) == {"n": 3}
    assert len(actor._encoded(entries, size=lambda: actor.MAX_REPLY_BYTES)) == 6
