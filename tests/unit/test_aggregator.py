from __future__ import annotations

import json
from collections.abc import Callable

import msgspec
import pytest

from emlab import ask as asking
from emlab.aggregator import NOT_PRIVATE, Aggregator
from emlab.ask import Answer, Ask, Failure, Outcome, Refusal
from emlab.clock import ManualClock
from emlab.errors import ConfigError, NotPermitted, TooFewUsers
from emlab.key import SealingKey, SigningKey
from emlab.query import SumDistance
from tests.unit.asks import NOW, World

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

    def answers(self, ask: Ask, values: list[int]) -> list[Outcome]:
        return [
            Answer(cloud=cloud, envelope=asking.enclose(ask, value, cloud, CLOUDS[cloud], 1))
            for cloud, value in zip(CLOUDS, values, strict=False)
        ]


def test_an_exact_release_is_the_sum_and_says_that_it_is_not_private() -> None:
    setting = Setting(exact=True)
    ask = setting.world.ask(SumDistance(0, 1, 1000))
    release = setting.aggregator.release(ask, setting.answers(ask, [10, 20, 2000]))
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
    release = setting.aggregator.release(ask, outcomes)
    assert (release.asked, release.answered, release.refused, release.failed) == (4, 2, 1, 1)
    assert release.reasons == {"BudgetExhausted": 1, "Unreachable": 1}


def test_asked_twice_the_same_release_is_given_whatever_is_handed_in() -> None:
    setting = Setting()
    ask = setting.world.ask(epsilon_micro=1000)
    answers = setting.answers(ask, [1, 1, 1, 1, 1])
    first = setting.aggregator.release(ask, answers)
    assert setting.aggregator.release(ask, answers[:4]) == first


def test_a_restart_of_the_aggregator_draws_no_fresh_noise() -> None:
    setting = Setting()
    ask = setting.world.ask(epsilon_micro=1000)  # a scale of 1000: two draws agree with probability 0.0005
    answers = setting.answers(ask, [1, 1, 1])
    first = setting.aggregator.release(ask, answers)
    again = Aggregator(setting.key, directory=setting.directory, clock=setting.clock)
    assert again.release(ask, answers) == first


def test_an_aggregator_without_a_lab_releases_nothing() -> None:
    setting = Setting()
    ask = setting.world.ask()
    with pytest.raises(ConfigError, match="no lab"):
        Aggregator(setting.key, clock=setting.clock).release(ask, setting.answers(ask, [1]))


def test_a_group_that_is_too_small_gets_nothing() -> None:
    setting = Setting()
    ask = setting.world.ask(min_users=3)
    with pytest.raises(TooFewUsers, match="2 of 2"):
        setting.aggregator.release(ask, setting.answers(ask, [1, 1]))


def test_an_answer_given_twice_altered_or_of_a_stranger_counts_as_failed() -> None:
    setting = Setting(exact=True)
    ask = setting.world.ask()
    good, other = setting.answers(ask, [1, 1])
    assert isinstance(other, Answer)
    altered = Answer(cloud=other.cloud, envelope=msgspec.structs.replace(other.envelope, signature=bytes(64)))
    stranger = Answer(cloud="e" * 32, envelope=asking.enclose(ask, 1, "e" * 32, SigningKey(), 1))
    release = setting.aggregator.release(ask, [good, good, altered, stranger])
    assert (release.value, release.answered, release.failed) == (1, 1, 3)
    assert release.reasons == {"NotPermitted": 3}


def test_an_ask_for_another_aggregator_or_an_expired_one_is_not_released() -> None:
    setting = Setting()
    with pytest.raises(NotPermitted, match="another aggregator"):
        setting.aggregator.release(World().ask(), [])
    ask = setting.world.ask(lasts_s=5)
    setting.clock.advance(6)
    with pytest.raises(NotPermitted, match="expired"):
        setting.aggregator.release(ask, setting.answers(ask, [1]))


def test_no_field_of_a_release_holds_the_exact_sum() -> None:
    setting = Setting()
    ask = setting.world.ask(SumDistance(0, 1, 10_000_000), epsilon_micro=1_000_000)
    values = [1_234_567, 2_345_678, 3_456_789]
    release = setting.aggregator.release(ask, setting.answers(ask, values))
    # noise of scale 10^7 hits the very sum with probability 5e-8
    assert str(sum(values)) not in json.dumps(msgspec.to_builtins(release)) + str(release) + release._repr_html_()


def test_the_interval_of_a_release_follows_from_its_noise() -> None:
    setting = Setting()
    ask = setting.world.ask(epsilon_micro=1_000_000)
    release = setting.aggregator.release(ask, setting.answers(ask, [1, 0, 1]))
    low, high = release.interval(0.05)
    assert (high - low) / 2 == 3  # P(|X| > 3) = 2 e^-4 / (1 + 1/e) = 0.027, P(|X| > 2) = 0.073
    assert release.value == (low + high) / 2
