"""One contract for ledgers, over memory and a real mongod."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from emlab.ask import new_id
from emlab.errors import BadQuery, BudgetExhausted, NotPermitted, StoreError
from emlab.ledger import Ledger, MemoryLedger, MongoLedger
from emlab.ledger.base import MAX_DENIALS
from emlab.loss import MOST, NOTHING, Left, Spent, Terms
from tests.ledgers import CLIMATE, DIGEST, HOUR, LIMIT, NOON, NOTE, OTHER, debit, fresh, gaussian, pure, spent, terms


@pytest.fixture(params=["memory", "mongo"])
def ledger(request: pytest.FixtureRequest) -> Ledger:
    return MemoryLedger() if request.param == "memory" else fresh(request.getfixturevalue("client"))


class TestLedger:
    def test_a_debit_is_counted_once_however_often_it_is_asked(self, ledger: Ledger) -> None:
        ask = new_id()
        assert [ledger.reserve(ask, DIGEST, pure(300_000), terms(), NOTE) for _ in range(3)] == [None] * 3
        assert (spent(ledger), ledger.balance().seq) == (300_000, 1)

    def test_the_same_ask_gets_the_same_bytes(self, ledger: Ledger) -> None:
        ask = new_id()
        ledger.reserve(ask, DIGEST, pure(1), terms(), NOTE)
        ledger.commit(ask, b"sealed \x00 bytes")
        assert ledger.reserve(ask, DIGEST, pure(1), terms(), NOTE) == b"sealed \x00 bytes"
        assert ledger.balance().seq == 1

    def test_an_id_used_for_another_ask_is_refused(self, ledger: Ledger) -> None:
        ask = new_id()
        ledger.reserve(ask, DIGEST, pure(1), terms(), NOTE)
        with pytest.raises(NotPermitted, match="another ask"):
            ledger.reserve(ask, OTHER, pure(1), terms(), NOTE)
        assert spent(ledger) == 1

    def test_the_last_micro_epsilon_can_be_spent_but_not_one_more(self, ledger: Ledger) -> None:
        ledger.reserve(new_id(), DIGEST, pure(LIMIT - 1), terms(), NOTE)
        refused = new_id()
        with pytest.raises(BudgetExhausted):
            ledger.reserve(refused, DIGEST, pure(2), terms(), NOTE)
        ledger.reserve(new_id(), DIGEST, pure(1), terms(), NOTE)
        assert (spent(ledger), ledger.balance().seq) == (LIMIT, 2)
        assert refused not in {row.id for row in ledger.rows()}

    def test_an_ask_refused_for_its_cost_may_be_put_again_when_the_limit_is_higher(self, ledger: Ledger) -> None:
        ask = new_id()
        with pytest.raises(BudgetExhausted):
            ledger.reserve(ask, DIGEST, pure(LIMIT + 1), terms(), NOTE)
        assert ledger.reserve(ask, DIGEST, pure(LIMIT + 1), terms(2 * LIMIT), NOTE) is None

    def test_the_owner_reads_each_debit(self, ledger: Ledger) -> None:
        first, second = new_id(), new_id()
        ledger.reserve(first, DIGEST, pure(5), terms(), NOTE)
        ledger.commit(first, b"x")
        ledger.reserve(second, OTHER, pure(7), terms(), NOTE)
        rows = {row.id: row for row in ledger.rows()}
        assert (rows[first].loss.epsilon_micro, rows[first].answered, rows[first].provider) == (5, True, "planner")
        assert (rows[second].loss.epsilon_micro, rows[second].answered) == (7, False)

    def test_what_was_spent_before_is_never_less(self, ledger: Ledger) -> None:
        ledger.carry(Spent(micro=900_000), now=NOON)
        ledger.carry(Spent(micro=100), now=NOON)
        with pytest.raises(BudgetExhausted):
            ledger.reserve(new_id(), DIGEST, pure(100_001), terms(), NOTE)
        assert spent(ledger) == 900_000

    def test_a_kept_value_is_found_again(self, ledger: Ledger) -> None:
        assert ledger.kept("key") is None
        ledger.keep("key", b"\x00\x01")
        ledger.keep("key", b"\x02")
        assert ledger.kept("key") == b"\x02"

    def test_asks_at_once_never_exceed_the_limit_together(self, ledger: Ledger) -> None:
        def debit(_: int) -> bool:
            try:
                ledger.reserve(new_id(), DIGEST, pure(100_000), terms(), NOTE)
            except BudgetExhausted:
                return False
            return True

        with ThreadPoolExecutor(16) as pool:
            granted = sum(pool.map(debit, range(60)))
        assert granted == 10
        assert spent(ledger) == LIMIT


class TestQuotas:
    def test_a_provider_spends_its_quota_and_no_more_of_the_budget(self, ledger: Ledger) -> None:
        mine = terms(quota=300_000)
        debit(ledger, 300_000, mine)
        with pytest.raises(BudgetExhausted, match="provider's quota"):
            debit(ledger, 1, mine)
        assert ledger.left(mine) == Left(limit=700_000, quota=0)
        assert ledger.remaining(mine) == 0
        assert ledger.remaining(terms(quota=300_000, provider="")) == 700_000
        debit(ledger, 300_000, terms(quota=300_000, provider=CLIMATE))

    def test_many_quotas_together_never_exceed_the_budget(self, ledger: Ledger) -> None:
        """Which is what is enforced: quotas alone would permit twice the limit here."""
        for number in range(4):
            debit(ledger, 250_000, terms(quota=500_000, provider=f"{number:064x}"))
        with pytest.raises(BudgetExhausted, match="owner's privacy budget"):
            debit(ledger, 1, terms(quota=500_000, provider=CLIMATE))

    def test_a_cost_above_the_quota_is_refused_to_a_provider_that_spent_nothing(self, ledger: Ledger) -> None:
        with pytest.raises(BudgetExhausted):
            debit(ledger, 300_001, terms(quota=300_000))
        with pytest.raises(BudgetExhausted):
            debit(ledger, 1, terms(quota=0))
        assert spent(ledger) == 0

    def test_so_many_providers_are_answered_and_no_more(self, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
        for module in ("budget", "mongo", "memory"):
            monkeypatch.setattr(f"emlab.ledger.{module}.MAX_PROVIDERS", 3)
        for number in range(3):
            debit(ledger, 1, terms(provider=f"{number:064x}"))
        with pytest.raises(BudgetExhausted, match="so many providers"):
            debit(ledger, 1, terms(provider=CLIMATE))
        debit(ledger, 1, terms(provider=f"{0:064x}"))

    @pytest.mark.parametrize("provider", ["", "a" * 63, "A" * 64, "a.b" + "0" * 61, "$" + "0" * 63, "0" * 64 + "\n"])
    def test_what_is_no_key_is_no_name_in_a_document(self, ledger: Ledger, provider: str) -> None:
        with pytest.raises(BadQuery, match="64 hex"):
            debit(ledger, 1, terms(provider=provider))
        assert ledger.balance().seq == 0

    def test_what_is_no_id_is_no_name_in_a_document(self, ledger: Ledger) -> None:
        with pytest.raises(BadQuery, match="32 hex"):
            ledger.reserve("a.b", DIGEST, pure(1), terms(), NOTE)


class TestPeriods:
    def test_budget_and_quota_begin_anew_with_each_period_and_the_sum_does_not(self, ledger: Ledger) -> None:
        def hourly(hour: float) -> Terms:
            return terms(1000, quota=600, renew_s=HOUR, ts=hour * HOUR)

        debit(ledger, 600, hourly(1))
        with pytest.raises(BudgetExhausted):
            debit(ledger, 1, hourly(1.999))
        assert ledger.left(hourly(1.999)) == Left(limit=400, quota=0)
        assert ledger.left(hourly(2)) == Left(limit=1000, quota=600)
        debit(ledger, 600, hourly(2))
        assert spent(ledger) == 1200

    def test_a_clock_that_was_set_back_renews_nothing(self, ledger: Ledger) -> None:
        def hourly(hour: float) -> Terms:
            return terms(1000, renew_s=HOUR, ts=hour * HOUR)

        for hour in (1.0, 2.0):
            debit(ledger, 1000, hourly(hour))
        for hour in (0.0, 1.0, 2.5):
            with pytest.raises(BudgetExhausted):
                debit(ledger, 1, hourly(hour))
            assert ledger.remaining(hourly(hour)) == 0
        debit(ledger, 1000, hourly(3))
        with pytest.raises(BudgetExhausted):
            debit(ledger, 1, hourly(2))

    def test_with_its_clock_set_back_a_ledger_goes_on_in_the_newest_period(self, ledger: Ledger) -> None:
        def hourly(hour: float) -> Terms:
            return terms(1000, renew_s=HOUR, ts=hour * HOUR)

        debit(ledger, 100, hourly(1))
        debit(ledger, 300, hourly(2))
        assert ledger.remaining(hourly(1.5)) == 700
        debit(ledger, 50, hourly(1.5))
        assert ledger.remaining(hourly(2.5)) == 650
        assert ledger.remaining(hourly(3)) == 1000

    def test_another_length_of_periods_counts_what_was_spent_in_the_present_one(self, ledger: Ledger) -> None:
        for hour in range(20, 30):
            debit(ledger, 100, terms(100, renew_s=HOUR, ts=hour * HOUR))
        daily = terms(1000, renew_s=24 * HOUR, ts=29.5 * HOUR)
        assert ledger.remaining(daily) == 1000 - 6 * 100
        debit(ledger, 400, daily)
        with pytest.raises(BudgetExhausted):
            debit(ledger, 1, daily)
        assert ledger.remaining(terms(2000, ts=30 * HOUR)) == 2000 - 1400

    def test_what_was_spent_while_nothing_was_renewed_counts_in_its_period(self, ledger: Ledger) -> None:
        def hourly(hour: float) -> Terms:
            return terms(1000, renew_s=HOUR, ts=hour * HOUR)

        debit(ledger, 100, hourly(1))
        debit(ledger, 800, terms(ts=1.2 * HOUR))
        assert ledger.remaining(hourly(1.5)) == 100
        with pytest.raises(BudgetExhausted):
            debit(ledger, 101, hourly(1.5))

    def test_what_other_clouds_spent_counts_once_in_the_period_in_which_it_came(self, ledger: Ledger) -> None:
        def hourly(hour: float) -> Terms:
            return terms(1000, renew_s=HOUR, ts=hour * HOUR)

        debit(ledger, 100, hourly(1))
        ledger.carry(Spent(micro=700), now=1.5 * HOUR)
        assert ledger.remaining(hourly(1.5)) == 300
        for hour in (1.6, 2.1, 3.1):  # a cloud that starts again
            ledger.carry(Spent(micro=700), now=hour * HOUR)
        assert ledger.remaining(hourly(3.2)) == 1000
        assert spent(ledger) == 700
        assert ledger.remaining(terms(1000, renew_s=24 * HOUR, ts=4 * HOUR)) == 300

    def test_carried_before_the_first_debit_it_counts_in_that_period(self, ledger: Ledger) -> None:
        ledger.carry(Spent(micro=900), now=1.5 * HOUR)
        with pytest.raises(BudgetExhausted):
            debit(ledger, 101, terms(1000, renew_s=HOUR, ts=1.6 * HOUR))
        debit(ledger, 101, terms(1000, renew_s=HOUR, ts=2 * HOUR))

    def test_where_more_is_carried_all_of_it_counts_in_the_period_of_the_last(self, ledger: Ledger) -> None:
        def hourly(hour: float) -> Terms:
            return terms(1000, renew_s=HOUR, ts=hour * HOUR)

        ledger.carry(Spent(micro=300), now=1.5 * HOUR)
        debit(ledger, 100, hourly(2.1))
        assert ledger.remaining(hourly(2.2)) == 900
        ledger.carry(Spent(micro=500), now=2.3 * HOUR)  # 100 more than is known
        assert ledger.remaining(hourly(2.4)) == 1000 - 100 - 400
        with pytest.raises(BudgetExhausted):
            debit(ledger, 501, hourly(2.5))
        assert ledger.remaining(hourly(3.0)) == 1000

    def test_a_refund_counts_only_in_the_period_of_its_debit(self, ledger: Ledger) -> None:
        def hourly(hour: float) -> Terms:
            return terms(1000, quota=1000, renew_s=HOUR, ts=hour * HOUR)

        early, late = new_id(), new_id()
        ledger.reserve(early, DIGEST, pure(900), hourly(1), NOTE)
        ledger.reserve(late, DIGEST, pure(800), hourly(2), NOTE)
        assert ledger.refund(early)
        assert ledger.left(hourly(2)) == Left(limit=200, quota=200)
        assert ledger.refund(late)
        assert ledger.left(hourly(2)) == Left(limit=1000, quota=1000)
        assert spent(ledger) == 0


class TestAccounting:
    def test_both_sums_are_kept_whatever_the_accounting(self, ledger: Ledger) -> None:
        debit(ledger, 500_000)
        ledger.reserve(new_id(), DIGEST, gaussian(7), terms(10**9, accounting="zcdp"), NOTE)
        assert ledger.balance().spent == Spent(micro=500_000, nano=125_000_000 + 7, gaussians=1)
        assert ledger.remaining(terms(10**9, accounting="zcdp")) == 10**9 - 125_000_007

    def test_gaussian_noise_has_no_epsilon(self, ledger: Ledger) -> None:
        with pytest.raises(BudgetExhausted, match="Gaussian noise does not have"):
            ledger.reserve(new_id(), DIGEST, gaussian(1), terms(), NOTE)
        assert ledger.balance().spent == NOTHING

    def test_after_gaussian_noise_no_epsilon_bounds_what_was_lost(self, ledger: Ledger) -> None:
        noisy = new_id()
        ledger.reserve(noisy, DIGEST, gaussian(1), terms(accounting="zcdp"), NOTE)
        with pytest.raises(BudgetExhausted, match="an earlier answer had Gaussian noise"):
            debit(ledger, 1)
        assert ledger.remaining(terms()) == 0
        debit(ledger, 1, terms(accounting="zcdp"))
        assert ledger.refund(noisy)
        debit(ledger, 1)

    def test_sums_larger_than_32_bits_are_kept(self, ledger: Ledger) -> None:
        zcdp = terms(10**16, accounting="zcdp")
        for _ in range(3):
            ledger.reserve(new_id(), DIGEST, gaussian(5 * 10**12), zcdp, NOTE)
        assert ledger.balance().spent.nano == 15 * 10**12

    def test_an_archive_that_says_more_than_anybody_can_spend_closes_the_cloud_and_breaks_nothing(
        self, ledger: Ledger
    ) -> None:
        ledger.carry(Spent(micro=MOST, nano=MOST, gaussians=MOST), now=NOON)
        with pytest.raises(BudgetExhausted):
            debit(ledger, 1)
        zcdp = terms(10**9, accounting="zcdp", renew_s=HOUR, ts=NOON + HOUR)
        debit(ledger, 1_000_000, zcdp)
        assert ledger.balance().spent.nano == MOST // 2 + 500_000_000


class TestRefunds:
    def test_a_debit_without_an_answer_is_refunded_once(self, ledger: Ledger) -> None:
        debit(ledger, 100)
        ask = new_id()
        ledger.reserve(ask, DIGEST, pure(300), terms(quota=400), NOTE)
        assert [ledger.refund(ask) for _ in range(3)] == [True] * 3
        assert (spent(ledger), ledger.balance().seq) == (100, 2)
        assert ledger.left(terms(quota=400)) == Left(limit=LIMIT - 100, quota=300)
        assert {row.id: row.outcome for row in ledger.rows()}[ask] == "refunded"

    def test_an_answered_ask_is_never_refunded(self, ledger: Ledger) -> None:
        ask = debit(ledger, 300)
        assert not ledger.refund(ask)
        assert spent(ledger) == 300
        assert ledger.reserve(ask, DIGEST, pure(300), terms(), NOTE) == b"answer"

    def test_what_was_never_debited_is_not_refunded(self, ledger: Ledger) -> None:
        assert not ledger.refund(new_id())
        assert spent(ledger) == 0

    def test_no_answer_is_kept_without_a_debit(self, ledger: Ledger) -> None:
        ask = new_id()
        with pytest.raises(StoreError, match="no debit"):
            ledger.commit(ask, b"x")
        ledger.reserve(ask, DIGEST, pure(1), terms(), NOTE)
        ledger.refund(ask)
        with pytest.raises(StoreError, match="no debit"):
            ledger.commit(ask, b"x")

    def test_an_answer_is_never_replaced(self, ledger: Ledger) -> None:
        ask = debit(ledger, 1)
        ledger.commit(ask, b"answer")
        with pytest.raises(StoreError):
            ledger.commit(ask, b"another answer")

    def test_a_refunded_ask_may_be_put_again_and_is_debited_again(self, ledger: Ledger) -> None:
        ask = new_id()
        for _ in range(2):
            assert ledger.reserve(ask, DIGEST, pure(600_000), terms(), NOTE) is None
            assert spent(ledger) == 600_000
            assert ledger.refund(ask)
        with pytest.raises(NotPermitted):
            ledger.reserve(ask, OTHER, pure(600_000), terms(), NOTE)
        debit(ledger, 600_000)
        with pytest.raises(BudgetExhausted):
            ledger.reserve(ask, DIGEST, pure(600_000), terms(), NOTE)
        assert {row.id: row.outcome for row in ledger.rows()}[ask] == "refunded"
        assert spent(ledger) == 600_000

    def test_refunds_and_debits_at_once_leave_the_sum_of_what_stands(self, ledger: Ledger) -> None:
        hourly = terms(10**8, quota=10**8, renew_s=HOUR)

        def use(number: int) -> None:
            ask = new_id()
            under = msgspec.structs.replace(hourly, ts=NOON + (number // 40) * HOUR)
            ledger.reserve(ask, DIGEST, pure(1000 + number), under, NOTE)
            if number % 3:
                ledger.commit(ask, b"x")
            else:
                assert ledger.refund(ask)

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(use, range(120)))
        rows = ledger.rows()
        assert len(rows) == 120
        assert sum(row.refunded for row in rows) == 40
        assert spent(ledger) == sum(row.loss.epsilon_micro for row in rows if row.answered)
        last = msgspec.structs.replace(hourly, ts=NOON + 2 * HOUR)
        if isinstance(ledger, MongoLedger):  # the sums that were counted on, and those that are made anew
            counted = ledger._read()
            assert counted.window == ledger._window(counted, last, counted.at(last.ts))
        assert ledger.left(last).limit <= 10**8 - sum(1000 + number for number in range(80, 120) if number % 3)


class TestRefusals:
    def test_the_last_thousand_refusals_are_read_oldest_first(self, ledger: Ledger) -> None:
        for number in range(MAX_DENIALS + 5):
            note = msgspec.structs.replace(NOTE, ts=float(number))
            ledger.refuse(f"{number:032x}", "PolicyRefused", note)
        found = ledger.denials()
        assert [one.ts for one in found] == [float(number) for number in range(5, MAX_DENIALS + 5)]
        assert (found[0].id, found[0].kind, found[0].provider) == (f"{5:032x}", "PolicyRefused", "planner")
