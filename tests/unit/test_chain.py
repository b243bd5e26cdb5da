"""The log's links: what a whole one is, and that every change to it is told. And what a logbook writes."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from emlab.chain import MAX_FACT, Head, Link, MemoryChain, check, following, head, root, tells
from emlab.clock import ManualClock
from emlab.errors import NotPermitted
from emlab.key import SigningKey
from emlab.ledger import MemoryLedger, Note
from emlab.logbook import Logbook
from emlab.loss import Loss
from emlab.policy import Policy
from emlab.wire.log import DeleteRequest, LinksRequest
from tests.unit.asks import CLOUD, NOW, World

KEY = SigningKey()
ALL = 10_000  # links in a page
WHOLE, ENDS = "each link is whole, and follows the one before", "it ends where its head says"
SIGNED = "the cloud signed the head"

words = st.text(max_size=30)
facts = st.dictionaries(words, words | st.integers(-(2**53), 2**53), max_size=6)
events = st.lists(st.tuples(words, facts, st.floats(0, 4e9)), max_size=12)


def logged(found: list[tuple[str, dict[str, str | int], float]]) -> list[Link]:
    chain = MemoryChain(CLOUD)
    for kind, told, ts in found:
        chain.append(kind, told, ts)
    return chain.page(0, ALL)


def ended(links: list[Link]) -> Head:
    return head(links[-1] if links else None, CLOUD, KEY, NOW)


def wrong(links: list[Link], told: Head, **known: object) -> set[str]:
    return {one.says for one in check(links, told, **known).checks if not one.holds}  # type: ignore[arg-type]


@given(events)
def test_whatever_is_logged_is_whole_and_survives_its_encoding(
    found: list[tuple[str, dict[str, str | int], float]],
) -> None:
    links = logged(found)
    assert [link.kind for link in links] == [kind for kind, _, _ in found]
    again = msgspec.json.decode(msgspec.json.encode(links), type=list[Link])
    assert check(again, ended(links), public=KEY.public)


@given(events.filter(bool), st.data())
def test_whichever_link_is_changed_dropped_doubled_or_moved_it_is_told(
    found: list[tuple[str, dict[str, str | int], float]], data: st.DataObject
) -> None:
    links = logged(found)
    told = ended(links)
    at = data.draw(st.integers(0, len(links) - 1))
    change = {"seq": links[at].seq + 1, "ts": links[at].ts + 1.0, "kind": f"{links[at].kind}x", "before": "0" * 64}
    change |= {"facts": {**links[at].facts, "more": 1}, "hash": "0" * 64}
    name = data.draw(st.sampled_from(sorted(change)))
    altered = replace(links[at], **{name: change[name]})
    rehashed = replace(altered, hash=altered.digest())
    for one in (altered, rehashed):
        if one != links[at]:  # whose hash alone was changed, is itself again with the right one
            assert wrong([*links[:at], one, *links[at + 1 :]], told)
    assert wrong([*links[:at], *links[at + 1 :]], told)
    assert wrong([*links[: at + 1], *links[at:]], told)
    if len(links) > 1:
        moved = links[:at] + links[at + 1 :]
        moved.insert((at + 1) % len(links), links[at])
        assert wrong(moved, told)


def test_a_log_that_was_cut_and_signed_anew_is_told_by_whoever_remembers_a_head() -> None:
    links = logged([("a", {}, 1.0), ("b", {}, 2.0), ("c", {}, 3.0)])
    remembered = ended(links)
    assert wrong(links[:2], remembered) == {ENDS}
    assert wrong(links[:2], ended(links[:2])) == set()
    assert wrong(links[:2], ended(links[:2]), earlier=[remembered]) == {"it goes on from 1 earlier heads"}


def test_a_log_that_was_rewritten_from_some_link_on_is_told_by_whoever_remembers_a_head() -> None:
    links = logged([("a", {}, 1.0), ("b", {}, 2.0)])
    other = logged([("a", {}, 1.0), ("x", {}, 2.0), ("c", {}, 3.0)])
    assert wrong(other, ended(other)) == set()
    assert wrong(other, ended(other), earlier=[ended(links)]) == {"it goes on from 1 earlier heads"}
    assert wrong(other, ended(other), earlier=[ended(links[:1])]) == set()


def test_of_two_heads_of_one_length_the_log_that_forked_has_lost_one() -> None:
    links = logged([("a", {}, 1.0), ("b", {}, 2.0)])
    other = logged([("a", {}, 1.0), ("x", {}, 2.0)])
    for earlier in ([ended(links), ended(other)], [ended(other), ended(links)]):
        assert wrong(links, ended(links), earlier=earlier) == {"it goes on from 2 earlier heads"}
    assert wrong(links, ended(links), earlier=[ended(links), ended(links)]) == set()


def test_another_cloud_s_log_or_head_is_told() -> None:
    links = logged([("a", {}, 1.0)])
    assert WHOLE in wrong(links, replace(ended(links), cloud="f" * 32))
    assert SIGNED in wrong(links, replace(ended(links), ts=5.0))
    assert SIGNED in wrong(links, head(links[-1], CLOUD, SigningKey(), NOW), public=KEY.public)
    stranger = head(None, "f" * 32, KEY, NOW)
    assert wrong(links, ended(links), earlier=[stranger]) == {"it goes on from 1 earlier heads"}


def test_an_empty_log_has_a_head_too() -> None:
    told = ended([])
    assert (told.seq, told.hash) == (0, root(CLOUD))
    assert check([], told, public=KEY.public)


def test_a_long_text_is_cut_and_a_link_stays_small() -> None:
    link = following(None, CLOUD, "x", {"purpose": "p" * 10_000}, 1.0)
    assert link.facts == {"purpose": "p" * MAX_FACT}


def test_a_link_of_which_is_told_once_is_not_doubled() -> None:
    chain = MemoryChain(CLOUD)
    first = chain.append("a", {}, 1.0, once="a")
    assert chain.append("b", {}, 2.0, once="a") == first
    assert chain.untold(["a", "b"]) == ["b"]
    assert chain.page(0, ALL) == [first]


# -- the logbook -----------------------------------------------------------------------------------------------


class Cloud:
    """A logbook over memory, which can be started anew."""

    def __init__(self) -> None:
        self.chain, self.ledger, self.world = MemoryChain(CLOUD), MemoryLedger(), World()
        self.policy = Policy.open()
        self.deleted: list[tuple[float, float]] = []
        self.book = self.start()

    def start(self) -> Logbook:
        book = Logbook(self.chain, self.ledger, CLOUD, KEY, ManualClock(NOW))
        book.start(self.policy, 1, self.delete)
        return book

    def delete(self, start_ts: float, end_ts: float) -> dict[str, int]:
        self.deleted.append((start_ts, end_ts))
        return {"Stage_timeseries": 2, "Stage_usercache": 1}

    def kinds(self) -> list[str]:
        return [link.kind for link in self.chain.page(0, ALL)]


def test_each_start_and_each_policy_is_told_once() -> None:
    cloud = Cloud()
    cloud.start()
    cloud.policy = replace(Policy.open(total_epsilon=1.0), version=1)
    cloud.start()
    assert cloud.kinds() == ["policy", "started", "started", "policy", "started"]


def test_a_debit_that_a_crash_kept_from_the_log_is_told_at_the_next_start() -> None:
    cloud = Cloud()
    note = Note(provider="planner", query="CountUsers", purpose="test", ts=NOW)
    terms = cloud.policy.terms(cloud.world.provider.public, NOW)
    cloud.ledger.reserve("a" * 32, "d" * 64, Loss(epsilon_micro=5), terms, note)
    cloud.start()
    cloud.start()
    debits = [link for link in cloud.chain.page(0, ALL) if link.kind == "debited"]
    assert [(one.facts["ask"], one.facts["epsilon_micro"], one.facts["answered"]) for one in debits] == [
        ("a" * 32, 5, 0)
    ]


def test_a_refund_that_a_crash_kept_from_the_log_is_told_at_the_next_start() -> None:
    cloud = Cloud()
    note = Note(provider="planner", query="CountUsers", purpose="test", ts=NOW)
    terms = cloud.policy.terms(cloud.world.provider.public, NOW)
    cloud.ledger.reserve("a" * 32, "d" * 64, Loss(epsilon_micro=5), terms, note)
    assert cloud.ledger.refund("a" * 32)
    cloud.start()
    assert cloud.kinds()[2:] == ["debited", "refunded", "started"]


def test_the_same_answer_is_told_once_and_another_one_to_the_same_ask_besides() -> None:
    from emlab import ask as asking

    cloud = Cloud()
    ask = cloud.world.ask()
    first, second = (asking.enclose(ask, [1], CLOUD, KEY, seq=1, version=0, ts=NOW) for _ in range(2))
    for envelope in (first, first, second, second):
        cloud.book.answered(ask, envelope)
    links = [link for link in cloud.chain.page(0, ALL) if link.kind == "answered"]
    assert [link.facts["stub"] for link in links] == [first.stub.digest(), second.stub.digest()]
    assert tells(links, {"x": first.stub.digest()}).holds
    assert not tells(links, {"x": "0" * 64}).holds


def test_a_refusal_is_told_once_for_each_reason_however_often_it_comes() -> None:
    cloud = Cloud()
    ask = cloud.world.ask()
    for why in ("PolicyRefused", "PolicyRefused", "BudgetExhausted"):
        cloud.book.refused(ask, why)
    found = [link.facts["why"] for link in cloud.chain.page(0, ALL) if link.kind == "refused"]
    assert found == ["PolicyRefused", "BudgetExhausted"]


def test_a_refund_is_told_each_time_that_the_ask_was_debited() -> None:
    cloud = Cloud()
    ask = cloud.world.ask()
    note = Note(provider="planner", query="CountUsers", purpose="test", ts=NOW)
    for _ in range(2):
        cloud.ledger.reserve(ask.id, "d" * 64, ask.loss, cloud.policy.terms(ask.provider, NOW), note)
        assert cloud.ledger.refund(ask.id)
        cloud.book.refunded(ask)
        cloud.book.refunded(ask)
    assert cloud.kinds().count("refunded") == 2


def test_a_deletion_that_was_begun_is_ended_at_the_next_start_and_told_once() -> None:
    cloud = Cloud()
    cloud.book.begin_deletion(DeleteRequest(start_ts=1.0, end_ts=2.0))
    cloud.start()
    cloud.start()
    assert cloud.deleted == [(1.0, 2.0)]
    links = [link.facts for link in cloud.chain.page(0, ALL) if link.kind == "deleted"]
    assert links == [{"documents": 3}]


def test_a_page_of_the_log_comes_with_a_signed_head() -> None:
    cloud = Cloud()
    page = cloud.book.page(LinksRequest(after=1, limit=1))
    assert [link.seq for link in page.links] == [2]
    assert check(cloud.chain.page(0, ALL), page.head, public=KEY.public).demand()
    with pytest.raises(NotPermitted, match="ends where"):
        check(page.links[:0], page.head).demand()
