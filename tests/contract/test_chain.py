"""One contract for logs, over memory and a real mongod; then what only a real one can show: races, crashes, size."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from pymongo import MongoClient

from emlab.ask import new_id
from emlab.chain import Chain, MemoryChain, MongoChain, check, head
from emlab.engines.rundir import make_run_dir
from emlab.errors import StoreError
from emlab.key import SigningKey
from emlab.mongod import Mongod
from tests.unit.asks import CLOUD

Client = MongoClient[dict[str, object]]
KEY = SigningKey()
ALL = 10_000  # links in a page
MAX_LINK_BYTES = 800  # of a long one, index included; what RECEIPTS.md says


@pytest.fixture(params=["memory", "mongo"])
def chain(request: pytest.FixtureRequest) -> Chain:
    return MemoryChain(CLOUD) if request.param == "memory" else fresh(request.getfixturevalue("shared_client"))


def fresh(client: Client) -> MongoChain:
    client.drop_database("emlab")
    chain = MongoChain(client, CLOUD)
    chain.recover()
    return chain


def verdict(chain: Chain) -> object:
    return check(chain.page(0, ALL), head(chain.newest(), CLOUD, KEY, 5.0)).demand()


class TestChain:
    def test_links_follow_each_other_and_come_page_by_page(self, chain: Chain) -> None:
        made = [chain.append("note", {"number": number, "text": "ü"}, 1.5 + number) for number in range(7)]
        assert [link.seq for link in made] == list(range(1, 8))
        assert chain.newest() == made[-1]
        assert chain.page(0, 3) + chain.page(3, 3) + chain.page(6, 3) == made
        assert chain.page(7, 3) == []
        assert verdict(chain)

    def test_a_fresh_one_is_empty_and_whole(self, chain: Chain) -> None:
        assert (chain.newest(), chain.page(0, 10)) == (None, [])
        assert verdict(chain)

    def test_what_is_told_once_is_not_told_again(self, chain: Chain) -> None:
        first = chain.append("a", {"n": 1}, 1.0, once="ask:1")
        chain.append("b", {}, 2.0)
        assert chain.append("a", {"n": 2}, 3.0, once="ask:1") == first
        assert chain.untold([f"ask:{number}" for number in range(2_500)]) == [
            f"ask:{number}" for number in range(2_500) if number != 1
        ]
        assert [link.kind for link in chain.page(0, ALL)] == ["a", "b"]

    def test_threads_that_append_at_once_make_one_chain_without_a_fork(self, chain: Chain) -> None:
        with ThreadPoolExecutor(16) as pool:
            made = list(pool.map(lambda number: chain.append("note", {"number": number}, 1.0), range(120)))
        assert sorted(link.seq for link in made) == list(range(1, 121))
        assert {link.facts["number"] for link in chain.page(0, ALL)} == set(range(120))
        assert verdict(chain)

    def test_threads_that_tell_the_same_tell_it_once(self, chain: Chain) -> None:
        with ThreadPoolExecutor(16) as pool:
            made = set(pool.map(lambda number: chain.append("note", {}, 1.0, once=f"x{number % 3}").seq, range(60)))
        assert made == {1, 2, 3}


def test_two_programs_that_append_at_once_make_one_chain(shared_client: Client) -> None:
    chains = [fresh(shared_client), MongoChain(shared_client, CLOUD)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: chains[number % 2].append("note", {"number": number}, 1.0), range(80)))
    assert len(chains[0].page(0, ALL)) == 80
    assert verdict(chains[0])


@pytest.mark.parametrize(
    "change",
    [{"kind": "other"}, {"facts": {"n": 2}}, {"ts": 9.0}, {"before": "0" * 64}, {"hash": "0" * 64}, {"facts": {}}],
    ids=str,
)
def test_whoever_changes_a_document_is_found_out(shared_client: Client, change: dict[str, object]) -> None:
    chain = fresh(shared_client)
    for number in range(3):
        chain.append("note", {"n": 1}, 1.0 + number)
    shared_client["emlab"]["chain"].update_one({"_id": 2}, {"$set": change})
    assert not check(chain.page(0, ALL), head(chain.newest(), CLOUD, KEY, 5.0))


def test_a_document_that_is_no_link_is_told_from_one(shared_client: Client) -> None:
    chain = fresh(shared_client)
    chain.append("note", {}, 1.0)
    shared_client["emlab"]["chain"].update_one({"_id": 1}, {"$set": {"facts": "none"}})
    with pytest.raises(StoreError, match="no link"):
        chain.newest()


def test_a_link_takes_no_more_room_than_is_said(shared_client: Client) -> None:
    chain = fresh(shared_client)
    facts: dict[str, str | int] = {
        "ask": new_id(), "provider": "p" * 20, "provider_key": "a" * 64, "query": "OriginDestination",
        "purpose": "where people go", "epsilon_micro": 100_000, "ask_digest": "b" * 64, "model": "central",
        "ledger_seq": 10, "policy_version": 3, "stub": "c" * 64,
    }  # fmt: skip
    for number in range(500):
        chain.append("answered", facts, 1.7e9, once=f"ask:{number:032x}")
    stats = shared_client["emlab"].command("collStats", "chain")
    indexes = shared_client["emlab"]["chain"].index_information()
    assert set(indexes) == {"_id_", "once_1"}
    assert stats["avgObjSize"] <= MAX_LINK_BYTES


WRITER = """
import sys
from pathlib import Path
from pymongo import MongoClient
from emlab.chain import MongoChain
from tests.unit.asks import CLOUD
chain = MongoChain(MongoClient(sys.argv[1], serverSelectionTimeoutMS=1000), CLOUD)
for number in range(100_000):
    link = chain.append("note", {"number": number}, 1.0, once=f"n{number}")
    print(link.seq, link.hash, flush=True)
"""


@pytest.fixture
def folder(home: Path, need: Callable[[str], None]) -> Path:
    need("mongod")
    (home / "db").mkdir()
    return home


@pytest.mark.parametrize("victim", ["writer", "mongod"])
def test_what_was_acknowledged_survives_the_death_of_either_program(folder: Path, victim: str) -> None:
    server = Mongod(folder / "db", make_run_dir(folder, new_id()))
    server.start()
    with server.client() as client:
        MongoChain(client, CLOUD).recover()
    said = _written(server, victim)
    server.stop()
    again = Mongod(folder / "db", make_run_dir(folder, new_id()))
    again.start()
    with again.client() as client:
        chain = MongoChain(client, CLOUD)
        chain.recover()
        assert verdict(chain)
        kept = {link.seq: link.hash for link in chain.page(0, ALL)}
        assert all(kept[int(seq)] == hash_ for seq, hash_ in said)
        assert len(kept) - len(said) in (0, 1)  # one may have been written and not said
        chain.append("more", {}, 2.0)
        assert verdict(chain)
    again.stop()


def _written(server: Mongod, victim: str) -> list[list[str]]:
    """What a writer said that it had written, until it or the mongod was killed."""
    command = [sys.executable, "-c", WRITER, server.uri]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as writer:
        assert writer.stdout is not None
        said = [writer.stdout.readline().split() for _ in range(50)]
        os.kill(writer.pid if victim == "writer" else server.pid, signal.SIGKILL)
        said += [line.split() for line in writer.stdout if line.endswith("\n")]
    return said
