"""The controller for outsiders: who may do what with whose cloud, and that it is on record."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import emlab as em
from emlab import ask as asking
from emlab import serving
from emlab.audit import INCOMING, MANY, Audit, Incoming
from emlab.clock import SYSTEM_CLOCK, ManualClock, wait_until
from emlab.key import SigningKey
from emlab.loss import Loss
from emlab.registry import CloudRow, Registry
from emlab.remote import ControllerClient
from emlab.service import Service, SignupMode
from emlab.wire.aggregation import Releasing
from emlab.wire.control import CONTROL_ROUTES, Opening
from emlab.wire.transport import MemoryTransport

KEY = em.Key(bytes(range(32)))
OPENING = {"key": KEY.raw().hex()}


class Caller:
    """Sends requests to a service, as one after another."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._server = service.server()

    def send(self, token: str | None, path: str, body: object = None, *, method: str = "POST") -> tuple[int, Any]:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        raw = b"" if body is None else json.dumps(body).encode()
        status, reply = self._server.handle(method, path, headers, raw)
        return status, json.loads(reply)

    def get(self, token: str | None, path: str) -> Any:
        status, answer = self.send(token, path, method="GET")
        assert status == 200, answer
        return answer

    def ask(self, token: str | None, path: str, **body: object) -> Any:
        status, answer = self.send(token, path, body)
        assert status == 200, answer
        return answer

    def refused(self, token: str | None, path: str, body: object = None, *, method: str = "POST") -> tuple[int, str]:
        status, problem = self.send(token, path, body, method=method)
        assert status >= 400, problem
        return status, problem["kind"]

    def audit(self) -> list[tuple[str, str, str, str, int]]:
        rows = self.service.audit.rows()
        return [(row.actor, row.action, row.user, row.outcome, row.n) for row in rows]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[em.Lab]:
    with em.Lab("memory", home=tmp_path, idle=None, default_policy=em.Policy.open()) as lab:
        yield lab


def caller_of(lab: em.Lab, signup: SignupMode = "admin") -> Caller:
    return Caller(Service(lab.controller, lab.registry, signup=signup, follow=lambda rule: setattr(lab, "idle", rule)))


@pytest.fixture
def caller(lab: em.Lab) -> Caller:
    return caller_of(lab)


@pytest.fixture
def admin(caller: Caller) -> str:
    return caller.service.issue("admin", "root").token


@pytest.fixture
def ann(caller: Caller, admin: str) -> str:
    token = caller.ask(admin, "/signup", user="ann", opening=OPENING)["token"]
    assert isinstance(token, str)
    return token


SHARED = [route.path for route in CONTROL_ROUTES if route.who == "owner or admin"]
GUARDED = [route for route in CONTROL_ROUTES if route.who != "anyone"]


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.name)
def test_no_route_is_open_without_a_token_or_to_a_wrong_one(caller: Caller, ann: str, route: Any) -> None:
    for token in (None, "", "emo_" + "A" * 43, ann[:-1], ann + "x", "\u00e9"):
        assert caller.refused(token, route.path, {}, method=route.method) == (
            (401, "NoToken") if token is None else (403, "NotPermitted")
        )


@pytest.mark.parametrize("route", GUARDED, ids=lambda route: route.name)
def test_a_route_is_for_the_kinds_of_tokens_that_it_says(caller: Caller, admin: str, ann: str, route: Any) -> None:
    provider = caller.ask(admin, "/providers", name="planner", public=SigningKey().public)["token"]
    invitation = caller.service.issue("invitation", "bob").token
    aggregator = caller.service.issue("aggregator", "trust").token
    kinds = {
        "owner": ann,
        "admin": admin,
        "provider": provider,
        "invitation": invitation,
        "aggregator": aggregator,
    }
    allowed = {"newcomer": {"admin"}, "any token": {*kinds} - {"invitation"}}.get(
        route.who, set(route.who.split(" or "))
    )
    for kind, token in kinds.items():
        status, _ = caller.send(token, route.path, {"nonsense": 1}, method=route.method)
        assert (status == 403) == (kind not in allowed), (kind, status)


class TestOwners:
    def test_finds_the_own_cloud(self, caller: Caller, ann: str, lab: em.Lab) -> None:
        me = caller.get(ann, "/me")
        assert (me["kind"], me["subject"], me["cloud"]["state"]) == ("owner", "ann", "running")
        assert me["cloud"]["cloud"] == lab.controller.status("ann").cloud
        assert [one["cloud"] for one in caller.get(ann, "/clouds")] == [me["cloud"]["cloud"]]

    @pytest.mark.parametrize(
        "path", [r.path for r in CONTROL_ROUTES if r.who == "owner or admin" and r.path.startswith("/cloud/")]
    )
    def test_touches_no_other_cloud(self, caller: Caller, admin: str, ann: str, path: str) -> None:
        caller.ask(admin, "/signup", user="bob", opening=OPENING)
        key = {"opening": OPENING} if path == "/cloud/unlock" else {}
        assert caller.refused(ann, path, {"user": "bob", **key}) == (403, "NotPermitted")
        assert caller.refused(ann, path, {"user": "nobody", **key}) == (403, "NotPermitted")
        assert caller.get(admin, "/clouds")[1]["state"] == "running"

    def test_lets_it_sleep_and_wake_and_locks_it(self, caller: Caller, ann: str) -> None:
        assert caller.ask(ann, "/cloud/pause")["state"] == "paused"
        assert caller.ask(ann, "/cloud/wake")["state"] == "running"
        assert caller.ask(ann, "/cloud/lock")["vault_open"] is False
        assert caller.refused(ann, "/cloud/wake", {}) == (409, "Locked")
        wrong = {"key": "ff" * 32}
        assert caller.refused(ann, "/cloud/unlock", {"opening": wrong}) == (403, "WrongKey")
        assert caller.ask(ann, "/cloud/unlock", opening=OPENING)["state"] == "running"

    def test_changes_what_opens_the_vault(self, caller: Caller, ann: str) -> None:
        words = {"passphrase": "correct horse battery staple"}
        code = caller.ask(ann, "/cloud/recovery", opening=OPENING)["code"]
        caller.ask(ann, "/cloud/rekey", old={"code": code}, new=words)
        caller.ask(ann, "/cloud/lock")
        assert caller.refused(ann, "/cloud/unlock", {"opening": OPENING}) == (403, "WrongKey")
        assert caller.ask(ann, "/cloud/unlock", opening=words)["vault_open"] is True
        assert caller.refused(ann, "/cloud/rekey", {"old": words, "new": {"code": code}}) == (400, "ConfigError")

    @pytest.mark.parametrize(
        "opening", [{}, {"key": "0"}, {"key": "Z" * 64}, {"key": None}, {"passphrase": "short"}, {"code": "AAAA"}]
    )
    def test_is_told_what_is_wrong_with_a_key_without_being_shown_it(
        self, caller: Caller, ann: str, opening: dict[str, str | None]
    ) -> None:
        status, problem = caller.send(ann, "/cloud/unlock", {"opening": opening})
        assert status in (400, 409)
        shown = [value for value in opening.values() if value and len(value) > 1]
        assert not any(value in problem["detail"] for value in shown)

    def test_keeps_it_awake_by_leases(self, caller: Caller, ann: str) -> None:
        first = caller.ask(ann, "/leases", ttl_s=60)
        assert caller.refused(ann, "/cloud/pause", {}) == (409, "InUse")
        longer = caller.ask(ann, "/leases", ttl_s=120, id=first["id"])
        assert (longer["id"], longer["until_ts"] > first["until_ts"]) == (first["id"], True)
        assert caller.ask(ann, "/leases", ttl_s=1, id=first["id"])["until_ts"] == longer["until_ts"]
        assert caller.get(ann, "/me")["cloud"]["leases"] == 1
        caller.ask(ann, "/leases/release", id=first["id"])
        assert caller.refused(ann, "/leases/release", {"id": first["id"]}) == (400, "ConfigError")
        assert caller.ask(ann, "/cloud/pause")["state"] == "paused"

    def test_may_release_from_elsewhere_what_has_ended_by_itself(self, caller: Caller, ann: str) -> None:
        transport = MemoryTransport(caller.service.server())
        with ControllerClient("http://localhost", ann, transport=transport) as mine, mine.lease("ann", 0.001) as lease:
            assert wait_until(lambda: SYSTEM_CLOCK.now() > lease.until_ts, 5.0)
            assert mine.status("ann").leases == 0

    def test_has_leases_that_outlive_a_clock_that_goes_back(self, caller: Caller, ann: str, lab: em.Lab) -> None:
        caller.ask(ann, "/leases", ttl_s=86_400)
        lab.registry.run("UPDATE named_leases SET until_ts = until_ts + 120")  # as if it had been made by a later clock
        lab.controller.life("ann").end_leases()
        again = Service(lab.controller, lab.registry)
        assert lab.controller.status("ann").leases == 1
        assert len(again.leases._held) == 1
        (until_ts,) = [row["until_ts"] for row in lab.registry.run("SELECT * FROM named_leases")]
        assert until_ts <= SYSTEM_CLOCK.now() + 86_400  # and does not hold longer after the next start

    def test_has_leases_that_outlive_the_service(self, caller: Caller, ann: str, lab: em.Lab) -> None:
        lease, short = caller.ask(ann, "/leases", ttl_s=60), caller.ask(ann, "/leases", ttl_s=60)
        caller.ask(ann, "/leases/release", id=short["id"])
        lab.controller.life("ann").end_leases()  # as after a crash of the process, which knows of none
        again = caller_of(lab)
        assert again.get(ann, "/me")["cloud"]["leases"] == 1
        assert again.refused(ann, "/cloud/pause", {}) == (409, "InUse")
        again.ask(ann, "/leases/release", id=lease["id"])
        assert caller_of(lab).ask(ann, "/cloud/pause")["state"] == "paused"

    @pytest.mark.parametrize("ttl_s", [0, -1, 315_360_000, 1e300])
    def test_gets_no_lease_of_ten_years(self, caller: Caller, ann: str, ttl_s: float) -> None:
        assert caller.refused(ann, "/leases", {"ttl_s": ttl_s}) == (400, "BadQuery")

    def test_forgets_only_the_cloud_that_is_named(self, caller: Caller, ann: str, lab: em.Lab) -> None:
        assert caller.refused(ann, "/cloud/forget", {}) == (400, "BadQuery")
        caller.ask(ann, "/cloud/forget", user="ann")
        assert caller.refused(ann, "/me", method="GET") == (403, "NotPermitted")
        assert len(lab.controller.clouds()) == 0

    def test_has_further_tokens_and_revokes_one(self, caller: Caller, ann: str) -> None:
        for kind, subject in (("admin", "root"), ("admin", None), ("owner", "bob"), ("provider", "ann")):
            assert caller.refused(ann, "/tokens", {"kind": kind, "subject": subject}) == (403, "NotPermitted")
        phone = caller.ask(ann, "/tokens", ttl_s=60)
        assert (phone["about"]["kind"], phone["about"]["subject"]) == ("owner", "ann")
        assert len(caller.get(phone["token"], "/tokens")) == 2
        caller.ask(ann, "/tokens/revoke", id=phone["about"]["id"])
        assert caller.refused(phone["token"], "/me", method="GET") == (403, "NotPermitted")
        assert caller.get(ann, "/me")["cloud"]["state"] == "stopped"

    def test_alone_lets_others_read_the_data(self, caller: Caller, admin: str, ann: str, lab: em.Lab) -> None:
        wanted = {"kind": "owner", "subject": "ann"}
        before = lab.controller.tokens.of("owner")
        assert caller.refused(admin, "/tokens", wanted) == (403, "NotPermitted")
        assert caller.refused(admin, "/tokens", {**wanted, "opening": {"key": "ff" * 32}}) == (403, "WrongKey")
        assert lab.controller.tokens.of("owner") == before
        token = caller.ask(admin, "/tokens", **wanted, opening=OPENING)["token"]
        assert caller.get(token, "/me")["subject"] == "ann"

    def test_revokes_nobody_else_s(self, caller: Caller, admin: str, ann: str) -> None:
        (root,) = caller.service.controller.tokens.of("admin")
        assert caller.refused(ann, "/tokens/revoke", {"id": root.id}) == (400, "ConfigError")
        caller.get(admin, "/tokens")

    def test_sees_the_own_part_of_the_record(self, caller: Caller, admin: str, ann: str) -> None:
        caller.ask(admin, "/signup", user="bob", opening=OPENING)
        caller.ask(admin, "/cloud/pause", user="bob")
        caller.ask(admin, "/cloud/pause", user="ann")
        rows = caller.ask(ann, "/audit")
        assert [(row["actor"], row["action"]) for row in rows] == [("admin root", "signup"), ("admin root", "pause")]
        assert {event["user"] for event in caller.ask(ann, "/events")["events"]} == {"ann"}


class TestNewcomers:
    def test_sign_up_by_themselves_where_that_is_open(self, lab: em.Lab) -> None:
        caller = caller_of(lab, "open")
        signed = caller.ask(None, "/signup", user="eve", opening=OPENING, token_ttl_s=60)
        assert caller.get(signed["token"], "/me")["subject"] == "eve"
        assert caller.refused(None, "/signup", {"user": "eve", "opening": OPENING}) == (400, "ConfigError")

    def test_need_an_invitation_where_that_is_wanted_and_use_it_up(self, lab: em.Lab) -> None:
        caller = caller_of(lab, "invitation")
        assert caller.refused(None, "/signup", {"user": "eve", "opening": OPENING}) == (401, "NoToken")
        invitation = caller.service.issue("invitation", "eve").token
        assert caller.refused(invitation, "/signup", {"user": "../x", "opening": OPENING}) == (400, "BadQuery")
        lab.controller.signup("ann")
        taken = caller.refused(invitation, "/signup", {"user": "ann", "opening": OPENING})
        assert taken == (400, "ConfigError")  # which leaves the invitation as it was
        caller.ask(invitation, "/signup", user="eve", opening=OPENING)
        assert caller.refused(invitation, "/signup", {"user": "fay", "opening": OPENING}) == (403, "NotPermitted")

    @pytest.mark.parametrize("user", ["", "a/b", "..", "-x", "a" * 65, "\u00e9", "a\u0000", 7, None])
    def test_have_proper_names(self, caller: Caller, admin: str, user: object) -> None:
        assert caller.refused(admin, "/signup", {"user": user, "opening": OPENING}) == (400, "BadQuery")


def test_a_provider_asks_by_aliases_and_gets_a_release(caller: Caller, admin: str, ann: str, lab: em.Lab) -> None:
    planner = lab.controller.register_provider("planner")
    roster = caller.get(planner.token, "/roster")
    assert roster == lab.controller.roster(planner.token, planner.public)
    assert lab.controller.status("ann").cloud not in roster
    told = {"public": lab.aggregator.public, "trust": lab.aggregator.trust}
    assert caller.get(planner.token, "/aggregator") == told


@pytest.mark.parametrize("ttl_s", [float("nan"), float("inf"), 0, -1.0])
def test_what_is_no_time_to_live_makes_no_token(caller: Caller, admin: str, ttl_s: float) -> None:
    transport = MemoryTransport(caller.service.server())
    with em.ControllerClient("http://localhost", admin, transport=transport) as client:
        before = client.tokens()
        with pytest.raises(em.ConfigError, match="a token lasts"):
            client.issue("admin", "root", ttl_s=ttl_s)
        with pytest.raises(em.ConfigError, match="a token lasts"):
            client.signup("bob", token_ttl_s=ttl_s)
        assert client.tokens() == before
        assert len(client.clouds()) == 0


def test_a_lab_that_is_served_has_an_admin_whatever_tokens_there_were(lab: em.Lab) -> None:
    service, said = Service(lab.controller, lab.registry), list[str]()
    lab.controller.tokens.issue("admin", serving.COMMAND_LINE)
    ended = service.issue("admin", "root", ttl_s=0.001).about
    assert wait_until(lambda: not ended.holds(SYSTEM_CLOCK.now()), 10.0)
    for _ in range(2):
        serving._first_token(lab, service, said.append)
    assert len(said) == 1
    assert lab.controller.tokens.who((lab.path / serving.TOKEN_FILE).read_text().strip()).kind == "admin"
    assert lab.controller.tokens.of("admin", serving.COMMAND_LINE) == []


def test_an_owner_s_part_of_the_record_begins_with_the_cloud_whatever_the_clock_did(lab: em.Lab) -> None:
    service = Service(lab.controller, lab.registry, clock=ManualClock(SYSTEM_CLOCK.now() + 86_400.0))
    before, admin = Caller(service), service.issue("admin", "root").token
    before.ask(before.ask(admin, "/signup", user="tim", opening=OPENING)["token"], "/cloud/pause")
    lab.controller.forget("tim")  # as a sweep ends it, which leaves no row
    after = caller_of(lab)
    second = after.ask(admin, "/signup", user="tim", opening=OPENING)["token"]
    after.ask(second, "/cloud/wake")
    assert [row["action"] for row in after.ask(second, "/audit")] == ["signup", "wake"]
    assert [action for _, action, *_ in after.audit()] == ["signup", "pause", "signup", "wake"]


def test_a_first_token_that_was_lost_on_its_way_is_made_anew(lab: em.Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    service, said = Service(lab.controller, lab.registry), list[str]()

    def cut_off(*_: object, **__: object) -> None:
        raise em.DiskFull("the disk is full")

    for owner, verb in ((serving, "replacing"), (lab.controller.tokens, "issue")):
        with monkeypatch.context() as there:
            there.setattr(owner, verb, cut_off)
            with pytest.raises(em.DiskFull):
                serving._first_token(lab, service, said.append)
        assert lab.controller.tokens.of("admin") == []
    serving._first_token(lab, service, said.append)
    assert lab.controller.tokens.who((lab.path / serving.TOKEN_FILE).read_text().strip()).subject == serving.ADMIN
    assert len(said) == 1


def test_nobody_is_granted_anything_of_a_cloud_that_is_being_removed(caller: Caller, ann: str) -> None:
    caller.service.controller.life("ann").retire()
    assert caller.refused(ann, "/leases", {"ttl_s": 60}) == (404, "CloudGone")
    assert caller.refused(ann, "/tokens", {}) == (404, "CloudGone")


def test_asks_are_on_record_with_whose_cloud_was_asked(caller: Caller, admin: str, ann: str, lab: em.Lab) -> None:
    transport = MemoryTransport(caller.service.server())
    with em.ControllerClient("http://localhost", admin, transport=transport) as client:
        planner = client.register_provider("planner")
        assert planner.ask(em.CountUsers(None, 0.0, 2e9), epsilon=1.0, min_users=1).answered == 1
        lab.controller.lock("ann")
        with pytest.raises(em.TooFewUsers, match="Locked 1"):
            planner.ask(em.CountUsers(None, 0.0, 2e9), epsilon=1.0, min_users=1)
    rows = [(row["actor"], row["action"], row["outcome"]) for row in caller.ask(ann, "/audit")]
    assert rows.count(("provider planner", "ask", "ok")) == rows.count(("provider planner", "ask", "Locked")) == 1


def test_who_tries_another_s_cloud_is_on_record_for_its_owner(caller: Caller, admin: str, ann: str) -> None:
    bob = caller.ask(admin, "/signup", user="bob", opening=OPENING)["token"]
    assert caller.refused(ann, "/cloud/lock", {"user": "bob"}) == (403, "NotPermitted")
    seen = [(row["actor"], row["action"], row["outcome"]) for row in caller.ask(bob, "/audit")]
    assert ("owner ann", "lock", "NotPermitted") in seen
    assert not any(row["action"] == "lock" for row in caller.ask(ann, "/audit"))


def test_an_admin_acts_as_one_also_on_clouds_whose_owners_tokens_it_knows(caller: Caller, admin: str) -> None:
    transport = MemoryTransport(caller.service.server())
    with ControllerClient("http://localhost", admin, transport=transport) as client:
        cloud = client.signup("ann", key=KEY)
        cloud.pause()
        client.wake("ann")
        with client.lease("ann", 60.0):
            pass
        cloud.rekey(KEY, em.Key(bytes(32)))  # which takes the owner
        client.forget("ann")
    actors = {action: actor for actor, action, *_ in caller.audit()}
    acted = dict.fromkeys(("signup", "pause", "wake", "lease", "release_lease", "forget"), "admin root")
    assert actors == {**acted, "rekey": "owner ann"}


def test_who_takes_a_name_that_somebody_had_sees_nothing_of_before(caller: Caller, admin: str, lab: em.Lab) -> None:
    first = caller.ask(admin, "/signup", user="kim", opening=OPENING)["token"]
    caller.ask(first, "/cloud/pause")
    caller.service.audit.count("nobody 192.0.2.7", "use", user="kim", outcome="NoToken")  # waits to be written
    assert len(caller.ask(first, "/audit")) == 3
    caller.service.audit.count("nobody 192.0.2.8", "use", user="kim", outcome="NoToken")
    caller.ask(first, "/cloud/forget", user="kim")
    second = caller.ask(admin, "/signup", user="kim", opening=OPENING)["token"]
    caller.ask(second, "/cloud/wake")
    caller.service.audit.count("nobody 192.0.2.8", "use", user="kim", outcome="NoToken")
    assert [(row["actor"], row["action"], row["n"]) for row in caller.ask(second, "/audit")] == [
        ("admin root", "signup", 1),
        ("owner kim", "wake", 1),
        ("nobody 192.0.2.8", "use", 1),
    ]
    spans = [row["span"] for row in caller.ask(second, "/events")["events"]]
    assert {"signup"} <= set(spans)
    assert not {"pause", "forget"} & set(spans)


def test_events_are_all_there_after_a_controller_began_anew(
    caller: Caller, admin: str, ann: str, lab: em.Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport = MemoryTransport(caller.service.server())
    with ControllerClient("http://localhost", admin, transport=transport) as client:
        everything, count = client.events()
        assert client.events(count) == ([], count)
        assert client.history().equals(lab.recorder.frame())
        monkeypatch.setattr(lab.recorder, "run", "another")
        assert client.events(count) == (everything, count)
        assert client.events(count) == ([], count)


def test_a_cloud_that_comes_or_goes_just_now_is_not_shown(caller: Caller, admin: str, ann: str, lab: em.Lab) -> None:
    lab.registry.add(CloudRow("bob", "b" * 32, 1, "marker", SYSTEM_CLOCK.now(), intent="signup"))
    assert [status["user"] for status in caller.get(admin, "/clouds")] == ["ann"]


def test_clouds_that_are_leased_are_not_woken_any_more_when_the_service_ends() -> None:
    woken, begun, go_on = [], threading.Event(), threading.Event()

    def wake(user: str) -> None:
        woken.append(user)
        begun.set()
        assert go_on.wait(10.0)

    service: Any = SimpleNamespace(
        leases=SimpleNamespace(users=lambda: {"ann", "bob", "eve"}), controller=SimpleNamespace(wake=wake)
    )
    with ThreadPoolExecutor(1) as pool:

        def serve() -> None:
            with serving._waking_leased(service):
                assert begun.wait(10.0)

        ended = pool.submit(serve)
        assert begun.wait(10.0)
        assert not wait_until(ended.done, 0.05)  # it waits for what is under way
        go_on.set()
        ended.result(10.0)
    assert len(woken) == 1


def test_a_provider_gets_no_release_of_another_s_ask(caller: Caller, ann: str, lab: em.Lab) -> None:
    planner, other = (lab.controller.register_provider(name) for name in ("planner", "other"))
    ask = planner._ask(em.CountUsers(None, 0.0, 2e9), Loss(epsilon_micro=1_000_000), "central", 1, "")
    ask = msgspec.structs.replace(ask, expires_ts=SYSTEM_CLOCK.now() + 60.0)
    signature = asking.sign(ask, planner.key)
    (alias,) = lab.controller.roster(planner.token, planner.public)
    answer = lab.controller.put(ask, signature, alias, token=planner.token, timeout_s=30.0)
    request = msgspec.to_builtins(Releasing(ask=ask, signature=signature, outcomes=[answer]))
    assert caller.refused(other.token, "/releases", request) == (403, "NotPermitted")
    assert caller.ask(planner.token, "/releases", **request)["answered"] == 1


def test_an_admin_names_whose_cloud_is_meant(caller: Caller, admin: str, ann: str) -> None:
    assert caller.refused(admin, "/cloud/pause", {}) == (400, "ConfigError")
    assert caller.refused(admin, "/cloud/pause", {"user": "zoe"}) == (404, "UnknownUser")
    assert caller.ask(admin, "/cloud/pause", user="ann")["user"] == "ann"


def test_an_admin_sets_the_idle_rule(caller: Caller, admin: str, lab: em.Lab) -> None:
    assert caller.get(admin, "/idle") == {"rule": "Never"}
    for rule in (em.PauseAfter(5.0, lock_after_s=9.0), em.AtMost(3), em.Histogram(30.0), em.Never()):
        form = {"rule": type(rule).__name__, "parameters": asdict(rule)}
        status, _ = caller.send(admin, "/idle", form, method="PUT")
        assert (status, lab.idle) == (200, rule)
        assert caller.get(admin, "/idle").get("parameters", {}) == asdict(rule)
    wrong: tuple[tuple[str, dict[str, object]], ...] = (
        ("PauseAfter", {"idle_s": 0}),
        ("PauseAfter", {"colour": 1}),
        ("AtMost", {}),
        ("Often", {}),
    )
    for name, parameters in wrong:
        refused = caller.refused(admin, "/idle", {"rule": name, "parameters": parameters}, method="PUT")
        assert refused == (400, "ConfigError")
    assert lab.idle == em.Never()


def test_what_the_idle_rule_did_is_on_record_and_its_owner_sees_it(caller: Caller, lab: em.Lab, ann: str) -> None:
    for rule in (em.PauseAfter(0.001), em.PauseAfter(0.001, lock_after_s=0.002)):
        lab.controller.idle = rule
        assert wait_until(lambda: lab.controller.sweep() == ["ann"], 5)
    rows = caller.ask(ann, "/audit")
    assert [(row["actor"], row["action"]) for row in rows[1:]] == [("the service", "pause"), ("the service", "lock")]


def test_uses_are_counted_and_every_refusal_is_on_record(caller: Caller, ann: str) -> None:
    cloud, service = caller.service.controller.status("ann").cloud, caller.service

    def use() -> None:
        INCOMING.set(Incoming("192.0.2.1"))
        service.admit(cloud, ann)
        service.used()
        service.used()

    for _ in range(3):
        copy_context().run(use)

    def refuse(where: str, token: str | None) -> None:
        INCOMING.set(Incoming("192.0.2.1"))
        with pytest.raises(em.NotPermitted) as refused:
            service.admit(where, token)
        service.refused("GET", f"/{where}/policy", where, token, refused.value.kind)

    for where, token in ((cloud, None), (cloud, "emo_x"), ("0" * 32, ann)):
        copy_context().run(refuse, where, token)
    caller.refused("emo_x", "/me", method="GET")
    assert set(caller.audit()) == {
        ("admin root", "signup", "ann", "ok", 1),
        ("owner ann", "use", "ann", "ok", 3),
        ("nobody 192.0.2.1", "use", "ann", "NoToken", 1),
        ("nobody 192.0.2.1", "use", "ann", "NotPermitted", 1),
        ("owner ann", "use", "", "NotPermitted", 1),
        ("nobody", "me", "", "NotPermitted", 1),
    }


def test_of_many_strangers_no_more_than_some_are_told_apart(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "lab")
    registry.open()
    audit = Audit(registry)
    for number in range(1000):
        audit.count(f"nobody 192.0.2.{number}", "use", outcome="NoToken")
        audit.count("owner ann", "use", user="ann")
    rows = audit.rows()
    assert len(rows) == MANY + 1
    assert sum(row.n for row in rows) == 2000
    assert {row.n for row in rows if row.actor == "owner ann"} == {1000}
    registry.close()


def test_what_cannot_be_written_now_is_written_later(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "lab")
    registry.open()
    audit = Audit(registry)
    audit.count("nobody 192.0.2.1", "use", outcome="NoToken")
    pages = registry.run("PRAGMA page_count")[0][0]
    registry.run(f"PRAGMA max_page_count={pages}")
    for number in range(1000):
        audit.count(f"owner {'x' * 60}{number}", "use")
    with pytest.raises(em.errors.DiskFull, match="registry of the lab lab"):
        audit.flush()
    audit.count("nobody 192.0.2.1", "use", outcome="NoToken")
    assert audit.rows() == []  # it can be read meanwhile
    registry.run(f"PRAGMA max_page_count={pages + 1000}")
    audit.flush()
    assert [row["n"] for row in registry.run("SELECT n FROM audit WHERE actor = 'nobody 192.0.2.1'")] == [2]
    registry.close()


def test_what_could_not_be_written_for_a_while_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    class Log:
        tries = 0

        def flush(self) -> None:
            self.tries += 1
            if self.tries < 3:
                raise em.errors.DiskFull("the disk is full")

    audit: Any = Log()
    monkeypatch.setattr(serving, "FLUSH_S", 0.001)
    with serving._flushing(audit):
        assert wait_until(lambda: audit.tries > 3, 10.0)


def test_the_record_says_which_token_provider_or_rule_that_was(caller: Caller, admin: str) -> None:
    second = caller.ask(admin, "/tokens", kind="admin", subject="eve")["about"]["id"]
    caller.ask(admin, "/tokens/revoke", id=second)
    provider = caller.ask(admin, "/providers", name="planner", public=SigningKey().public)["about"]["id"]
    status, _ = caller.send(admin, "/idle", {"rule": "AtMost", "parameters": {"n": 3}}, method="PUT")
    assert status == 200
    rows = caller.service.audit.rows()
    assert [(row.action, row.about) for row in rows if row.actor == "admin root"] == [
        ("issue", f"admin eve {second}"),
        ("revoke", f"admin eve {second}"),
        ("register_provider", f"provider planner {provider}"),
        ("set_idle", "AtMost(3)"),
    ]


def test_the_record_is_only_added_to(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "lab")
    registry.open()
    audit = Audit(registry, clock=ManualClock(5.0))
    audit.note("admin root", "pause", user="ann")
    anew = "INSERT OR REPLACE INTO audit VALUES (1, 0, 'x', 'pause', '', 'ok', 1, '')"
    for statement in ("UPDATE audit SET actor = 'x'", "DELETE FROM audit", anew):
        with pytest.raises(em.errors.StoreError, match="only added to"):
            registry.run(statement)
    (row,) = audit.rows()
    assert (row.seq, row.ts, row.actor, row.user, row.n) == (1, 5.0, "admin root", "ann", 1)
    assert audit.rows(after=1) == audit.rows(user="bob") == []
    registry.close()


def test_no_secret_is_shown(caller: Caller, ann: str) -> None:
    text = repr(Opening.of(KEY)) + repr(Opening.of(em.Passphrase("correct horse battery staple")))
    assert KEY.raw().hex() not in text
    assert "horse" not in text
    files = [file for file in caller.service.controller._dir.rglob("*") if file.is_file()]
    assert files
    for file in files:
        assert ann.encode() not in file.read_bytes()
