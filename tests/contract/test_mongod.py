"""A real mongod: found, started, watched, stopped; what it never says, and whom it does not outlive."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from pymongo.errors import OperationFailure, PyMongoError

from emlab import mongod as mongods
from emlab.clock import wait_until
from emlab.errors import ConfigError, MongodMissing, StartTimeout, StoreError
from emlab.mongod import MAX_SOCKET_BYTES, SOCKET, Mongod, find_mongod


@pytest.fixture
def run_dir() -> Iterator[Path]:
    """A run directory whose path is short enough for a socket, which pytest's own are not; and in it one for data."""
    folder = Path(tempfile.mkdtemp(prefix="em-"))
    (folder / "db").mkdir()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def server(run_dir: Path, need: Callable[[str], None]) -> Iterator[Mongod]:
    """A mongod that was not started, and is gone at the end."""
    need("mongod")
    server = Mongod(run_dir / "db", run_dir)
    yield server
    server.stop()


def program(folder: Path, text: str) -> Path:
    path = folder / "mongod"
    path.write_text(f"#!/bin/sh\n{text}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


class TestFinding:
    def test_the_one_that_the_environment_names_comes_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        named = program(tmp_path, "exit 0")
        monkeypatch.setenv("EMLAB_MONGOD", str(named))
        assert find_mongod() == named

    def test_a_name_that_leads_nowhere_is_not_passed_over(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("EMLAB_MONGOD", "/nowhere/mongod")
        with pytest.raises(MongodMissing, match=r"EMLAB_MONGOD is /nowhere/mongod, .*pip install 'emlab\[mongod\]'"):
            find_mongod()

    def test_the_one_on_the_path_comes_before_the_wheel(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("EMLAB_MONGOD", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
        found = program(tmp_path, "exit 0")
        assert find_mongod() == found

    def test_the_wheel_is_found_and_its_package_not_imported(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("EMLAB_MONGOD", raising=False)
        monkeypatch.setenv("PATH", "/nowhere")
        try:
            found = find_mongod()
        except MongodMissing as missing:
            pytest.skip(str(missing))
        assert found.parts[-4:] == ("fiftyone", "db", "bin", "mongod")
        assert "fiftyone" not in sys.modules

    def test_none_at_all_says_how_to_get_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("EMLAB_MONGOD", raising=False)
        monkeypatch.setenv("PATH", "/nowhere")
        monkeypatch.setattr(mongods, "_WHEELS", ())
        with pytest.raises(MongodMissing, match=r"^this host has no mongod: install MongoDB .*EMLAB_MONGOD"):
            find_mongod()


class TestLife:
    def test_a_started_one_answers_on_its_socket_alone(self, server: Mongod, run_dir: Path) -> None:
        server.start()
        with server.client() as client:
            assert client.admin.command("ping")["ok"] == 1.0
            assert client.admin.command("getCmdLineOpts")["parsed"]["net"]["bindIp"] == str(run_dir / SOCKET)
        mode = (run_dir / SOCKET).stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
        assert [listen for listen in psutil.Process(server.pid).net_connections() if listen.status == "LISTEN"] == []

    def test_data_survives_stop_and_start(self, server: Mongod) -> None:
        for expected in (1, 2):
            server.start()
            with server.client() as client:
                client["test"]["kept"].insert_one({})
                assert client["test"]["kept"].count_documents({}) == expected
            server.stop()
            assert not server.is_running
            server.stop()

    def test_it_ends_in_order(self, server: Mongod) -> None:
        server.start()
        process = psutil.Process(server.pid)
        server.stop()
        assert server.wait() == 0
        assert not process.is_running()
        assert not (server.data_dir / "mongod.lock").read_bytes()

    def test_a_stopped_process_can_be_stopped_in_order(self, server: Mongod) -> None:
        server.start()
        os.kill(server.pid, signal.SIGSTOP)
        server.stop()
        assert server.wait() == 0

    def test_it_starts_again_after_a_kill(self, server: Mongod) -> None:
        server.start()
        os.kill(server.pid, signal.SIGKILL)
        assert server.wait(10) == -signal.SIGKILL
        server.start()
        assert server.is_running

    def test_its_end_is_told_once(self, run_dir: Path, need: Callable[[str], None]) -> None:
        need("mongod")
        told: list[int] = []
        server = Mongod(run_dir / "db", run_dir, on_death=told.append)
        server.start()
        os.kill(server.pid, signal.SIGKILL)
        assert wait_until(lambda: told == [-signal.SIGKILL], 10)
        server.start()
        server.stop()
        assert told == [-signal.SIGKILL]

    def test_starting_twice_is_refused(self, server: Mongod) -> None:
        server.start()
        with pytest.raises(StoreError, match="is running already"):
            server.start()
        assert server.is_running

    def test_something_is_done_while_it_starts(self, server: Mongod) -> None:
        seen: list[bool] = []
        server.start(meanwhile=lambda: seen.append(server.is_running))
        assert seen == [True]

    def test_what_fails_meanwhile_leaves_no_process(self, server: Mongod) -> None:
        pids: list[int] = []

        def fail() -> None:
            pids.append(server.pid)
            raise RuntimeError("no")

        with pytest.raises(RuntimeError):
            server.start(meanwhile=fail)
        assert not psutil.pid_exists(pids[0])


class TestRefusals:
    def test_a_socket_path_that_is_too_long_is_named(self, tmp_path: Path) -> None:
        fits = tmp_path / ("x" * (MAX_SOCKET_BYTES - len(str(tmp_path)) - len(SOCKET) - 2))
        assert len(str(fits / SOCKET)) == MAX_SOCKET_BYTES
        longer = fits.with_name(fits.name + "é")
        with pytest.raises(ConfigError, match=r"has 102 bytes, but at most 100 .* shorter run directory"):
            Mongod(tmp_path / "db", longer).start()
        assert not (tmp_path / "db").exists()

    def test_the_longest_socket_path_works(self, run_dir: Path, need: Callable[[str], None]) -> None:
        need("mongod")
        folder = run_dir / ("x" * (MAX_SOCKET_BYTES - len(str(run_dir)) - len(SOCKET) - 2))
        folder.mkdir()
        with Mongod(run_dir / "db", folder) as server:
            assert server.is_running

    def test_a_cache_that_mongod_would_refuse_is_named(self, run_dir: Path) -> None:
        with pytest.raises(ConfigError, match="256 MB or more, not 100"):
            Mongod(run_dir / "db", run_dir, cache_mb=100).start()

    def test_data_that_another_one_holds_is_named(self, server: Mongod, run_dir: Path) -> None:
        server.start()
        (run_dir / "2").mkdir()
        with pytest.raises(StoreError, match=r"died at start with status 100; it said:\n.*DBPathInUse"):
            Mongod(run_dir / "db", run_dir / "2").start()
        with server.client() as client:
            client.admin.command("ping")

    def test_a_data_directory_that_is_not_there_is_named_and_not_made(
        self, run_dir: Path, need: Callable[[str], None]
    ) -> None:
        need("mongod")
        with pytest.raises(StoreError, match=r"cannot use .*/a: No such file or directory$"):
            Mongod(run_dir / "a", run_dir).start()
        assert not (run_dir / "a").exists()

    def test_a_program_that_ends_is_told_at_once_with_its_words(self, run_dir: Path) -> None:
        server = Mongod(run_dir / "db", run_dir, program=program(run_dir, "echo no such option; exit 2"))
        with pytest.raises(StoreError, match=r"died at start with status 2; it said:\nno such option$"):
            server.start(timeout_s=60)

    def test_a_program_that_never_answers_is_killed(self, run_dir: Path) -> None:
        server = Mongod(run_dir / "db", run_dir, program=program(run_dir, "echo thinking; exec sleep 600"))
        with pytest.raises(StartTimeout, match=r"did not answer within 0.3 s; it said:\nthinking$"):
            server.start(timeout_s=0.3)
        assert not server.is_running

    def test_another_thread_than_the_main_one_is_refused(self, server: Mongod) -> None:
        caught: list[str] = []

        def start() -> None:
            try:
                server.start()
            except ConfigError as exc:
                caught.append(str(exc))

        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
        assert caught == ["start mongod from the main thread: it ends with the thread that started it"]

    def test_before_its_start_it_has_no_pid(self, run_dir: Path) -> None:
        with pytest.raises(StoreError, match="was not started"):
            _ = Mongod(run_dir / "db", run_dir).pid


PARENT = """
import sys, threading
from pathlib import Path
from emlab.mongod import Mongod
server = Mongod(Path(sys.argv[1]) / "db", Path(sys.argv[1]))
server.start()
print(server.pid, flush=True)
threading.Event().wait()
"""


class TestFamily:
    def test_it_stays_in_its_parents_session_and_dies_with_it(self, run_dir: Path, need: Callable[[str], None]) -> None:
        need("mongod")
        with subprocess.Popen(
            [sys.executable, "-c", PARENT, str(run_dir)], stdout=subprocess.PIPE, text=True
        ) as parent:
            assert parent.stdout is not None
            child = psutil.Process(int(parent.stdout.readline()))
            assert os.getsid(child.pid) == os.getsid(parent.pid)
            parent.kill()
            assert wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10)

    def test_it_dies_with_its_parent_even_when_it_is_stopped(self, run_dir: Path, need: Callable[[str], None]) -> None:
        need("mongod")
        with subprocess.Popen(
            [sys.executable, "-c", PARENT, str(run_dir)], stdout=subprocess.PIPE, text=True
        ) as parent:
            assert parent.stdout is not None
            child = psutil.Process(int(parent.stdout.readline()))
            child.suspend()
            parent.kill()
            assert wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 10)

    def test_it_sees_nothing_of_its_parents_environment(self, server: Mongod, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SECRET", "hush")
        server.start()
        assert psutil.Process(server.pid).environ().keys() <= {"LC_ALL", "PATH"}


class TestSilence:
    def test_no_entry_reaches_a_log(self, server: Mongod, run_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
        server.start()
        with server.client() as client:
            kept = client["test"]["kept"]
            kept.create_index([("loc", "2dsphere")])
            kept.insert_many([{"diary": "dear diary", "n": n} for n in range(1000)])
            list(kept.find({"diary": {"$regex": "^d.*y$"}}).sort("diary"))
            with pytest.raises(OperationFailure):
                kept.insert_one({"diary": "dear diary", "loc": "dear diary"})
            with pytest.raises(OperationFailure):
                kept.aggregate([{"$project": {"x": {"$divide": ["$diary", "dear diary"]}}}]).next()
            with pytest.raises(PyMongoError):
                client.admin.command({"dear diary": 1})
        server.stop()
        said = server.tail() + "".join(capfd.readouterr())
        assert "Listening on" in said or "Shutting down" in said
        assert "dear diary" not in said
        files = [path for path in run_dir.rglob("*") if path.is_file() and path.parent != server.data_dir]
        assert [path.name for path in files if path.suffix in (".log", ".txt")] == []

    def test_it_stays_small(self, server: Mongod) -> None:
        server.start()
        with server.client() as client:
            client["test"]["kept"].insert_many([{"n": n, "text": "x" * 500} for n in range(2000)])
        status = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
        anonymous_kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
        assert anonymous_kb < 64 * 1024  # 21 MiB measured; 73 without the flags about threads and sessions
        megabytes = sum(path.stat().st_size for path in server.data_dir.rglob("*") if path.is_file()) / 2**20
        assert megabytes < 32  # a preallocating journal alone has 300
