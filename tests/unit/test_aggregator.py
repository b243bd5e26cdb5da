from __future__ import annotations

import hashlib
import json
import math
import struct
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from emlab import ask as asking
from emlab.aggregate import LOCAL, Release
from emlab.aggregator import NOT_PRIVATE, Aggregator
from emlab.ask import Answer, Ask, Envelope, Failure, Outcome, Refusal
from emlab.clock import ManualClock
from emlab.errors import BadQuery, ConfigError, NotPermitted, TooFewUsers, Unreachable
from emlab.key import SealingKey, SigningKey, seal
from emlab.queries.sum_distance import SumDistance
from emlab.queries.trip_histogram import TripHistogram
from emlab.query import Query, cells
from tests.unit.asks import NOW, World

replace = msgspec.structs.replace
CLOUDS = {f"{number:032x}": SigningKey() for number in range(5)}
ROSTER = {cloud: key.public for cloud, key in CLOUDS.items()}


class Directory:
    """The lab's clouds, and what was released: what outlives an aggregator's process."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def public_keys(self, provider: str) -> dict[str, str]:
        return ROSTER

    def once(self, name: str, make: Callable[[], bytes]) -> bytes:
        if name not in self.kept:
            self.kept[name] = make()
        return self.kept[name]


class Setting:
    def __init__(self, *, exact: bool = False) -> None:
        self.key = SealingKey()
        self.world = World(aggregator=self.key)
        self.clock = ManualClock(NOW)
        self.directory = Directory()
        self.aggregator = Aggregator(self.key, exact=exact, directory=self.directory, clock=self.clock)

    def release(self, ask: Ask, outcomes: Sequence[Outcome]) -> Release:
        return self.aggregator.release(ask, outcomes, signature=asking.sign(ask, self.world.provider))

    def answers(self, ask: Ask, values: list[int]) -> list[Outcome]:
        return [
            Answer(cloud=cloud, envelope=asking.enclose(ask, [value], cloud, CLOUDS[cloud], seq=1, version=0, ts=1.7e9))
            for cloud, value in zip(CLOUDS, values, strict=False)
        ]


def test_an_exact_release_is_the_sum_and_says_that_it_is_not_private() -> None:
    setting = Setting(exact=True)
    ask = setting.world.ask(SumDistance(0, 1, 1000))
    release = setting.release(ask, setting.answers(ask, [10, 20, 2000]))
    assert (release.value, release.trust, release.interval(0.05)) == (1030, NOT_PRIVATE, (1030, 1030))


def test_a_release_counts_answers_refusals_and_failures_and_why() -> None:
    setting = Setting()
    ask = setting.world.ask()
    _, _, c, d, _ = CLOUDS
    outcomes: list[Outcome] = [
        *setting.answers(ask, [1, 1]),
        Refusal(cloud=c, kind="BudgetExhausted"),
        Failure(cloud=d, kind="Unreachable"),
    ]
    release = setting.release(ask, outcomes)
    assert (release.asked, release.answered, release.refused, release.failed) == (4, 2, 1, 1)
    assert release.reasons == {"BudgetExhausted": 1, "Unreachable": 1}


def test_asked_twice_the_same_release_is_given_whatever_is_handed_in() -> None:
    setting = Setting()
    ask = setting.world.ask(epsilon_micro=1000)
    answers = setting.answers(ask, [1, 1, 1, 1, 1])
    first = setting.release(ask, answers)
    assert setting.release(ask, answers[:4]) == first


def test_a_restart_of_the_aggregator_draws_no_fresh_noise() -> None:
    setting = Setting()
    ask = setting.world.ask(epsilon_micro=1000)  # a scale of 1000: two draws agree with probability 0.0005
    answers = setting.answers(ask, [1, 1, 1])
    first = setting.release(ask, answers)
    again = Aggregator(setting.key, directory=setting.directory, clock=setting.clock)
    assert again.release(ask, answers, signature=asking.sign(ask, setting.world.provider)) == first


def test_an_aggregator_without_a_lab_releases_nothing() -> None:
    setting = Setting()
    ask = setting.world.ask()
    with pytest.raises(ConfigError, match="no lab"):
        Aggregator(setting.key, clock=setting.clock).release(ask, setting.answers(ask, [1]), signature=b"")


def test_a_group_that_is_too_small_gets_nothing() -> None:
    setting = Setting()
    ask = setting.world.ask(min_users=3)
    with pytest.raises(TooFewUsers, match="2 of 2"):
        setting.release(ask, setting.answers(ask, [1, 1]))


def sealed(ask: Ask, clear: bytes, cloud: str) -> Answer:
    """What a program that is no custodian of ours could send under the cloud's own key."""
    key = CLOUDS[cloud]
    stub = asking.enclose(ask, [0], cloud, key, seq=1, version=0, ts=NOW).stub
    packed = seal(ask.aggregator, clear, f"emlab/sealed\0{cloud}\0{stub.ask_digest}".encode())
    stub = replace(stub, sealed_digest=hashlib.sha256(packed).hexdigest())
    mark, countermark = (one.sign(stub.signed()) for one in (key, key.derive(f"alias/{cloud}")))
    return Answer(
        cloud=cloud, envelope=Envelope(stub=stub, sealed=packed, signature=mark, countersignature=countermark)
    )


def test_who_refused_is_told_once_for_each_cloud_and_never_of_one_that_answered() -> None:
    setting = Setting(exact=True)
    ask = setting.world.ask()
    answers = setting.answers(ask, [1, 1])
    liar = [Refusal(cloud=answer.cloud, kind="PolicyRefused") for answer in answers]
    lie = Refusal(cloud="e" * 32, kind="PolicyRefused")
    more: list[Outcome] = [Failure(cloud="e" * 32, kind="Unreachable"), lie, lie]
    release = setting.release(ask, [*liar, *answers, *more])
    assert (release.asked, release.answered, release.refused, release.failed) == (3, 2, 0, 1)
    assert release.receipt is not None
    assert release.receipt.verify(release)


@pytest.mark.parametrize(
    "outcome",
    [
        Refusal(cloud="e" * 32, kind="x" * 65),
        Failure(cloud="e" * 32, kind="<b>"),
        Failure(cloud="e" * 32, kind=""),
        Refusal(cloud="elsewhere", kind="PolicyRefused"),
    ],
)
def test_an_outcome_that_could_stand_in_no_receipt_is_refused_and_the_ask_goes_on(outcome: Outcome) -> None:
    setting = Setting(exact=True)
    ask = setting.world.ask()
    answers = setting.answers(ask, [1, 1])
    with pytest.raises(BadQuery, match="an outcome"):
        setting.release(ask, [*answers, outcome])
    assert setting.release(ask, answers).value == 2


def test_what_is_exact_says_so_in_its_table_its_verdict_and_its_aggregator() -> None:
    setting = Setting(exact=True)
    ask = setting.world.ask()
    release = setting.release(ask, setting.answers(ask, [1, 1]))
    assert release.frame()["trust"].str.contains("NOT PRIVATE").all()
    assert release.receipt is not None
    assert "NOT PRIVATE" in str(release.receipt.verify(release))
    assert "NOT PRIVATE" in repr(Aggregator(exact=True))
    assert "NOT PRIVATE" not in repr(Aggregator())


def test_an_answer_given_twice_altered_or_of_a_stranger_counts_as_failed_by_name() -> None:
    setting = Setting(exact=True)
    ask = setting.world.ask()
    good, other = setting.answers(ask, [1, 1])
    assert isinstance(other, Answer)
    altered = Answer(cloud=other.cloud, envelope=replace(other.envelope, signature=bytes(64)))
    outside = asking.enclose(ask, [1], "e" * 32, SigningKey(), seq=1, version=0, ts=NOW)
    release = setting.release(ask, [good, good, altered, Answer(cloud="e" * 32, envelope=outside)])
    assert (release.value, release.answered, release.failed) == (1, 1, 3)
    assert release.reasons == {"AnsweredTwice": 1, "BadReply": 1, "UnknownCloud": 1}


@pytest.mark.parametrize(
    "clear",
    [
        struct.pack(">q", 2),  # one user counts as 0 or 1
        struct.pack(">q", -1),
        struct.pack(">q", 2**63 - 1),
        struct.pack(">qq", 1, 1),
        struct.pack(">d", 1.0),
        b"",
        b"one user",
        b"1",
    ],
)
def test_an_answer_outside_the_clamp_or_of_another_type_is_not_counted(clear: bytes) -> None:
    setting = Setting(exact=True)
    ask = setting.world.ask()
    honest, cloud = setting.answers(ask, [1])[0], list(CLOUDS)[1]
    release = setting.release(ask, [honest, sealed(ask, clear, cloud)])
    assert (release.value, release.answered, release.reasons) == (1, 1, {"BadReply": 1})


def test_the_answer_to_another_ask_is_not_counted() -> None:
    setting = Setting(exact=True)
    ask, other = setting.world.ask(), setting.world.ask()
    mine, theirs = setting.answers(ask, [1])[0], setting.answers(other, [0, 1])[1]
    release = setting.release(ask, [mine, theirs])
    assert (release.value, release.answered, release.reasons) == (1, 1, {"BadReply": 1})


def test_only_the_provider_that_the_ask_names_gets_a_release() -> None:
    setting = Setting()
    ask = setting.world.ask()
    answers = setting.answers(ask, [1, 1])
    forged = asking.sign(ask, SigningKey())
    for signature in (b"", forged, asking.sign(setting.world.ask(), setting.world.provider)):
        with pytest.raises(NotPermitted, match="signature of the ask"):
            setting.aggregator.release(ask, answers, signature=signature)
    assert setting.directory.kept == {}


def test_an_ask_that_no_cloud_would_answer_is_not_released() -> None:
    setting = Setting()
    ask = setting.world.ask(epsilon_micro=10**9)
    with pytest.raises(BadQuery, match="up to 100"):
        setting.release(ask, setting.answers(ask, [1]))


def test_a_provider_that_says_less_of_a_group_or_denies_a_release_gets_no_fresh_noise() -> None:
    setting = Setting()
    ask = setting.world.ask(min_users=5, epsilon_micro=1000)
    answers = setting.answers(ask, [1, 1, 1, 1, 1])
    with pytest.raises(TooFewUsers):
        setting.release(ask, answers[:4])
    smaller = replace(ask, min_users=1)  # the same id; no cloud has answered this
    with pytest.raises(TooFewUsers, match="0 of 5"):
        setting.release(smaller, answers)
    first = setting.release(ask, answers)
    assert [setting.release(ask, answers[:n]) for n in (5, 4, 0)] == [first] * 3


def test_asked_by_many_at_once_one_release_is_made() -> None:
    setting = Setting()
    ask = setting.world.ask(epsilon_micro=1000)
    answers, ready = setting.answers(ask, [1, 1, 1]), threading.Barrier(8)

    def release(_: int) -> Release:
        ready.wait(10)
        return setting.release(ask, answers)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(release, range(8)))
    assert found == [found[0]] * 8


def test_without_the_directory_nothing_is_released_and_the_ask_can_be_brought_again() -> None:
    class Away(Directory):
        def public_keys(self, provider: str) -> dict[str, str]:
            raise Unreachable("no answer")

    setting = Setting()
    ask = setting.world.ask()
    answers = setting.answers(ask, [1, 1])
    setting.aggregator.directory = away = Away()
    with pytest.raises(Unreachable):
        setting.release(ask, answers)
    assert away.kept == {}
    setting.aggregator.directory = setting.directory
    assert setting.release(ask, answers).answered == 2


def test_a_release_of_the_local_model_adds_no_noise_of_the_aggregator_and_trusts_nobody() -> None:
    setting = Setting()
    ask = setting.world.ask(model="local", epsilon_micro=1000)  # a scale of 1000: noise is 0 with probability 0.0005
    release = setting.release(ask, setting.answers(ask, [-700, 1300, 5]))
    assert (release.value, release.trust) == (605, LOCAL)


def test_an_ask_for_another_aggregator_or_an_expired_one_is_not_released() -> None:
    setting = Setting()
    with pytest.raises(NotPermitted, match="another aggregator"):
        setting.release(World().ask(), [])
    ask = setting.world.ask(lasts_s=5)
    setting.clock.advance(6)
    with pytest.raises(NotPermitted, match="expired"):
        setting.release(ask, setting.answers(ask, [1]))


def test_no_field_of_a_release_holds_the_exact_sum() -> None:
    setting = Setting()
    ask = setting.world.ask(SumDistance(0, 1, 10_000_000), epsilon_micro=1_000_000)
    values = [1_234_567, 2_345_678, 3_456_789]
    release = setting.release(ask, setting.answers(ask, values))
    # noise of scale 10^7 hits the very sum with probability 5e-8
    assert str(sum(values)) not in json.dumps(msgspec.to_builtins(release)) + str(release) + release._repr_html_()


def test_the_interval_of_a_release_follows_from_its_noise() -> None:
    setting = Setting()
    ask = setting.world.ask(epsilon_micro=1_000_000)
    release = setting.release(ask, setting.answers(ask, [1, 0, 1]))
    low, high = release.interval(0.05)
    assert (high - low) / 2 == 3  # P(|X| > 3) = 2 e^-4 / (1 + 1/e) = 0.027, P(|X| > 2) = 0.073
    assert release.value == (low + high) / 2


@pytest.mark.parametrize("alpha", [-0.05, 0.0, 1e-13, 1.0, 2.0, math.nan])
@pytest.mark.parametrize("query", [SumDistance(0.0, 2e9, 50_000), TripHistogram("hour", 0.0, 2e9, 10)])
def test_no_interval_is_given_for_a_risk_that_cannot_be_promised(query: Query, alpha: float) -> None:
    setting = Setting()
    ask = setting.world.ask(query)
    answer = asking.enclose(ask, [0] * cells(query), *next(iter(CLOUDS.items())), seq=1, version=0, ts=1.7e9)
    release = setting.release(ask, [Answer(cloud=next(iter(CLOUDS)), envelope=answer)])
    with pytest.raises(BadQuery, match="alpha"):
        release.estimates(alpha)
