"""The contract of an engine (emlab/engines/base.py), the same tests on memory, processes and Docker."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from emlab import provision
from emlab.ask import new_id
from emlab.clock import wait_until
from emlab.engines import session
from emlab.engines.base import Engine
from emlab.engines.docker import DockerEngine
from emlab.engines.memory import MemoryCloud, MemoryEngine
from emlab.engines.process import STATE_FILE, ProcessEngine
from emlab.engines.rundir import CLOUD_UID, make_run_dir, run_root
from emlab.errors import CloudGone, EmlabError, EngineError, EngineMissing, ImageMissing, StartTimeout, Unreachable
from emlab.key import Key, new_token, token_hash
from emlab.policy import Policy
from emlab.state import CloudSpec, CloudState, Handle
from emlab.wire import problem
from emlab.wire.transport import Reply
from tests.programs import docker_client, programs

PATIENCE_S = 20.0


class HealthyApp:
    """What MemoryEngine serves here: answers health, and refuses to start as the custodian does."""

    def __init__(self, spec: CloudSpec) -> None:
        self._spec = spec

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> Reply | None:
        return None

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        try:
            told = provision.read(self._spec.run_dir)
        except EmlabError as exc:
            return problem.encode(exc)
        return 200, json.dumps({"cloud": told.cloud, "public": told.marker}).encode()


class Bench:
    """One kind of engine on a home of its own, with what a test needs to prepare, look at and hurt its clouds."""

    def __init__(self, name: str, home: Path, image: str | None) -> None:
        self.name = name
        self._home = home
        self._image = image
        self._world: dict[str, MemoryCloud] = {}
        self.secrets: list[str] = []
        self.engine = self.fresh()

    def fresh(self) -> Engine:
        """A new engine object, as a restarted process has it."""
        if self.name == "memory":
            return MemoryEngine(HealthyApp, self._world)
        return ProcessEngine(self._home) if self.name == "process" else DockerEngine(self._home, image=self._image)

    def spec(
        self, user: str = "ann", *, lab: str = "commute", parent: Path | None = None, mounted: bool = False
    ) -> CloudSpec:
        """A cloud whose vault is open (mounted: is a file system of its own), whose custodian is told all it needs."""
        cloud, token = new_id(), new_token("owner")
        parent = self._home / "clouds" / cloud if parent is None else parent
        (parent / "clear").mkdir(parents=True, mode=0o700)
        if mounted:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512m", "none", parent / "clear"], check=True)
        spec = CloudSpec(lab, user, cloud, 1, make_run_dir(self._home, cloud), parent, parent / "clear", memory_mb=512)
        marker = provision.new_marker()
        provision.write_marker(spec.vault_dir, marker)
        provision.write(
            spec.run_dir,
            provision.Provision(
                lab=lab,
                cloud=cloud,
                generation=1,
                owner_tokens=[provision.OwnerToken(token_hash(token))],
                controller=Key.random().derive("controller").hex(),
                policy=Policy.open(),
                marker=marker,
            ),
        )
        self.secrets += [token, token_hash(token), marker]
        return spec

    def health(self, handle: Handle, timeout_s: float = 5.0) -> dict[str, object]:
        transport = self.engine.connect(handle)
        try:
            status, body = transport.send("GET", "/health", headers={}, body=b"", timeout_s=timeout_s)
        finally:
            transport.close()
        assert status == 200, body
        return msgspec.json.decode(body, type=dict[str, object])

    def kill(self, handle: Handle) -> None:
        """The custodian dies as by `kill -9`."""
        if isinstance(self.engine, MemoryEngine):
            self.engine.fail(handle)
        else:
            os.kill(self.processes(handle)["custodian"], signal.SIGKILL)

    def processes(self, handle: Handle) -> dict[str, int]:
        """The pids of the cloud's programs on this host."""
        return programs(self.name, handle)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _inspect(handle: Handle) -> dict[str, object]:
    with docker_client() as client:
        found: dict[str, object] = client.api.inspect_container(handle.ref)
    return found


@pytest.fixture
def bench(engine_name: str, home: Path, request: pytest.FixtureRequest) -> Iterator[Bench]:
    image = request.getfixturevalue("cloud_image") if engine_name == "docker" else None
    bench = Bench(engine_name, home, image)
    yield bench
    for handle in bench.fresh().find():
        bench.engine.remove(handle)


@pytest.fixture
def spec(bench: Bench) -> CloudSpec:
    return bench.spec()


@pytest.fixture
def handle(bench: Bench, spec: CloudSpec) -> Handle:
    return bench.engine.start(spec)


class TestEngine:
    def test_a_started_cloud_runs_and_answers(self, bench: Bench, spec: CloudSpec) -> None:
        handle = bench.engine.start(spec)
        assert bench.engine.state(handle) is CloudState.RUNNING
        assert bench.health(handle)["cloud"] == spec.cloud
        assert (handle.lab, handle.cloud, handle.generation) == ("commute", spec.cloud, 1)
        assert handle.run_dir == spec.run_dir
        assert handle.ref

    def test_starting_a_running_or_paused_cloud_only_finds_it(
        self, bench: Bench, handle: Handle, spec: CloudSpec
    ) -> None:
        assert bench.engine.start(spec).ref == handle.ref
        bench.engine.pause(handle)
        assert bench.engine.start(spec).ref == handle.ref
        assert bench.engine.state(handle) is CloudState.RUNNING

    def test_a_cloud_that_was_never_started_is_absent(self, bench: Bench, spec: CloudSpec) -> None:
        unknown = Handle(spec.lab, spec.cloud, spec.generation, spec.run_dir)
        assert bench.engine.state(unknown) is CloudState.ABSENT
        assert bench.engine.logs(unknown) == ""
        bench.engine.stop(unknown)
        bench.engine.remove(unknown)
        for verb in (bench.engine.pause, bench.engine.resume, bench.engine.stats):
            with pytest.raises(CloudGone, match=spec.cloud):
                verb(unknown)

    def test_a_paused_cloud_answers_nothing_and_a_resumed_one_as_before(self, bench: Bench, handle: Handle) -> None:
        before = bench.health(handle)
        for _ in range(2):  # twice: idempotent
            bench.engine.pause(handle)
            assert bench.engine.state(handle) is CloudState.PAUSED
        with pytest.raises(Unreachable):
            bench.health(handle, timeout_s=0.3)
        for _ in range(2):
            bench.engine.resume(handle)
            assert bench.engine.state(handle) is CloudState.RUNNING
        assert bench.health(handle) == before

    def test_a_paused_cloud_uses_no_cpu(self, bench: Bench, handle: Handle) -> None:
        bench.engine.pause(handle)
        before = bench.engine.stats(handle).cpu_s
        with pytest.raises(Unreachable):  # half a second in which it is even asked
            bench.health(handle, timeout_s=0.5)
        assert bench.engine.stats(handle).cpu_s == before

    def test_a_stopped_cloud_keeps_its_data_and_starts_again(
        self, bench: Bench, handle: Handle, spec: CloudSpec
    ) -> None:
        before = bench.health(handle)
        for _ in range(2):
            bench.engine.stop(handle)
            assert bench.engine.state(handle) is CloudState.STOPPED
        with pytest.raises(Unreachable):
            bench.health(handle, timeout_s=0.5)
        with pytest.raises(EngineError, match=spec.cloud):
            bench.engine.pause(handle)
        assert bench.engine.stats(handle).memory_mb == 0
        again = bench.engine.start(spec)
        assert bench.engine.state(again) is CloudState.RUNNING
        assert bench.health(again)["public"] == before["public"]  # the custodian's key is in its database
        assert bench.engine.find("commute") == [again]

    def test_a_stop_of_a_paused_cloud_closes_its_mongod(self, bench: Bench, handle: Handle, spec: CloudSpec) -> None:
        bench.engine.pause(handle)
        bench.engine.stop(handle)
        assert bench.engine.state(handle) is CloudState.STOPPED
        assert bench.engine.states(spec.lab) == {spec.cloud: CloudState.STOPPED}
        if bench.name != "memory":
            # mongod empties its lock when it closes in order; a full one makes the next start a recovery
            assert (spec.vault_dir / "db" / "mongod.lock").read_bytes() == b""

    @pytest.mark.parametrize("state", ["running", "paused", "stopped", "failed"])
    def test_remove_works_in_every_state_and_leaves_the_data(
        self, bench: Bench, handle: Handle, spec: CloudSpec, state: str
    ) -> None:
        spoil: dict[str, Callable[[Handle], object]] = {
            "running": bench.health,
            "paused": bench.engine.pause,
            "stopped": bench.engine.stop,
            "failed": bench.kill,
        }
        spoil[state](handle)
        assert wait_until(lambda: bench.engine.state(handle).value == state, PATIENCE_S)
        for _ in range(2):
            bench.engine.remove(handle)
            assert bench.engine.state(handle) is CloudState.ABSENT
        assert bench.engine.find() == []
        assert bench.processes(handle) == {}
        assert (spec.vault_dir / provision.MARKER).exists()
        with pytest.raises(CloudGone):
            bench.engine.pause(handle)

    def test_a_killed_custodian_is_a_failed_cloud_that_can_be_started_again(
        self, bench: Bench, handle: Handle, spec: CloudSpec
    ) -> None:
        before = bench.health(handle)
        bench.kill(handle)
        assert wait_until(lambda: bench.engine.state(handle) is CloudState.FAILED, PATIENCE_S)
        assert wait_until(lambda: not bench.processes(handle), PATIENCE_S), bench.processes(handle)
        again = bench.engine.start(spec)
        assert bench.engine.state(again) is CloudState.RUNNING
        assert bench.health(again)["public"] == before["public"]

    def test_a_fresh_engine_finds_the_clouds_of_a_lab(self, bench: Bench, handle: Handle) -> None:
        other = bench.engine.start(bench.spec("bob", lab="leisure"))
        bench.engine.pause(other)
        fresh = bench.fresh()
        assert fresh.find("commute") == [handle]
        assert {found.cloud for found in fresh.find()} == {handle.cloud, other.cloud}
        assert fresh.find("another") == []
        assert [fresh.state(found).value for found in (handle, other)] == ["running", "paused"]
        assert fresh.states("commute") == {handle.cloud: CloudState.RUNNING}
        assert fresh.states("leisure") == {other.cloud: CloudState.PAUSED}
        assert fresh.states("another") == {}
        fresh.resume(other)
        assert bench.engine.state(other) is CloudState.RUNNING

    def test_a_failed_start_says_why_and_leaves_nothing(self, bench: Bench, spec: CloudSpec) -> None:
        _break(spec)
        with pytest.raises(StartTimeout, match=r"(?s)'ann' in lab 'commute'.*provision\.json cannot be read"):
            bench.engine.start(spec)
        assert bench.engine.find() == []
        assert bench.processes(Handle("commute", spec.cloud, 1, spec.run_dir)) == {}

    def test_a_failed_restart_keeps_the_cloud(self, bench: Bench, handle: Handle, spec: CloudSpec) -> None:
        bench.engine.stop(handle)
        _break(spec)
        with pytest.raises(StartTimeout):
            bench.engine.start(spec)
        assert bench.engine.state(handle) in (CloudState.STOPPED, CloudState.FAILED)
        assert bench.engine.find() == [handle]

    def test_eight_clouds_are_paused_and_resumed_at_once(self, bench: Bench) -> None:
        with ThreadPoolExecutor(8) as pool:
            handles = list(pool.map(bench.engine.start, [bench.spec(f"user{number}") for number in range(8)]))
            for _ in range(3):
                list(pool.map(bench.engine.pause, handles))
                assert {bench.engine.state(handle) for handle in handles} == {CloudState.PAUSED}
                list(pool.map(bench.engine.resume, handles))
                assert len({str(health["cloud"]) for health in pool.map(bench.health, handles)}) == 8
            list(pool.map(bench.engine.remove, handles))
        assert bench.engine.find() == []


def _break(spec: CloudSpec) -> None:
    """The custodian is told nonsense."""
    path = spec.run_dir / provision.PROVISION
    path.unlink()
    path.write_text("{}")
    os.chown(path, spec.run_dir.stat().st_uid, spec.run_dir.stat().st_gid)


@pytest.mark.parametrize("engine_name", ["process", "docker"], indirect=True)
class TestRealEngine:
    """What only engines with programs can show."""

    def test_it_measures_memory_and_cpu(self, bench: Bench, handle: Handle) -> None:
        stats = bench.engine.stats(handle)
        assert 10 < stats.memory_mb < 200
        assert 0.1 < stats.cpu_s < 60

    def test_it_shows_the_last_lines_of_the_log(self, bench: Bench, handle: Handle, spec: CloudSpec) -> None:
        bench.engine.stop(handle)
        _break(spec)
        with pytest.raises(StartTimeout):
            bench.engine.start(spec)
        assert "provision.json cannot be read" in bench.engine.logs(handle)
        assert len(bench.engine.logs(handle, lines=1).splitlines()) == 1

    def test_a_start_that_hangs_ends_in_time(
        self, bench: Bench, spec: CloudSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("emlab.engines.base.START_TIMEOUT_S", 0.05)
        with pytest.raises(StartTimeout, match=r"within 0\.05 s"):
            bench.engine.start(spec)
        assert bench.engine.find() == []
        assert bench.processes(Handle("commute", spec.cloud, 1, spec.run_dir)) == {}

    def test_a_restart_that_hangs_leaves_the_cloud_stopped(
        self, bench: Bench, handle: Handle, spec: CloudSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench.engine.stop(handle)
        with monkeypatch.context() as hasty:
            hasty.setattr("emlab.engines.base.START_TIMEOUT_S", 0.05)
            with pytest.raises(StartTimeout):
                bench.engine.start(spec)
        assert bench.engine.state(handle) in (CloudState.STOPPED, CloudState.FAILED)
        (found,) = bench.engine.find()
        assert bench.processes(found) == {}
        assert bench.health(bench.engine.start(spec))["cloud"] == spec.cloud

    def test_no_secret_is_on_a_command_line_or_in_an_environment(self, bench: Bench, handle: Handle) -> None:
        pids = bench.processes(handle)
        assert set(pids) == {"custodian", "mongod"}
        seen = "".join(_command(pid) + Path(f"/proc/{pid}/environ").read_text() for pid in pids.values())
        if bench.name == "docker":
            seen += json.dumps(_inspect(handle))
        assert [secret for secret in bench.secrets if secret in seen] == []

    def test_the_cloud_outlives_the_program_that_started_it(self, bench: Bench, spec: CloudSpec) -> None:
        child = os.fork()
        if child == 0:  # starts the cloud, then dies at once as a killed kernel does
            try:
                bench.fresh().start(spec)
            finally:
                os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(child, 0)
        (found,) = bench.engine.find("commute")
        bench.engine.pause(found)
        bench.engine.resume(found)
        assert bench.health(found)["cloud"] == spec.cloud
        bench.engine.stop(found)
        assert bench.engine.state(found) is CloudState.STOPPED


@pytest.mark.parametrize("engine_name", ["process"], indirect=True)
class TestProcessEngine:
    def test_the_id_of_another_process_is_never_taken_for_the_clouds(self, bench: Bench, handle: Handle) -> None:
        file = handle.run_dir / STATE_FILE
        kept = file.read_text()
        record = json.loads(kept)
        record["session"] |= {"pid": os.getpid(), "started": record["session"]["started"] + 1}
        file.write_text(json.dumps(record))
        assert bench.engine.state(handle) is CloudState.FAILED
        bench.engine.remove(handle)  # kills nothing, above all not this process
        file.write_text(kept)

    def test_a_crash_between_start_and_record_loses_no_process(self, bench: Bench, handle: Handle) -> None:
        file = handle.run_dir / STATE_FILE
        file.write_text(json.dumps(json.loads(file.read_text()) | {"session": None}))
        assert bench.engine.state(handle) is CloudState.RUNNING
        bench.engine.remove(handle)
        assert bench.processes(handle) == {}

    @pytest.mark.parametrize("text", ["", '{"lab":"comm'])
    def test_a_damaged_state_file_hides_neither_its_cloud_nor_the_others(
        self, bench: Bench, handle: Handle, text: str
    ) -> None:
        other = bench.engine.start(bench.spec("bob"))
        (handle.run_dir / STATE_FILE).write_text(text)
        assert {found.cloud for found in bench.engine.find("commute")} == {handle.cloud, other.cloud}
        assert bench.engine.state(handle) is CloudState.RUNNING  # its processes are found without the file
        bench.kill(handle)
        assert wait_until(lambda: bench.engine.state(handle) is CloudState.FAILED, PATIENCE_S)
        (handle.run_dir / provision.PROVISION).unlink()  # now nothing says whose it was
        assert bench.engine.find("commute") == [other]
        (lost,) = set(bench.engine.find()) - {other}
        bench.engine.remove(lost)
        assert bench.engine.find() == [other]

    def test_a_state_file_is_on_the_disk_before_it_has_its_name(
        self, bench: Bench, spec: CloudSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real, synced = os.fsync, set()

        def fsync(fd: int) -> None:
            synced.add(os.fstat(fd).st_ino)
            real(fd)

        monkeypatch.setattr(os, "fsync", fsync)
        handle = bench.engine.start(spec)
        assert (handle.run_dir / STATE_FILE).stat().st_ino in synced

    def test_one_signal_to_the_leader_s_group_reaches_every_process(self, bench: Bench, handle: Handle) -> None:
        ours = session.led_by(int(handle.ref))
        assert ours is not None
        members = session.members(ours)
        assert len(members) >= 2  # the custodian and its mongod
        assert {os.getpgid(one.pid) for one in members} == {ours.pid}
        bench.engine.pause(handle)
        assert {one.state for one in session.members(ours)} == {"T"}
        session.thaw(ours)
        assert "T" not in {one.state for one in session.members(ours)}

    def test_the_log_is_bounded(self, bench: Bench, handle: Handle) -> None:
        log = handle.run_dir / "custodian.log"
        with log.open("a") as file:
            file.write("line\n" * 300_000 + "last\n")
        bench.engine.state(handle)
        assert log.stat().st_size <= 1 << 18
        assert bench.engine.logs(handle, 1) == "last"


def test_a_session_with_a_process_that_does_not_stop_runs_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # the parent of a spawn waits in the kernel until the child has opened its files: here until there is a writer
    spawn = (
        f"import os; os.posix_spawn('/bin/sleep', ['sleep', '60'], {{}}, file_actions=[(0, 0, {str(fifo)!r}, 0, 0)])"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"{spawn}\nimport time; time.sleep(60)"], start_new_session=True
    ) as leader:
        ours = session.led_by(leader.pid)
        assert ours is not None
        try:
            assert wait_until(lambda: [one.state for one in session.members(ours)] == ["D", "S"], PATIENCE_S)
            monkeypatch.setattr(session, "FREEZE_GRACE_S", 0.2)
            with pytest.raises(EngineError, match="do not stop"):
                session.freeze(ours)
            writer = os.open(fifo, os.O_RDWR)  # held: the child, thawed, may be on its way back into its open()
            try:
                assert wait_until(lambda: [one.state for one in session.members(ours)] == ["S", "S"], PATIENCE_S)
            finally:
                os.close(writer)
        finally:
            session.kill(ours)


def test_only_this_user_enters_the_run_directories(home: Path, tmp_path: Path) -> None:
    root = run_root(home)
    assert root.stat().st_mode & 0o777 == 0o700
    root.rmdir()
    root.symlink_to(tmp_path)
    with pytest.raises(EmlabError, match="not a folder of ours"):
        make_run_dir(home, new_id())
    root.unlink()


@pytest.mark.parametrize("engine_name", ["docker"], indirect=True)
class TestDockerEngine:
    def test_a_container_has_no_rights_no_network_and_hard_limits(
        self, bench: Bench, handle: Handle, spec: CloudSpec
    ) -> None:
        found = msgspec.convert(_inspect(handle), Inspected)
        host = found.host_config
        uid = CLOUD_UID if os.geteuid() == 0 else os.geteuid()
        assert found.config.user.split(":")[0] == str(uid)
        assert (host.network_mode, host.ipc_mode, host.privileged, host.readonly_rootfs) == (
            "none",
            "none",
            False,
            True,
        )
        assert (host.cap_drop, host.cap_add, host.security_opt) == (["ALL"], None, ["no-new-privileges:true"])
        assert (host.memory, host.memory_swap) == (512 << 20, 512 << 20)
        assert (host.pids_limit, host.restart_policy.name) == (256, "no")
        assert 0 < host.nano_cpus <= 2e9
        assert host.log_config.config == {"max-size": "1m", "max-file": "2"}
        assert [(limit.name, limit.hard) for limit in host.ulimits] == [("core", 0)]
        assert "noexec" in host.tmpfs["/tmp"]
        assert {mount.source: mount.destination for mount in found.mounts} == {
            str(spec.run_dir): "/run/emlab",
            str(spec.vault_parent): "/vault",
        }
        assert spec.run_dir.stat().st_uid == spec.vault_dir.stat().st_uid == uid

    def test_the_kernel_confirms_what_docker_says(self, bench: Bench, handle: Handle) -> None:
        status = Path(f"/proc/{bench.processes(handle)['mongod']}/status").read_text()
        lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert {lines[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (lines["NoNewPrivs"], lines["Seccomp"]) == ("1", "2")
        assert "0" not in lines["Uid"].split()

    def test_an_image_that_is_not_there_is_named(self, bench: Bench, home: Path, spec: CloudSpec) -> None:
        with pytest.raises(ImageMissing, match="emlab images build"):
            DockerEngine(home, image="emlab/cloud:000000000000").start(spec)
        assert bench.engine.find() == []

    def test_another_home_sees_and_touches_none_of_it(self, bench: Bench, handle: Handle, tmp_path: Path) -> None:
        assert DockerEngine(tmp_path / "elsewhere").find() == []
        assert bench.engine.find() == [handle]

    @pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
    def test_a_vault_cannot_be_unmounted_behind_a_paused_cloud(self, shared_mount: Path, bench: Bench) -> None:
        spec = bench.spec(parent=shared_mount / "vault", mounted=True)
        handle = bench.engine.start(spec)
        bench.engine.pause(handle)
        assert _umount(spec.vault_dir) != 0  # busy; with Docker's default propagation it succeeds and leaks the vault
        bench.engine.resume(handle)
        bench.engine.stop(handle)
        assert _umount(spec.vault_dir) == 0
        bench.engine.remove(handle)


@pytest.mark.parametrize(
    ("address", "advice"),
    [("unix:///nowhere/docker.sock", "apt-get install docker.io"), ("tcp://10.0.0.1:2376", "unset DOCKER_HOST")],
)
def test_a_host_without_docker_is_told_how_to_get_it(
    address: str, advice: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    assert advice in (DockerEngine.missing() or "")
    with pytest.raises(EngineMissing, match=advice):
        DockerEngine(tmp_path).find()


@pytest.fixture
def shared_mount(tmp_path: Path) -> Iterator[Path]:
    """A folder whose mounts are passed on, as the lab makes its mount root."""
    root = tmp_path / "mounts"
    root.mkdir()
    subprocess.run(["mount", "--bind", root, root], check=True)
    subprocess.run(["mount", "--make-rshared", root], check=True)
    yield root
    subprocess.run(["umount", "--recursive", root], check=True)


def _umount(folder: Path) -> int:
    return subprocess.run(["umount", folder], check=False, capture_output=True).returncode


class Named(msgspec.Struct, rename="pascal"):
    name: str
    hard: int = 0


class LogConfig(msgspec.Struct, rename="pascal"):
    config: dict[str, str]


class HostConfig(msgspec.Struct, rename="pascal"):
    network_mode: str
    ipc_mode: str
    privileged: bool
    readonly_rootfs: bool
    cap_drop: list[str] | None
    cap_add: list[str] | None
    security_opt: list[str]
    memory: int
    memory_swap: int
    pids_limit: int
    nano_cpus: int
    restart_policy: Named
    log_config: LogConfig
    ulimits: list[Named]
    tmpfs: dict[str, str]


class Config(msgspec.Struct, rename="pascal"):
    user: str


class Mount(msgspec.Struct, rename="pascal"):
    source: str
    destination: str


class Inspected(msgspec.Struct, rename="pascal"):
    """What `docker inspect` says of a container's rights."""

    config: Config
    host_config: HostConfig
    mounts: list[Mount]
