"""`emlab serve` as a program of its own: the whole story over HTTPS, its end by every means, and who is let in."""

from __future__ import annotations

import http.client
import json
import math
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

import emlab as em
from emlab import cli, kept, tls
from emlab.apps.controller import MAX_STREAMS_EACH
from emlab.clock import wait_until
from emlab.errors import ConfigError, InUse, Locked, NoToken, TooMany, Unreachable
from emlab.parts import make_engine
from emlab.remote import ControllerClient
from tests.e2e.clouds import entry
from tests.e2e.served import Served, free_port, lab_file, served
from tests.gateways import rest
from tests.unit.test_panel import Hand

REAL = pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
PROCESS = pytest.mark.parametrize("engine_name", ["process"], indirect=True)
KEY = "background/location"
WORDS = em.Passphrase("the quick brown fox of Ann")


@pytest.fixture
def config(engine_name: str, tmp_path: Path) -> Path:
    return lab_file(tmp_path / "lab.toml", engine_name)


@pytest.fixture
def lab(home: Path, config: Path, engine_name: str) -> Iterator[Served]:
    with served(home, config) as running:
        yield running
    _remove(home, engine_name)


def _remove(home: Path, engine_name: str) -> None:
    """Nothing is left of the lab, which is kept."""
    em.Lab(engine_name, name="served", keep=False, home=home, idle=None).start().close()
    assert list((home / "labs").iterdir()) == []
    assert make_engine(engine_name, home).find() == []


@pytest.fixture
def admin(lab: Served) -> Iterator[ControllerClient]:
    with lab.client() as client:
        yield client


@pytest.fixture
def connect(lab: Served) -> Callable[[], http.client.HTTPSConnection]:
    """A plain connection to it."""
    where = lab.address.url.removeprefix("https://")
    trusting = ssl.create_default_context(cafile=lab.address.ca)
    return lambda: http.client.HTTPSConnection(where, context=trusting, timeout=30)


@REAL
def test_it_ends_in_order_when_it_is_interrupted(
    lab: Served, admin: ControllerClient, home: Path, engine_name: str
) -> None:
    cloud = admin.signup("ann", policy=em.Policy.open(), key=WORDS)
    lab.process.send_signal(signal.SIGINT)
    assert lab.process.wait(60) == 0
    assert "interrupted" not in lab.log.read_text()
    with em.Lab(engine_name, name="served", home=home, idle=None) as found:
        assert found.controller.status("ann").state == "paused"
        assert found.controller.cloud("ann", token=cloud.token).counts() == {}


@REAL
def test_the_whole_story_over_https(lab: Served, admin: ControllerClient, home: Path) -> None:
    person = em.Simulator(1, 1, seed=2).person(0)
    ann = admin.signup("ann", policy=em.Policy.open(), key=WORDS)
    assert ann.token is not None
    ann.pause()
    assert ann.state is em.CloudState.PAUSED
    stored = ann.store(person.entries())
    assert (stored.inserted, ann.state) == (stored.received, em.CloudState.RUNNING)
    assert ann.intake().trips == len(ann.trips()) > 1
    planner = admin.register_provider("planner")
    ann.pause()
    release = planner.ask(em.SumDistance(0.0, 2e9, 50_000), epsilon=1.0, min_users=1)
    assert (release.asked, release.answered, release.failed) == (1, 1, 0)
    assert ann.ledger.spent_micro == 1_000_000
    with lab.client(ann.token) as mine:
        me = mine.me()
        assert (me.kind, me.subject, me.cloud is not None) == ("owner", "ann", True)
        again = mine.cloud("ann")
        again.lock()
        with pytest.raises(Locked):
            again.counts()
        with pytest.raises(em.WrongKey):
            again.unlock(em.Passphrase("the quick brown fox of Bob"))
        again.unlock(WORDS)
        assert sum(again.counts().values()) > stored.received
        with again.lease(60.0), pytest.raises(InUse):
            again.pause()
        actions = [(row.actor, row.action, row.outcome) for row in mine.audit()]
    assert ("admin admin", "signup", "ok") in actions
    assert ("owner ann", "unlock", "WrongKey") in actions
    assert any(action == "use" for _, action, _ in actions)
    ann.delete()
    assert len(admin.clouds()) == 0
    everything = b"".join(file.read_bytes() for file in (home / "labs").rglob("*") if file.is_file())
    for secret in (ann.token.encode(), b"quick brown fox"):
        assert secret not in everything + lab.log.read_bytes()


@REAL
def test_a_panel_shows_and_does_what_the_clouds_are(lab: Served, admin: ControllerClient) -> None:
    clouds = {user: admin.signup(user) for user in ("ann", "bob")}
    clouds["bob"].pause()
    hand = Hand(admin.panel())
    hand.click("Refresh")
    assert hand.table == {"ann": "running", "bob": "paused"}
    memory = [float(row[5].removesuffix(" MiB")) for row in hand.cells]
    assert all(20 < mib < 500 for mib in memory)
    hand.users.value = ("ann",)
    for _ in range(2):  # which it asks for
        hand.click("Lock")
    assert hand.table == {"ann": "stopped", "bob": "paused"}
    hand.users.value = ("bob",)
    hand.click("Wake")
    assert {user: cloud.state.value for user, cloud in clouds.items()} == {"ann": "stopped", "bob": "running"}
    assert {"pause", "lock", "wake"} <= set(admin.history()["span"])


@REAL
def test_after_a_kill_everything_is_found_again(home: Path, config: Path, engine_name: str) -> None:
    with served(home, config) as first, first.client() as admin:
        users = ["ann", "bob", "eve"]
        clouds = {user: admin.signup(user, policy=em.Policy.open()) for user in users}
        for number, cloud in enumerate(clouds.values()):
            cloud.store([entry(n) for n in range(number + 1)])
        clouds["bob"].pause()
        clouds["eve"].lock()
        before = {status.user: status for status in admin.clouds().statuses()}
        first.kill()
    with served(home, config) as second, second.client() as admin:
        after = {status.user: status for status in admin.clouds().statuses()}
        told = [(status.cloud, status.state, status.vault_open) for status in before.values()]
        assert [(status.cloud, status.state, status.vault_open) for status in after.values()] == told
        assert {handle.cloud for handle in make_engine(engine_name, home).find()} == {s.cloud for s in after.values()}
        eve = clouds["eve"]
        assert eve.key is not None
        admin.cloud("eve").unlock(eve.key)
        for number, (user, cloud) in enumerate(clouds.items()):
            assert admin.cloud(user, token=cloud.token).counts() == {KEY: number + 1}
        assert {row.action for row in admin.audit()} >= {"signup", "pause", "lock", "unlock"}
    _remove(home, engine_name)


@REAL
def test_it_ends_in_order_and_keeps_the_clouds(home: Path, config: Path, engine_name: str) -> None:
    with served(home, config) as running, running.client() as admin:
        ann = admin.signup("ann")
        ann.store([entry(1)])
        assert running.end() in (0, -15, 143), running.log.read_text()
        assert not (running.lab_dir / "serve.json").exists()
    with em.Lab(engine_name, name="served", home=home, idle=None) as lab:
        assert lab.controller.status("ann").state == "paused"
        assert lab.controller.cloud("ann", token=ann.token).counts() == {KEY: 1}
    _remove(home, engine_name)


@PROCESS
def test_all_that_a_sweep_did_before_the_end_is_on_record(home: Path, tmp_path: Path, engine_name: str) -> None:
    config = lab_file(tmp_path / "lab.toml", engine_name, idle_s=1.0, lock_after_s=2.0)
    with served(home, config) as running, running.client() as admin:
        for number in range(6):
            admin.signup(f"user{number}")
        assert wait_until(lambda: "stopped" in admin.clouds().frame()["state"].tolist(), 30.0)
        running.end()
    with em.Lab(engine_name, name="served", home=home, idle=None) as lab:
        locked = [row["user"] for row in lab.registry.run("SELECT user FROM audit WHERE action = ?", "lock")]
        states = {status.user: status.state for status in lab.controller.clouds().statuses()}
        assert sorted(locked) == [user for user, state in states.items() if state == "stopped"]
    _remove(home, engine_name)


@REAL
def test_what_is_leased_runs_whatever_became_of_the_controller(home: Path, config: Path, engine_name: str) -> None:
    """It was killed, somebody looked at the lab meanwhile, it ended in order."""
    with served(home, config) as first, first.client() as admin:
        for user in ("ann", "bob"):
            admin.signup(user)
        admin.pause("bob")
        admin.lease("ann", 3600.0)
        first.kill()
    command = [sys.executable, "-m", "emlab.cli", "status", "--lab", "served", "--json"]
    looked = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert [json.loads(line)["state"] for line in looked.splitlines()] == ["running", "paused"]
    with served(home, config) as second, second.client() as admin:
        assert [(one.state, one.leases) for one in admin.clouds().statuses()] == [("running", 1), ("paused", 0)]
        second.end()
    with em.Lab(engine_name, name="served", home=home, idle=None) as lab:
        assert lab.controller.status("ann").state == "paused"
    with served(home, config) as third, third.client() as admin:
        assert wait_until(lambda: admin.status("ann").state == "running", 10.0)
        assert [one.leases for one in admin.clouds().statuses()] == [1, 0]
        with pytest.raises(em.errors.InUse):
            admin.pause("ann")
    _remove(home, engine_name)


@pytest.mark.parametrize("engine_name", ["docker"], indirect=True)
def test_the_ancestor_s_configuration_is_served(home: Path, tmp_path: Path, engine_name: str) -> None:
    config, port = tmp_path / "served.json", free_port()
    told = {"controller-ip": "127.0.0.1", "controller-port": port, "tick-period": 60, "pause-ticks": 30}
    config.write_text(json.dumps({**told, "machines": {"10.0.0.1": 2.0}, "endpoints": {"pause": "/pause"}}))
    with served(home, config) as running, running.client() as admin:
        assert running.address.url == f"https://127.0.0.1:{port}"
        assert admin.idle == em.PauseAfter(1800.0)
        assert admin.signup("ann").counts() == {}
        said = running.log.read_text()
        assert "machines: " in said
        assert "endpoints: " in said
    _remove(home, engine_name)


@PROCESS
def test_one_lab_is_served_once_and_a_port_too(lab: Served, config: Path, home: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "emlab.cli", "serve", "--config"]
    port = int(lab.address.url.rpartition(":")[2])
    for where in ([], ["--port", str(port)]):
        twice = subprocess.run([*command, str(config), *where], capture_output=True, text=True, check=False)
        assert twice.returncode == 1
        assert f"in use by process {lab.process.pid}" in twice.stderr
    other = lab_file(tmp_path / "other.toml", "process", {"port": port}, name="other")
    taken = subprocess.run([*command, str(other)], capture_output=True, text=True, check=False)
    assert taken.returncode == 1
    assert f"cannot listen on 127.0.0.1 port {port}" in taken.stderr
    assert not (home / "labs" / "other").exists()


def refused(config: Path) -> str:
    """Why that is not served."""
    command = [sys.executable, "-m", "emlab.cli", "serve", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
    return done.stderr


@pytest.mark.parametrize(
    ("serve", "said"),
    [
        ({"host": "0.0.0.0", "tls": False}, "plain HTTP is for this host only"),
        ({"certificate": "x.pem"}, "a certificate comes with its key"),
        ({"certificate": "x.pem", "key": "x.key"}, "no certificate with its key"),
        ({"signup": "everyone"}, "signup"),
        ({"port": 70000}, "port"),
        ({"requests_per_s": math.inf}, "requests_per_s"),
        ({"colour": "blue"}, "colour"),
    ],
)
def test_what_cannot_be_served_is_said_and_nothing_is_left(
    serve: dict[str, object], said: str, home: Path, tmp_path: Path
) -> None:
    assert said in refused(lab_file(tmp_path / "lab.toml", "process", serve, keep=True))
    assert list(home.rglob("*.sqlite")) == []


def test_a_lab_that_is_served_has_a_name(home: Path, tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text('engine = "memory"\n[serve]\nport = 0')
    assert "has no name" in refused(file)


def test_who_still_sends_when_the_service_ends_is_told_so(home: Path, tmp_path: Path) -> None:
    config = lab_file(tmp_path / "lab.toml", "memory", {"tls": False}, keep=False)
    with served(home, config) as running:
        host, _, port = running.address.url.removeprefix("http://").partition(":")
        auth = f"Authorization: Bearer {running.admin_token}"
        head = ["POST /signup HTTP/1.1", "Host: h", auth, "Content-Length: 1000000", "Expect: 100-continue", "", ""]
        with socket.create_connection((host, int(port)), timeout=30) as line:
            line.sendall("\r\n".join(head).encode())
            assert line.recv(1 << 16).startswith(b"HTTP/1.1 100 ")  # it waits for the body
            line.sendall(b" " * 200_000)  # which earns some seconds
            running.end()
            answer = rest(line)
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"the service ends" in answer
        assert "Traceback" not in running.log.read_text()


def test_a_given_certificate_is_shown(home: Path, tmp_path: Path) -> None:
    given = tls.private(tmp_path / "elsewhere", ["127.0.0.1"])  # and not for localhost
    names = {"certificate": str(given.chain), "key": str(given.key)}
    config = lab_file(tmp_path / "lab.toml", "memory", names, keep=False)
    with served(home, config) as running:
        assert running.address.ca is None
        with ControllerClient(running.address.url, running.admin_token, ca=given.ca) as client:
            assert client.me().kind == "admin"
        other = running.address.url.replace("127.0.0.1", "localhost")
        with (
            ControllerClient(other, running.admin_token, ca=given.ca) as client,
            pytest.raises(Unreachable, match="its certificate is for other names"),
        ):
            client.me()
        with kept.controller_of("served") as client:  # who is on this host knows the certificate itself
            assert client.me().kind == "admin"
        with (
            ControllerClient(running.address.url, running.admin_token, fingerprint="00" * 32) as client,
            pytest.raises(Unreachable, match="another certificate"),
        ):
            client.me()
    assert list((home / "labs").iterdir()) == []


@REAL
def test_a_phone_on_this_host_uploads_over_plain_http_to_a_cloud_that_sleeps(
    home: Path, tmp_path: Path, engine_name: str
) -> None:
    config = lab_file(tmp_path / "lab.toml", engine_name, {"tls": False, "signup": "open"})
    with served(home, config) as running:
        with ControllerClient(running.address.url) as anyone:
            ann = anyone.signup("ann", key=WORDS)
            ann.pause()
        assert running.address.url.startswith("http://127.0.0.1:")
        raw = {
            "metadata": {"key": KEY, "platform": "android", "type": "message", "write_ts": 1.7e9, "time_zone": "UTC"},
            "data": {"ts": 1.7e9, "latitude": 1.0, "longitude": 2.0},
        }
        line = http.client.HTTPConnection(running.address.url.removeprefix("http://"), timeout=30)
        body = json.dumps({"user": ann.token, "phone_to_server": [raw]})
        with ControllerClient(running.address.url, ann.token) as mine:
            path = f"/{mine.status('ann').cloud}/usercache/put"
            assert mine.status("ann").state == "paused"
        line.request("POST", path, body, {"content-type": "application/json"})
        assert line.getresponse().status == 200
        line.close()
        with ControllerClient(running.address.url, ann.token) as mine:
            assert mine.cloud("ann", token=ann.token).counts() == {KEY: 1}
    _remove(home, engine_name)


@PROCESS
def test_a_revoked_token_opens_nothing_from_that_moment(lab: Served, admin: ControllerClient) -> None:
    ann = admin.signup("ann")
    ann.store([entry(1)])
    with lab.client(ann.token) as mine:
        phone = mine.issue(ttl_s=3600)
        with lab.client(phone.token) as device:
            assert device.cloud("ann", token=phone.token).counts() == {KEY: 1}
            mine.revoke(phone.about.id)
            with pytest.raises(em.NotPermitted):
                device.cloud("ann", token=phone.token)
            with pytest.raises(em.NotPermitted), device.using("ann") as line:
                line.call("counts", dict[str, int], token=phone.token)
        assert mine.cloud("ann", token=ann.token).counts() == {KEY: 1}


@PROCESS
def test_a_file_whose_token_was_revoked_is_named(lab: Served, admin: ControllerClient, home: Path) -> None:
    (token,) = admin.tokens()
    admin.revoke(token.id)
    done = subprocess.run(
        [sys.executable, "-m", "emlab.cli", "status", "--lab", "served"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"the token in {home / 'labs' / 'served' / 'admin.token'} opens nothing any more" in done.stderr


@PROCESS
def test_events_stream_and_figures_are_for_those_who_may(
    lab: Served, admin: ControllerClient, connect: Callable[[], http.client.HTTPSConnection]
) -> None:
    ann, bob = admin.signup("ann"), admin.signup("bob")

    @contextmanager
    def get(path: str, token: str | None, **headers: str) -> Iterator[http.client.HTTPResponse]:
        bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
        with closing(connect()) as line:
            line.request("GET", path, headers={**bearer, **headers})
            with line.getresponse() as response:
                yield response

    for path in ("/events/stream", "/metrics"):
        with get(path, None) as refused:
            assert refused.status == 401
    with get("/metrics", ann.token) as refused:
        assert refused.status == 403
    with get("/events/stream", ann.token) as stream, get("/events/stream", lab.admin_token) as everything:
        assert stream.headers["content-type"].startswith("text/event-stream")
        bob.pause()
        ann.pause()
        seen = _next_event(stream)
        assert (seen["user"], seen["span"]) == ("ann", "pause")
        assert [_next_event(everything)["user"] for _ in range(2)] == ["bob", "ann"]
    with get("/events/stream", ann.token, **{"Last-Event-ID": "0"}) as stream:
        assert _next_event(stream)["span"] in ("start", "signup")
    with get("/events/stream", ann.token, **{"Last-Event-ID": "0"}) as stream:
        one, two = _next_id(stream), _next_id(stream)
    for seen_id, following in ((one, two), (b"0123abcd." + one.partition(b".")[2], one)):  # the other is of another run
        with get("/events/stream", ann.token, **{"Last-Event-ID": seen_id.decode()}) as stream:
            assert _next_id(stream) == following
    second = admin.issue("owner", "ann", key=ann.key)
    with get("/events/stream", second.token) as stream:
        admin.wake("ann")  # which the new token had ended
        assert _next_event(stream)["user"] == "ann"
        admin.revoke(second.about.id)
        admin.wake("ann")
        ended = stream.read()  # which returns, because the stream ends
        assert ended.count(b"data: ") <= 2  # what happened before the token was looked at again
        admin.pause("ann")
    with get("/metrics", lab.admin_token) as figures:
        text = figures.read().decode()
    samples = {(s.name, *s.labels.values()): s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert samples["emlab_clouds", "paused"] == 2
    assert samples["emlab_span_seconds_count", "pause"] == 3
    assert "ann" not in text
    with get("/events/stream", lab.admin_token) as stream, closing(connect()) as kept:
        assert stream.readline().startswith(b": ")
        kept.request("GET", "/health")
        assert kept.getresponse().read()
        lab.process.send_signal(signal.SIGTERM)
        stream.read()  # which returns, because the stream ends
        assert lab.process.wait(60) == 128 + signal.SIGTERM
    assert not {"Traceback", "ERROR"} & set(lab.log.read_text().replace(":", " ").split())


@PROCESS
def test_an_owner_has_so_many_streams_however_many_are_wanted_at_once(
    lab: Served, admin: ControllerClient, connect: Callable[[], http.client.HTTPSConnection]
) -> None:
    ann = admin.signup("ann")

    def wanted() -> Counter[int]:
        with ExitStack() as stack:
            lines = [stack.enter_context(closing(connect())) for _ in range(3 * MAX_STREAMS_EACH)]
            for line in lines:
                line.request("GET", "/events/stream", headers={"Authorization": f"Bearer {ann.token}"})
            return Counter(line.getresponse().status for line in lines)

    assert wanted() == {200: MAX_STREAMS_EACH, 429: 2 * MAX_STREAMS_EACH}
    assert wait_until(lambda: wanted()[200] == MAX_STREAMS_EACH, 20)  # the server has seen that they went


def _next_id(stream: http.client.HTTPResponse) -> bytes:
    while not (line := stream.readline()).startswith(b"id: "):
        assert line, "the stream ended"
    return line.removeprefix(b"id: ").strip()


def _next_event(stream: http.client.HTTPResponse) -> dict[str, object]:
    while True:
        line = stream.readline()
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            event = json.loads(line.removeprefix(b"data: "))
            assert isinstance(event, dict)
            return event


@PROCESS
def test_who_guesses_tokens_is_made_to_wait_and_nobody_else_behind_that_address(
    lab: Served, admin: ControllerClient
) -> None:
    with ControllerClient(lab.address.url, "emo_guess", ca=lab.address.ca) as guesser:
        refused: list[em.EmlabError] = []
        for _ in range(80):
            with pytest.raises(em.EmlabError) as one:
                guesser.me()
            refused.append(one.value)
    assert isinstance(refused[0], em.NotPermitted)
    assert isinstance(refused[-1], TooMany)
    assert "ask again in" in str(refused[-1])
    assert admin.me().kind == "admin"


@PROCESS
def test_a_shell_completes_labs_users_and_tokens(lab: Served, admin: ControllerClient) -> None:
    def completed(*words: str) -> set[str]:
        shell = {
            "_EMLAB_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(["emlab", *words]),
            "COMP_CWORD": str(len(words)),
        }
        command = [Path(sys.executable).with_name("emlab")]
        done = subprocess.run(command, env={**os.environ, **shell}, capture_output=True, text=True, check=False)
        assert done.stderr == ""
        return set(done.stdout.split())

    users = {"ann", "bob"}
    for user in users:
        admin.signup(user)
    assert completed("status", "") >= users
    assert completed("pause", "--lab", "served", "a") == {"ann"}
    assert completed("lock", "no-such") == set()
    assert completed("status", "--lab", "") == {"served"}
    assert completed("clean", "--lab", "s") == {"served"}
    assert completed("token", "revoke", "") >= {token.id for token in admin.tokens()}
    assert completed("pause", "--lab", "nothing", "") == set()


@PROCESS
def test_a_provider_is_registered_from_the_command_line(lab: Served, tmp_path: Path) -> None:
    key, out, runner = em.key.SigningKey(), tmp_path / "planner.token", CliRunner()
    issue = ["token", "issue", "provider", "cli-planner", "--out", str(out)]
    for wrong in (issue, [*issue[:2], "admin", *issue[3:], "--public", key.public]):
        assert "registered with its public key" in str(runner.invoke(cli.app, wrong).exception)
        assert not out.exists()
    assert "64" in str(runner.invoke(cli.app, [*issue, "--public", "x"]).exception)
    assert not out.exists()
    done = runner.invoke(cli.app, [*issue, "--public", key.public, "--json"])
    assert json.loads(done.stdout)["kind"] == "provider"
    with lab.client(out.read_text().strip()) as client:
        assert client.me().subject == "cli-planner"
        assert client.provider("cli-planner", key=key).public == key.public
        assert "not for a token of kind provider" in client._repr_html_()


def test_the_command_line_says_which_emlab_it_is() -> None:
    assert CliRunner().invoke(cli.app, ["--version"]).stdout == f"emlab {version('emlab')}\n"


@PROCESS
def test_who_does_not_trust_the_authority_says_nothing(lab: Served) -> None:
    with (
        ControllerClient(lab.address.url, lab.admin_token) as careful,
        pytest.raises(em.Unreachable, match="nobody here trusts"),
    ):
        careful.me()
    for url in ("http://lab.example:4430", "ftp://127.0.0.1", "https://u:p@127.0.0.1", "https://h/?q=1", ""):
        with pytest.raises(ConfigError):
            ControllerClient(url, lab.admin_token)
    with ControllerClient(lab.address.url, ca=lab.address.ca) as nobody, pytest.raises(NoToken):
        nobody.me()


@REAL
def test_the_command_line_reaches_a_served_and_a_kept_lab(
    home: Path, config: Path, engine_name: str, tmp_path: Path
) -> None:
    def emlab(*words: str, stdin: str = "") -> tuple[int, str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "emlab.cli", *words], input=stdin, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def states() -> dict[str, str]:
        status, out, err = emlab("status", "--json")
        assert status == 0, err
        return {row["user"]: row["state"] for row in map(json.loads, out.splitlines())}

    key = em.Key.random()
    with served(home, config) as running, running.client() as admin:
        for user in ("ann", "bob"):
            admin.signup(user, key=key)
        for words, expected in (
            (("pause", "ann"), {"ann": "paused", "bob": "running"}),
            (("pause", "--all"), {"ann": "paused", "bob": "paused"}),
            (("wake", "ann"), {"ann": "running", "bob": "paused"}),
            (("lock", "ann"), {"ann": "stopped", "bob": "paused"}),
        ):
            assert emlab(*words)[0] == 0
            assert states() == expected
        assert emlab("unlock", "ann", stdin=em.Key.random().raw().hex())[0] == 1
        assert emlab("unlock", "ann", stdin=key.raw().hex())[0] == 0
        assert states() == {"ann": "running", "bob": "paused"}
        status, out, err = emlab("pause", "zoe", "bob")
        assert (status, "zoe: UnknownUser" in err, "bob" in out) == (1, True, True)
        assert emlab("pause")[0] == 1
        assert emlab("wake", "zoe")[:2] == (1, "")
        file = tmp_path / "phone.token"
        issue = ("token", "issue", "owner", "ann", "--out", str(file))
        assert emlab(*issue, stdin=em.Key.random().raw().hex())[0] == 1
        assert not file.exists()
        assert emlab(*issue, stdin=key.raw().hex())[0] == 0
        assert emlab(*issue, stdin=key.raw().hex())[0] == 1
        assert running.client(file.read_text().strip()).me().subject == "ann"
        url, ca = running.address.url, str(running.address.ca)
        status, out, _ = emlab("status", "--json", "--url", url, "--ca", ca, "--token-file", str(file))
        assert [json.loads(line)["user"] for line in out.splitlines()] == ["ann"]
        phone = max(admin.tokens(), key=lambda token: token.created_ts)
        assert emlab("token", "revoke", phone.id)[0] == 0
        file.write_text(admin.signup("kim", key=key).token or "")
        elsewhere = ("--url", url, "--ca", ca, "--token-file", str(file))
        assert emlab("forget", "kim", "--yes", *elsewhere)[:2] == (0, "none\n")  # her own cloud was the only one
        assert "revoked_ts" in emlab("token", "list")[1]
    assert states() == {"ann": "stopped", "bob": "paused"}  # opened for each command, and not served
    for word, state in (("wake", "running"), ("pause", "paused")):
        assert emlab(word, "bob")[0] == 0
        assert states() == {"ann": "stopped", "bob": state}
    assert emlab("forget", "ann", "--yes")[0] == 0
    assert emlab("forget", "bob", stdin="n\n")[0] == 1
    assert states() == {"bob": "paused"}
    status, out, _ = emlab("audit", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["seq"] for row in rows] == sorted({row["seq"] for row in rows})
    assert ("admin command line", "forget", "ann") in [(row["actor"], row["action"], row["user"]) for row in rows]
    _remove(home, engine_name)
