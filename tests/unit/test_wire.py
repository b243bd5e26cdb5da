from __future__ import annotations

import itertools
import json
import queue
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from emlab import errors
from emlab.ask import AskRequest, Envelope, disclose
from emlab.clock import ManualClock, wait_until
from emlab.custodian import Custodian
from emlab.errors import BadEntry, BadReply, EmlabError, InUse, NotPermitted
from emlab.intake.report import IntakeReport
from emlab.key import new_token, token_hash
from emlab.ledger import MemoryLedger
from emlab.policy import Policy
from emlab.provision import OwnerToken, Provision
from emlab.queries.count_users import CountUsers
from emlab.queries.sum_distance import SumDistance
from emlab.query import Region
from emlab.store import MemoryStore
from emlab.wire import openapi, problem
from emlab.wire.client import CloudClient
from emlab.wire.emission import EMISSION_ROUTES
from emlab.wire.serve import Server, custodian_server
from emlab.wire.table import ROUTES, FindRequest, Found, Health, LedgerReport, RunPipeline, StoreRequest
from emlab.wire.transport import MemoryTransport
from tests.unit.asks import ALIAS, CLOUD, NOW, World

OWNER = new_token("owner")


def classes(root: type[EmlabError]) -> set[type[EmlabError]]:
    return {root, *(one for child in root.__subclasses__() for one in classes(child))}


@pytest.mark.parametrize("kind", sorted(classes(EmlabError) - {EmlabError}, key=str))
def test_every_error_comes_out_of_the_wire_as_it_went_in(kind: type[EmlabError]) -> None:
    error = BadEntry("wrong", 17) if kind is BadEntry else kind("wrong")
    status, body = problem.encode(error)
    back = problem.decode(status, body)
    assert (type(back), str(back), status) == (kind, "wrong", kind.status)
    assert getattr(back, "position", None) == getattr(error, "position", None)


def test_the_tree_in_the_docstring_names_every_error() -> None:
    assert errors.__doc__ is not None
    for kind in classes(EmlabError):
        assert kind.__name__ in errors.__doc__


@pytest.mark.parametrize("body", [b"", b"<html>", b'{"kind":"NoSuchError","status":500,"detail":""}'])
def test_a_reply_that_is_no_problem_document_is_a_bad_reply(body: bytes) -> None:
    assert isinstance(problem.decode(502, body), BadReply)


def test_the_custodian_has_a_method_for_each_route() -> None:
    assert all(callable(getattr(Custodian, route.name)) for route in ROUTES)


def test_the_openapi_document_describes_each_route_and_resolves_each_reference() -> None:
    document = json.loads(msgspec.json.encode(openapi.document()))
    described = {(m.upper(), path) for path, methods in document["paths"].items() for m in methods}
    assert described == {(route.method, route.path) for route in (*ROUTES, *EMISSION_ROUTES)}
    text = json.dumps(document)
    for name in {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}:
        assert name in document["components"]["schemas"]


def provision(world: World) -> Provision:
    return Provision(
        lab="lab-1",
        cloud=CLOUD,
        generation=1,
        owner_tokens=[OwnerToken(token_hash(OWNER))],
        controller=world.controller.public,
        policy=Policy.open(total_epsilon=1.0),
        marker="0" * 64,
    )


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def server(world: World) -> Server:
    store = MemoryStore(uuid.UUID(CLOUD))
    return custodian_server(Custodian(provision(world), store, MemoryLedger(), clock=ManualClock(NOW)))


@pytest.fixture
def client(server: Server) -> CloudClient:
    return CloudClient(MemoryTransport(server))


OWNERS = [route for route in ROUTES if route.who == "owner"]


def test_an_owner_s_token_that_has_expired_stays_so_when_the_clock_is_set_back(world: World) -> None:
    clock, brief = ManualClock(NOW), new_token("owner")
    tokens = [OwnerToken(token_hash(OWNER)), OwnerToken(token_hash(brief), NOW + 10.0)]
    given = msgspec.structs.replace(provision(world), owner_tokens=tokens)
    custodian = Custodian(given, MemoryStore(uuid.UUID(CLOUD)), MemoryLedger(), clock=clock)
    custodian.authorize_owner(brief)
    clock.advance(11.0)
    for now in (clock.now(), NOW):
        clock._now = now
        custodian.authorize_owner(OWNER)
        with pytest.raises(NotPermitted, match="expired"):
            custodian.authorize_owner(brief)


@pytest.mark.parametrize("route", OWNERS, ids=lambda route: route.name)
@pytest.mark.parametrize(
    "token", ["", "emo_wrong", new_token("owner"), new_token("provider")], ids=["none", "wrong", "another", "provider"]
)
def test_an_owner_s_route_opens_to_the_owner_s_token_only(server: Server, route: object, token: str) -> None:
    status, body = server.handle(route.method, route.path, {"authorization": f"Bearer {token}"}, b"{}")  # type: ignore[attr-defined]
    assert status == 403
    assert isinstance(problem.decode(status, body), NotPermitted)


def test_an_owner_cannot_ask(server: Server, world: World) -> None:
    body = msgspec.json.encode(world.request(world.ask()))
    status, reply = server.handle("POST", "/ask", {"authorization": f"Bearer {OWNER}"}, body)
    assert (status, problem.decode(status, reply).kind) == (403, "NotPermitted")


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nothing", 404), ("DELETE", "/health", 405), ("GET", "/../health", 404), ("GET", "/openapi.json", 200)],
)
def test_unknown_routes_and_methods_have_their_status(server: Server, method: str, path: str, status: int) -> None:
    assert server.handle(method, path, {}, b"")[0] == status


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"entries":7}', b'{"entries":[],"what":1}', b"\xff\xfe"])
def test_a_malformed_request_is_refused_with_400(server: Server, body: bytes) -> None:
    status, reply = server.handle("POST", "/entries/store", {"authorization": f"Bearer {OWNER}"}, body)
    assert status == 400
    assert isinstance(problem.decode(status, reply), BadEntry)


def test_a_failure_inside_tells_neither_the_wire_nor_the_log_what_was_in_the_data(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Custodian) -> Health:
        raise RuntimeError("latitude 37.8715 of ann")

    monkeypatch.setattr(Custodian, "health", broken)
    status, body = server.handle("GET", "/health", {}, b"")
    assert status == 500
    assert b"37.8715" not in body
    assert "37.8715" not in caplog.text
    assert "RuntimeError" in caplog.text


def test_the_same_ask_is_debited_once_and_answered_with_the_same_bytes(client: CloudClient, world: World) -> None:
    request = world.request(world.ask(epsilon_micro=400_000))
    first = client.call("ask", Envelope, request)
    assert client.call("ask", Envelope, request) == first
    assert client.call("ledger", LedgerReport, token=OWNER).spent_micro == 400_000


def test_an_ask_beyond_the_budget_or_under_a_used_id_spends_nothing(client: CloudClient, world: World) -> None:
    ask = world.ask(epsilon_micro=900_000)
    client.call("ask", Envelope, world.request(ask))
    with pytest.raises(errors.BudgetExhausted):
        client.call("ask", Envelope, world.request(world.ask(epsilon_micro=100_001)))
    with pytest.raises(NotPermitted, match="another ask"):
        client.call("ask", Envelope, world.request(world.ask(epsilon_micro=1, ask_id=ask.id)))
    assert client.call("ledger", LedgerReport, token=OWNER).spent_micro == 900_000


def test_an_expired_ask_or_one_for_another_cloud_spends_nothing(client: CloudClient, world: World) -> None:
    for request in (
        world.request(world.ask(), lasts_s=-1),
        world.request(world.ask(), cloud="f" * 32),
        world.request(world.ask(lasts_s=-1)),
    ):
        with pytest.raises(NotPermitted):
            client.call("ask", Envelope, request)
    assert client.call("health", Health).ledger_seq == 0


def test_the_owner_s_policy_replaces_the_provisioned_one(client: CloudClient, world: World) -> None:
    client.call("set_policy", Policy, Policy.research(), token=OWNER)
    assert client.call("policy", Policy, token=OWNER) == msgspec.structs.replace(Policy.research(), version=1)
    with pytest.raises(errors.PolicyRefused):
        client.call("ask", Envelope, world.request(world.ask()))


def test_a_region_that_the_database_refuses_spends_nothing(client: CloudClient, world: World) -> None:
    bow_tie = Region(((((0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),),))
    with pytest.raises(errors.BadQuery):
        client.call("ask", Envelope, world.request(world.ask(CountUsers(bow_tie, 0, 1))))
    assert client.call("ledger", LedgerReport, token=OWNER).spent_micro == 0


@pytest.mark.parametrize("points", [0, 1, 500])
def test_an_answer_takes_its_query_s_slot_however_much_data_there_is(world: World, points: int) -> None:
    clock = ManualClock(NOW)

    class Slow(MemoryStore):
        """Each point costs a millisecond."""

        def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterator[tuple[float, float, float]]:
            for n in range(points):
                clock.advance(0.001)
                yield float(n), 0.01 * n, 0.0

    custodian = Custodian(provision(world), Slow(uuid.UUID(CLOUD)), MemoryLedger(), clock=clock)
    query = SumDistance(0.0, 1.0, 10_000_000)
    before = clock.monotonic()
    envelope = custodian.ask(world.request(world.ask(query)))
    assert clock.monotonic() - before == pytest.approx(query.slot_s)
    assert envelope.stub.ledger_seq == 1


def test_a_cloud_with_too_much_data_for_the_slot_answers_nothing_but_answers_in_time(world: World) -> None:
    clock = ManualClock(NOW)

    class Endless(MemoryStore):
        def track(self, key: str, *, start_ts: float, end_ts: float) -> Iterator[tuple[float, float, float]]:
            for n in itertools.count():
                clock.advance(0.01)
                yield float(n), 0.001 * n, 0.0

    custodian = Custodian(provision(world), Endless(uuid.UUID(CLOUD)), MemoryLedger(), clock=clock)
    ask = world.ask(SumDistance(0.0, 1.0, 10_000_000))
    before = clock.monotonic()
    envelope = custodian.ask(world.request(ask))
    assert clock.monotonic() - before == pytest.approx(ask.query.slot_s)
    assert disclose(envelope, ask, world.aggregator, ALIAS, custodian.health().public) == (0,)


def test_an_aggregator_s_key_that_nothing_can_be_sealed_to_spends_nothing(client: CloudClient, world: World) -> None:
    ask = msgspec.structs.replace(world.ask(), aggregator="00" * 32)
    with pytest.raises(NotPermitted, match="aggregator"):
        client.call("ask", Envelope, world.request(ask))
    assert client.call("ledger", LedgerReport, token=OWNER).spent_micro == 0


@pytest.mark.parametrize("error", [None, errors.StoreError("the job died")])
def test_one_run_of_the_pipeline_waits_for_another_and_no_more_do(world: World, error: EmlabError | None) -> None:
    began: queue.Queue[None] = queue.Queue()
    until = threading.Event()

    def digest(_: RunPipeline) -> IntakeReport:
        began.put(None)
        assert until.wait(30)
        if error is not None:
            raise error
        return IntakeReport()

    custodian = Custodian(provision(world), MemoryStore(uuid.UUID(CLOUD)), MemoryLedger(), digest=digest)
    client = CloudClient(MemoryTransport(custodian_server(custodian)))

    def run() -> object:
        try:
            return client.call("run_pipeline", IntakeReport, RunPipeline(), token=OWNER)
        except EmlabError as exc:
            return exc

    with ThreadPoolExecutor(20) as pool:
        first = pool.submit(run)
        began.get(timeout=30)
        rest = [pool.submit(run) for _ in range(19)]
        assert wait_until(lambda: sum(one.done() for one in rest) == 18, 30)
        assert not first.done()
        assert client.call("counts", dict[str, int], token=OWNER) == {}
        until.set()
    refused = [one.result() for one in rest if isinstance(one.result(), InUse)]
    assert len(refused) == 18
    assert {str(one) for one in refused} == {
        "a run of the pipeline waits already, which will see all that is stored by now"
    }
    assert began.qsize() == 1  # the one that waited
    assert isinstance(first.result(), IntakeReport if error is None else errors.StoreError)
    assert type(run()) is type(first.result())


def test_find_says_when_there_is_more(client: CloudClient) -> None:
    entries = [msgspec.Raw(msgspec.json.encode(_point(float(n)))) for n in range(5)]
    client.call(
        "store",
        dict[str, object],
        StoreRequest(entries=entries),
        token=OWNER,
    )
    found = client.call("find", Found, FindRequest(key="background/location", limit=3), token=OWNER)
    assert (len(found.entries), found.more) == (3, True)


def _point(ts: float) -> dict[str, object]:
    return {
        "metadata": {
            "key": "background/location",
            "platform": "android",
            "type": "sensor-data",
            "write_ts": NOW + ts,
            "time_zone": "America/Los_Angeles",
            "write_fmt_time": "2023-11-14T14:13:20-08:00",
        },
        "data": {
            "ts": NOW + ts,
            "latitude": 37.87,
            "longitude": -122.27,
            "loc": {"type": "Point", "coordinates": [-122.27, 37.87]},
            "accuracy": 10.0,
        },
    }


def test_a_ledger_older_than_the_controller_remembers_is_refused(world: World) -> None:
    remembered = msgspec.structs.replace(provision(world), ledger_seq=3)
    with pytest.raises(errors.VaultError, match="older"):
        Custodian(remembered, MemoryStore(uuid.UUID(CLOUD)), MemoryLedger())


def test_provisioning_is_a_file_that_only_its_owner_reads(tmp_path: Path, world: World) -> None:
    from emlab import provision as provisioning

    provisioning.write(tmp_path, provision(world))
    path = tmp_path / provisioning.PROVISION
    assert path.stat().st_mode & 0o777 == 0o400
    assert provisioning.read(tmp_path) == provision(world)
    path.unlink()
    with pytest.raises(errors.ConfigError):
        provisioning.read(tmp_path)


def test_the_request_of_an_ask_is_what_the_table_says() -> None:
    assert next(route.request for route in ROUTES if route.name == "ask") is AskRequest
