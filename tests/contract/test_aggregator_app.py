"""The aggregator as a program: whom it believes, what it keeps, and that it dies without giving fresh noise."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

import emlab as em
from emlab.aggregate import Release
from emlab.apps import aggregator as program
from emlab.apps.listening import Address
from emlab.clock import wait_until
from emlab.errors import BadReply, ConfigError, EmlabError, NotPermitted, TooFewUsers, Unreachable
from emlab.key import SealingKey, SigningKey
from emlab.provider import Provider
from emlab.releases import KEYS, Releases
from emlab.remote import ControllerClient
from emlab.remote_aggregator import AggregatorClient
from emlab.wire import problem
from emlab.wire.aggregation import Releasing
from emlab.wire.table import MAX_BODY_BYTES
from emlab.wire.transport import HttpTransport
from tests.e2e.aggregating import Aggregating, aggregating, asked, dying, settings
from tests.e2e.served import Served, lab_file, served

USERS = 3
NOWHERE = Address("https://lab.example", None, 0)
replace = msgspec.structs.replace


def lab_with_people(home: Path, config: Path) -> Iterator[Served]:
    home.mkdir(mode=0o700, exist_ok=True)
    with served(home, lab_file(config, "memory"), EMLAB_HOME=str(home)) as running:
        with running.client() as admin:
            for number in range(USERS):
                admin.signup(f"user{number}", policy=em.Policy.open())
        yield running


@pytest.fixture
def lab(home: Path, tmp_path: Path) -> Iterator[Served]:
    yield from lab_with_people(home, tmp_path / "lab.toml")


@pytest.fixture
def admin(lab: Served) -> Iterator[ControllerClient]:
    with lab.client() as client:
        yield client


@pytest.fixture
def config(lab: Served, admin: ControllerClient, tmp_path: Path) -> Path:
    return settings(tmp_path / "aggregator.toml", lab.address, admin.issue("aggregator", "trust").token)


@pytest.fixture
def aggregator(config: Path) -> Iterator[Aggregating]:
    with aggregating(config) as running:
        yield running


def bring(to: Aggregating, request: Releasing) -> bytes:
    """The very bytes of the release. Raises what the aggregator says."""
    assert to.address is not None
    transport = HttpTransport(to.address.url, ca=Path(to.address.ca or ""))
    try:
        status, body = transport.send(
            "POST", "/releases", headers={}, body=msgspec.json.encode(request), timeout_s=60.0
        )
    finally:
        transport.close()
    if status != 200:
        raise problem.decode(status, body)
    return body


def provider_of(admin: ControllerClient, client: AggregatorClient, name: str = "planner") -> Provider:
    return admin.register_provider(name, aggregator=client)


def test_a_provider_asks_through_it_and_the_release_says_whose_it_is(
    admin: ControllerClient, aggregator: Aggregating
) -> None:
    with aggregator.client() as client:
        planner = provider_of(admin, client)
        release = planner.ask(em.CountUsers(None, 0.0, 2e9), epsilon=1.0, min_users=USERS, progress=False)
        assert (release.asked, release.answered, release.failed) == (USERS, USERS, 0)
        assert release.trust == client.about.trust
        assert "Example trust" in release.trust
        assert client.address in release.trust
        assert client.signing_public in release.trust
        assert release.receipt is not None
        assert release.receipt.aggregator == client.signing_public


def test_a_local_ask_through_it_trusts_nobody(admin: ControllerClient, aggregator: Aggregating) -> None:
    with aggregator.client() as client:
        planner = provider_of(admin, client)
        query = em.CountUsers(None, 0.0, 2e9)
        release = planner.ask(query, epsilon=1.0, model="local", min_users=USERS, progress=False)
    assert (release.answered, release.model) == (USERS, "local")
    assert "nobody" in release.trust


def test_its_keys_outlive_it_and_only_its_user_can_read_them(config: Path, tmp_path: Path) -> None:
    about = []
    for _ in range(2):
        with aggregating(config) as running, running.client() as client:
            about.append((client.public, client.signing_public))
    assert about[0] == about[1]
    folder = config.with_suffix(".folder")
    assert (folder.stat().st_mode & 0o777, (folder / KEYS).stat().st_mode & 0o777) == (0o700, 0o600)
    (folder / KEYS).chmod(0o640)
    assert "chmod 600" in refused(config)


def refused(config: Path) -> str:
    """What an aggregator says that does not start."""
    with pytest.raises(ConfigError) as caught:
        program.serve(program.load(config), lambda text: None)
    return str(caught.value)


def test_what_does_not_start_says_so_in_a_sentence(tmp_path: Path) -> None:
    config = settings(tmp_path / "bad.toml", NOWHERE, "emg_x")
    config.with_suffix(".token").unlink()
    command = [sys.executable, "-m", "emlab.cli", "aggregator", "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"emlab: {config.with_suffix('.token')} cannot be read: No such file or directory\n"


def test_a_folder_belongs_to_one_process(config: Path, aggregator: Aggregating) -> None:
    assert "in use by another aggregator" in refused(config)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"host": "0.0.0.0", "tls": False}, "plain HTTP is for this host only"),
        ({"controller": "http://lab.example:4430"}, "plain http is for this host only"),
        ({"certificate": "only.pem"}, "comes with its key"),
        ({"operator": ""}, "operator"),
        ({"nonsense": 1}, "nonsense"),
        ({"port": 70_000}, "port"),
        ({"token_file": "nowhere"}, "nowhere"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_a_sentence(
    tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    assert said in refused(settings(tmp_path / "bad.toml", NOWHERE, "emg_x", **changed))


def test_a_token_that_others_can_read_is_refused(tmp_path: Path) -> None:
    config = settings(tmp_path / "bad.toml", NOWHERE, "emg_x")
    config.with_suffix(".token").chmod(0o644)
    assert "others can read the token" in refused(config)


def test_killed_after_a_release_it_gives_the_same_bytes_again(
    admin: ControllerClient, config: Path, aggregator: Aggregating
) -> None:
    with aggregator.client() as client:
        request = asked(admin, provider_of(admin, client), client)
    first = bring(aggregator, request)
    aggregator.kill()
    with aggregating(config) as again:
        fewer = replace(request, outcomes=request.outcomes[:1])
        # a scale of 1000: two draws agree with probability 0.0005
        assert [bring(again, request), bring(again, fewer)] == [first, first]


@pytest.mark.parametrize("when", ["kept", "drawn"])
def test_killed_between_receiving_and_answering_it_releases_once(
    admin: ControllerClient, config: Path, when: str
) -> None:
    with aggregating(config, dying(when)) as first, first.client() as client:
        request = asked(admin, provider_of(admin, client), client)
        with pytest.raises(Unreachable):
            bring(first, request)
        assert first.process.wait(10) == -9
    releases = Releases(config.with_suffix(".folder"))
    releases.open()
    kept = releases._run("SELECT value FROM releases")
    releases.close()
    assert len(kept) == (when == "kept")
    with aggregating(config) as again:
        found = bring(again, request)
        assert msgspec.json.decode(found, type=Release).answered == USERS
        assert all(found == bytes(row[0]) for row in kept)
        assert bring(again, request) == found


def test_asked_by_many_at_once_all_get_the_same_bytes(admin: ControllerClient, aggregator: Aggregating) -> None:
    with aggregator.client() as client:
        request = asked(admin, provider_of(admin, client), client)
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: bring(aggregator, request), range(16)))) == 1


def test_two_providers_have_releases_of_their_own_and_not_each_other_s(
    admin: ControllerClient, aggregator: Aggregating
) -> None:
    with aggregator.client() as client:
        planner, other = (provider_of(admin, client, name) for name in ("planner", "other"))
        mine, theirs = (asked(admin, provider, client) for provider in (planner, other))
        for stolen in (
            replace(theirs, outcomes=mine.outcomes),  # which are of clouds that it knows by other names
            replace(mine, ask=replace(mine.ask, provider=other.public)),
            replace(mine, ask=replace(mine.ask, min_users=2)),
            replace(mine, signature=theirs.signature),
        ):
            with pytest.raises((NotPermitted, TooFewUsers)):
                bring(aggregator, stolen)
        first, second = (client.release(one.ask, one.outcomes, signature=one.signature) for one in (mine, theirs))
    assert first.receipt is not None
    assert second.receipt is not None
    assert {one.stub.cloud for one in first.receipt.answers}.isdisjoint(
        one.stub.cloud for one in second.receipt.answers
    )


def test_a_provider_cannot_make_a_group_larger_than_it_is(admin: ControllerClient, aggregator: Aggregating) -> None:
    with aggregator.client() as client:
        request = asked(admin, provider_of(admin, client), client, min_users=USERS + 1)
        own = asked(admin, provider_of(admin, client, "other"), client).outcomes
    for outcomes in (request.outcomes, request.outcomes * 3, request.outcomes + own):
        with pytest.raises(TooFewUsers, match=f"{USERS} of"):
            bring(aggregator, replace(request, outcomes=outcomes))


def test_a_provider_that_the_controller_does_not_know_gets_nothing(
    admin: ControllerClient, aggregator: Aggregating
) -> None:
    with aggregator.client() as client:
        planner = provider_of(admin, client)
        stranger = Provider(admin, "stranger", key=SigningKey(), token=planner.token, aggregator=client)
        request = asked(admin, planner, client)
        foreign = replace(request.ask, provider=stranger.public, provider_name="stranger")
        with pytest.raises(NotPermitted, match="not registered"):
            bring(aggregator, Releasing(ask=foreign, signature=sign(foreign, stranger), outcomes=request.outcomes))


def sign(ask: object, provider: Provider) -> bytes:
    from emlab import ask as asking

    assert isinstance(ask, asking.Ask)
    return asking.sign(ask, provider.key)


def test_an_expired_ask_is_not_released(admin: ControllerClient, aggregator: Aggregating) -> None:
    with aggregator.client() as client:
        request = asked(admin, provider_of(admin, client), client, lasts_s=3.0)
        assert wait_until(lambda: outcome(aggregator, request) == "NotPermitted", 10)


def outcome(aggregator: Aggregating, request: Releasing) -> str:
    try:
        bring(aggregator, request)
    except EmlabError as exc:
        return exc.kind
    return "released"


def test_with_a_token_that_opens_nothing_nothing_is_released_until_it_has_a_good_one(
    lab: Served, admin: ControllerClient, tmp_path: Path
) -> None:
    path = tmp_path / "aggregator.toml"
    good = admin.issue("aggregator", "trust")
    with (
        aggregating(settings(path, lab.address, good.token)) as running,
        running.client() as client,
    ):
        planner = provider_of(admin, client)
        request = asked(admin, planner, client)
        admin.revoke(good.about.id)
        with pytest.raises(NotPermitted, match="token"):
            bring(running, request)
    for token in (planner.token, lab.admin_token):
        with (
            aggregating(settings(path, lab.address, token)) as running,
            pytest.raises(NotPermitted, match="kind"),
        ):
            bring(running, request)
    with aggregating(settings(path, lab.address, admin.issue("aggregator", "trust").token)) as running:
        assert msgspec.json.decode(bring(running, request), type=Release).answered == USERS


def test_its_token_reads_the_directory_and_nothing_else(lab: Served, admin: ControllerClient) -> None:
    token = admin.issue("aggregator", "trust").token
    with lab.client(token) as client:
        assert (client.me().kind, client.me().cloud) == ("aggregator", None)
        reads = (client.clouds, client.audit, client.tokens, client.issue)
        for call in (*reads, lambda: client.pause("user0"), lambda: client.register_provider("evil")):
            with pytest.raises(NotPermitted, match="kind aggregator"):
                call()


def test_while_the_controller_is_away_nothing_is_released_and_the_ask_can_be_brought_again(
    home: Path, tmp_path: Path
) -> None:
    path = tmp_path / "lab.toml"
    home.mkdir(mode=0o700, exist_ok=True)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with served(home, lab_file(path, "memory", {"port": port}), EMLAB_HOME=str(home)) as first, first.client() as admin:
        admin.signup("user0", policy=em.Policy.open())
        token = admin.issue("aggregator", "trust").token
        with (
            aggregating(settings(tmp_path / "aggregator.toml", first.address, token)) as running,
            running.client() as client,
        ):
            request = asked(admin, provider_of(admin, client), client)
            first.kill()
            with pytest.raises(Unreachable):
                client.release(request.ask, request.outcomes, signature=request.signature)
            with served(home, path, EMLAB_HOME=str(home)):
                assert client.release(request.ask, request.outcomes, signature=request.signature).answered == 1


def test_the_answers_of_clouds_that_its_controller_does_not_have_are_not_counted(
    admin: ControllerClient, aggregator: Aggregating, tmp_path: Path
) -> None:
    with aggregator.client() as client:
        planner = provider_of(admin, client)
        request = asked(admin, planner, client)
    for other in lab_with_people(tmp_path / "other", tmp_path / "other.toml"):
        with other.client() as elsewhere:
            elsewhere.register_provider("planner", key=planner.key)
            token = elsewhere.issue("aggregator", "trust").token
        # the same keys, as if the same aggregator had been pointed at another lab
        aggregator.end()
        with (
            aggregating(settings(tmp_path / "aggregator.toml", other.address, token)) as running,
            pytest.raises(TooFewUsers, match=f"0 of {USERS}.*UnknownCloud {USERS}"),
        ):
            bring(running, request)


def test_a_client_that_trusts_another_key_sends_it_nothing(admin: ControllerClient, aggregator: Aggregating) -> None:
    with aggregator.client(public=SealingKey().public) as client, pytest.raises(NotPermitted, match="another key"):
        provider_of(admin, client).ask(em.CountUsers(None, 0.0, 2e9), epsilon=1.0, min_users=1, progress=False)


def test_a_release_that_was_changed_on_the_way_is_refused(admin: ControllerClient, aggregator: Aggregating) -> None:
    with aggregator.client() as client:
        request = asked(admin, provider_of(admin, client), client)
        raw = bring(aggregator, request)
        about = client.about

        class Between:
            def __init__(self, reply: bytes) -> None:
                self.reply = reply

            def send(self, method: str, path: str, **_: object) -> tuple[int, bytes]:
                return 200, msgspec.json.encode(about) if path == "/about" else self.reply

            def close(self) -> None:
                pass

        release = msgspec.json.decode(raw, type=Release)
        other = replace(release, values=(release.values[0] + 1,))
        unsigned = replace(release, receipt=None)
        for changed in (other, unsigned, replace(release, ask_id="0" * 32)):
            tampered = AggregatorClient("https://aggregator.example", transport=Between(msgspec.json.encode(changed)))
            with pytest.raises(BadReply):
                tampered.release(request.ask, request.outcomes, signature=request.signature)
        honest = AggregatorClient("https://aggregator.example", transport=Between(raw))
        assert honest.release(request.ask, request.outcomes, signature=request.signature) == release


def test_what_is_no_request_is_refused_and_it_lives_on(aggregator: Aggregating) -> None:
    nobody = b'{"ask": null, "signature": "", "outcomes": []}'
    many = b'{"outcomes": [' + b"{}," * 100_000 + b"{}]}"
    for body in (b"", b"{}", b"[" * 100_000, b"\xff\xfe", nobody, many):
        assert send(aggregator, body) == (400, "BadQuery")
    with aggregator.client() as client:
        assert len(client.public) == 64


def send(to: Aggregating, body: bytes, **headers: str) -> tuple[int, str]:
    assert to.address is not None
    transport = HttpTransport(to.address.url, ca=Path(to.address.ca or ""))
    try:
        status, reply = transport.send("POST", "/releases", headers=headers, body=body, timeout_s=60.0)
    finally:
        transport.close()
    return status, problem.decode(status, reply).kind


def test_bodies_are_bounded_tokens_are_not_taken_and_many_requests_are_put_off(aggregator: Aggregating) -> None:
    assert send(aggregator, b"0" * (MAX_BODY_BYTES + 1))[0] == 400
    assert send(aggregator, b"{}", authorization="Bearer emp_x") == (403, "NotPermitted")
    with ThreadPoolExecutor(8) as pool:
        kinds = set(pool.map(lambda _: send(aggregator, b"{}"), range(400)))
    assert (429, "TooMany") in kinds


def test_paths_in_its_settings_are_relative_to_their_file(tmp_path: Path) -> None:
    sample = Path(__file__).parents[2] / "conf" / "aggregator.toml"
    chosen = program.load(sample)
    assert chosen.folder == str(sample.parent / "aggregator")
    assert (chosen.ca, chosen.port) == ("", 4431)
    with pytest.raises(ConfigError, match="cannot be read"):
        program.load(tmp_path / "nothing.toml")


def test_releases_are_kept_before_they_are_given_and_only_the_first_counts(tmp_path: Path) -> None:
    for _ in range(2):
        releases = Releases(tmp_path / "folder")
        releases.open()
        assert releases.once("a", lambda: os.urandom(8)) == releases.once("a", lambda: b"other")
        first = releases.once("a", lambda: b"third")
        releases.close()
        with pytest.raises(ConfigError, match="closed"):
            releases.once("a", lambda: b"")
    assert len(first) == 8
