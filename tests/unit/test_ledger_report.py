"""What the owner reads of the ledger, and what a cloud that cannot compute gives back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import msgspec
import pytest

from emlab.clock import ManualClock
from emlab.custodian import Custodian
from emlab.errors import BudgetExhausted, ConfigError, StoreError
from emlab.ledger import Denial, MemoryLedger, Row
from emlab.loss import Loss, Spent
from emlab.policy import Policy
from emlab.queries.count_users import CountUsers
from emlab.store import MemoryStore
from emlab.wire.table import LedgerReport
from tests.unit.asks import CLOUD, NOW, World
from tests.unit.test_wire import provision

WHO = {"provider": "planner", "query": "CountUsers", "purpose": "<b>test</b>"}


def row(number: int, loss: Loss, *, answered: bool = True, refunded: bool = False) -> Row:
    return Row(id=f"{number:032x}", ts=NOW + number, loss=loss, answered=answered, refunded=refunded, **WHO)


REPORT = LedgerReport(
    spent=Spent(micro=500_000, nano=125_000_007, gaussians=1),
    remaining=3 * 10**8,
    accounting="zcdp",
    seq=4,
    rows=[
        row(0, Loss(epsilon_micro=300_000)),
        row(1, Loss(rho_nano=7)),
        row(2, Loss(epsilon_micro=200_000), answered=False),
        row(4, Loss(epsilon_micro=900_000), answered=False, refunded=True),
    ],
    denials=[Denial(id="f" * 32, ts=NOW + 3, kind="BudgetExhausted", **WHO)],
)


class TestReport:
    def test_each_ask_is_a_row_with_its_time_cost_and_outcome(self) -> None:
        frame = REPORT.frame()
        assert frame["outcome"].tolist() == ["answered", "answered", "unanswered", "refused", "refunded"]
        assert frame["kind"].tolist() == ["", "", "", "BudgetExhausted", ""]
        assert frame["epsilon"].fillna(-1).tolist() == [0.3, -1, 0.2, 0.0, 0.0]
        assert frame["rho"].tolist() == pytest.approx([0.045, 7e-9, 0.02, 0.0, 0.0])
        assert frame["time"].is_monotonic_increasing
        assert frame["time"].iloc[0].timestamp() == NOW
        assert str(frame["time"].dt.tz) == "UTC"

    def test_without_asks_it_has_the_same_columns(self) -> None:
        empty = msgspec.structs.replace(REPORT, rows=[], denials=[])
        assert list(empty.frame().columns) == list(REPORT.frame().columns)
        assert empty.frame().dtypes.astype(str).to_dict() == REPORT.frame().dtypes.astype(str).to_dict()
        assert "0 debits" in empty._repr_html_()

    def test_a_row_of_an_archive_may_have_no_time_that_there_is(self) -> None:
        strange = msgspec.structs.replace(REPORT.rows[0], ts=1e300)
        assert msgspec.structs.replace(REPORT, rows=[strange]).frame()["time"].isna().sum() == 1

    def test_a_notebook_shows_sums_and_the_last_rows_and_runs_nothing_in_them(self) -> None:
        html = REPORT._repr_html_()
        assert "no epsilon (Gaussian noise), rho 0.125" in html
        assert "remaining: rho 0.3" in html
        assert "BudgetExhausted" in html
        assert "<b>test" not in html
        pure = msgspec.structs.replace(REPORT, spent=Spent(micro=500_000), accounting="pure", remaining=2_500_000)
        assert "spent: epsilon 0.5" in pure._repr_html_()
        assert "remaining: epsilon 2.5" in pure._repr_html_()

    def test_it_survives_the_wire(self) -> None:
        assert msgspec.json.decode(msgspec.json.encode(REPORT), type=LedgerReport) == REPORT

    def test_what_remains_of_rho_is_not_said_in_epsilon(self) -> None:
        with pytest.raises(ConfigError, match="zcdp"):
            _ = REPORT.remaining_micro


def custodian(world: World, *, store: MemoryStore | None = None, policy: Policy | None = None) -> Custodian:
    given = provision(world)
    given = given if policy is None else msgspec.structs.replace(given, policy=policy)
    return Custodian(given, store or MemoryStore(uuid.UUID(CLOUD)), MemoryLedger(), clock=ManualClock(NOW))


class BrokenStore(MemoryStore):
    """Which cannot be read until it is mended."""

    broken = True

    def exists(self, key: str, *, start_ts: float, end_ts: float, region: Mapping[str, object] | None) -> bool:
        """See Store."""
        if self.broken:
            raise StoreError("the disk is broken")
        return super().exists(key, start_ts=start_ts, end_ts=end_ts, region=region)


class TestRefunds:
    def test_a_cloud_that_cannot_read_its_data_gives_the_debit_back(self) -> None:
        world = World()
        cloud = custodian(world, store=BrokenStore(uuid.UUID(CLOUD)))
        with pytest.raises(StoreError, match="disk"):
            cloud.ask(world.request(world.ask(epsilon_micro=400_000)))
        report = cloud.ledger()
        assert (report.spent, report.seq, report.remaining) == (Spent(), 1, 1_000_000)
        assert [one.outcome for one in report.rows] == ["refunded"]

    def test_the_same_ask_is_answered_once_the_cloud_can(self) -> None:
        world = World()
        store = BrokenStore(uuid.UUID(CLOUD))
        cloud = custodian(world, store=store)
        request = world.request(world.ask(epsilon_micro=400_000))
        with pytest.raises(StoreError):
            cloud.ask(request)
        store.broken = False
        assert cloud.ask(request) == cloud.ask(request)
        assert cloud.ledger().spent_micro == 400_000

    def test_what_a_query_stumbled_over_is_paid_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Whether it stumbles could depend on the data, and would be told for nothing."""

        def stumble(self: CountUsers, data: object) -> list[int]:
            raise ZeroDivisionError

        monkeypatch.setattr(CountUsers, "contribution", stumble)
        world = World()
        cloud = custodian(world)
        cloud.ask(world.request(world.ask(epsilon_micro=400_000)))
        report = cloud.ledger()
        assert (report.spent_micro, [one.outcome for one in report.rows]) == (400_000, ["answered"])

    def test_refusals_are_in_the_report(self) -> None:
        world = World()
        cloud = custodian(world)
        with pytest.raises(BudgetExhausted):
            cloud.ask(world.request(world.ask(epsilon_micro=1_000_001)))
        (denial,) = cloud.ledger().denials
        assert (denial.kind, denial.provider, denial.ts) == ("BudgetExhausted", "planner", NOW)


class TestStarts:
    def test_what_earlier_clouds_spent_counts_in_the_period_of_the_first_start_alone(self) -> None:
        world, ledger, clock = World(), MemoryLedger(), ManualClock(NOW)
        policy = msgspec.structs.replace(Policy.open(total_epsilon=1.0), renew_s=3600.0)
        given = msgspec.structs.replace(provision(world), spent=Spent(micro=800_000), policy=policy)
        for hours, remaining in ((0, 200_000), (0, 200_000), (1, 1_000_000), (1, 1_000_000)):
            clock.advance(hours * 3600.0)
            report = Custodian(given, MemoryStore(uuid.UUID(CLOUD)), ledger, clock=clock).ledger()
            assert (report.remaining, report.spent_micro) == (remaining, 800_000)

    def test_another_accounting_keeps_both_sums(self) -> None:
        world = World()
        pure = Policy.open(total_epsilon=3.0)
        cloud = custodian(world, policy=pure)
        cloud.ask(world.request(world.ask(epsilon_micro=100_000)))
        cloud.set_policy(msgspec.structs.replace(pure, accounting="zcdp", delta=1e-6))
        cloud.ask(world.request(world.ask(rho_nano=1_000_000)))
        assert cloud.ledger().spent == Spent(micro=100_000, nano=6_000_000, gaussians=1)
        cloud.set_policy(pure)
        with pytest.raises(BudgetExhausted, match="Gaussian"):
            cloud.ask(world.request(world.ask(epsilon_micro=1)))
        assert cloud.ledger().remaining == 0
