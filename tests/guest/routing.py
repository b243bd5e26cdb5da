"""Tests that need eCryptfs run in the guest where this kernel has none, and are reported here as if they had run here.

They are ordinary tests, marked `needs("ecryptfs")` or having the parameter "ecryptfs"; a kernel that has eCryptfs runs
them directly. In the guest none may be skipped.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.guest import dockerd, guest

Missing = Mapping[str, Callable[[], str | None]]

REPORTS = "EMLAB_GUEST_REPORTS"  # inside: the file for reports, one JSON document a line
PASSED_ON = ("CI", "EMLAB_MONGOD", "EMLAB_PHONE_DAYS")
LIMIT_S = 900.0  # alone they take 250 s; beside other work on two cores 480 s were seen
MEMORY_MB, DISK_MB = 2048, 4096
LAST_CHARS = 3000


def plugin(config: pytest.Config, missing: Missing) -> Inside | Outside | None:
    """What this session registers: one part inside the guest, the other outside, none where eCryptfs is here."""
    if REPORTS in os.environ:
        return Inside(config, Path(os.environ[REPORTS]))
    return None if missing["ecryptfs"]() is None else Outside(config, missing)


class Inside:
    """Writes each report to the file as soon as there is one, so that none is lost when the guest dies."""

    def __init__(self, config: pytest.Config, file: Path) -> None:
        self._config = config
        self._file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        with self._file.open("a") as file:
            file.write(json.dumps(data) + "\n")


class Outside:
    """Runs all of a file in one guest when the first is due, and those that need Docker, too, in another."""

    def __init__(self, config: pytest.Config, missing: Missing) -> None:
        self._config = config
        self._missing = missing
        self._reports: dict[str, list[pytest.TestReport]] = {}
        self._summary: list[str] = []

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """They come first: so nothing that another test set up has to be torn down between them."""
        for item in filter(belongs_inside, items):
            also = ["mounting"] if "docker" in needs(item) else []  # the image is put on the guest's disk
            item.add_marker(pytest.mark.needs("guest", *also), append=False)
            item.add_marker(pytest.mark.timeout(LIMIT_S + 2 * guest.BOOT_S), append=False)
        items.sort(key=belongs_inside, reverse=True)

    def pytest_runtest_protocol(self, item: pytest.Item) -> bool | None:
        """Reports what happened to the test inside; one that does not belong there or lacks more is left to pytest."""
        if not self._runs_inside(item):
            return None
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        if item.nodeid not in self._reports:
            self._run([other for other in item.session.items if self._in_same_guest(other, item)])
        for report in self._reports[item.nodeid]:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._summary:
            terminalreporter.write_line(line)

    def _runs_inside(self, item: pytest.Item) -> bool:
        others = (needs(item) & self._missing.keys()) - {"ecryptfs"} | {"guest"}
        return belongs_inside(item) and all(self._missing[name]() is None for name in others)

    def _in_same_guest(self, one: pytest.Item, other: pytest.Item) -> bool:
        alike = one.path == other.path and ("docker" in needs(one)) == ("docker" in needs(other))
        return alike and self._runs_inside(one)

    def _run(self, items: list[pytest.Item]) -> None:
        """There are reports of each of these tests."""
        begun = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="em-guest-") as folder:
            said, status = _inside(Path(folder), [item.nodeid for item in items], docker="docker" in needs(items[0]))
            found = self._read(Path(folder) / "reports")
        reports = {item.nodeid: _complete(item, found.get(item.nodeid, []), said) for item in items}
        if status != 0 and not any(report.failed for each in reports.values() for report in each):
            reports[items[-1].nodeid].append(_failure(items[-1], f"pytest ended with {status} in the guest:\n{said}"))
        self._reports |= reports
        self._summary.append(f"{len(items)} tests ran in a guest in {time.monotonic() - begun:.1f} s")

    def _read(self, file: Path) -> dict[str, list[pytest.TestReport]]:
        found: dict[str, list[pytest.TestReport]] = {}
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        for line in lines if not lines or lines[-1].endswith("\n") else lines[:-1]:  # a guest dies within a line, too
            report = self._config.hook.pytest_report_from_serializable(config=self._config, data=json.loads(line))
            found.setdefault(report.nodeid, []).append(_not_skipped(report))
        return found


def needs(item: pytest.Item) -> set[str]:
    """What the test needs: the names of its marks, and its parameters, among which are engines and vaults."""
    parameters = (
        item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
    )
    named = [str(name) for mark in item.iter_markers("needs") for name in mark.args]
    return {*named, *(value for value in parameters if isinstance(value, str))}


def belongs_inside(item: pytest.Item) -> bool:
    """Whether the test needs eCryptfs."""
    return "ecryptfs" in needs(item)


def _inside(shared: Path, tests: list[str], *, docker: bool) -> tuple[str, int | None]:
    """What pytest said about these tests in the guest, and its status (None if the guest did not get so far)."""
    (shared / "tests").write_text("\n".join(tests))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"@{shared / 'tests'}"]
    env = {name: os.environ[name] for name in PASSED_ON if name in os.environ} | {REPORTS: str(shared / "reports")}
    try:
        disk = guest.make_disk(shared / "disk", DISK_MB)
        if docker:
            dockerd.put_image(disk)
            command = [sys.executable, "-m", "tests.guest.dockerd", *command]
        result = guest.run(
            command,
            shared,
            timeout_s=LIMIT_S,
            memory_mb=MEMORY_MB,
            disk=disk,
            env=env,
            modules=(*guest.ECRYPTFS, *guest.DOCKER),
        )
    except Exception as exc:  # whatever it is, these tests fail by it, and not the whole session
        return f"{type(exc).__name__}: {exc}", None
    late = [f"(it was ended after {LIMIT_S:g} s)"] if result.status == guest.TIMED_OUT else []
    return "\n".join([result.stdout[-LAST_CHARS:], result.stderr[-LAST_CHARS:], *late]).strip(), result.status


def _not_skipped(report: pytest.TestReport) -> pytest.TestReport:
    """The report; a skip is a failure."""
    if report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped in the guest, where nothing may be: {report.longreprtext}"
    return report


def _complete(item: pytest.Item, reports: list[pytest.TestReport], said: str) -> list[pytest.TestReport]:
    """The reports of a test; a failure if they do not reach its end."""
    if any(report.when == "teardown" for report in reports):
        return reports
    return [*reports, _failure(item, f"the guest has no result of this test; it said:\n{said}")]


def _failure(item: pytest.Item, why: str) -> pytest.TestReport:
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "call")
