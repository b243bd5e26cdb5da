"""Intake in real clouds: on every engine, as a process that comes and goes, and after it was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

import emlab as em
from emlab import plots
from emlab.clock import wait_until
from emlab.errors import EmlabError, NotPermitted, StoreError
from emlab.intake.report import IntakeReport
from tests.e2e.clouds import gone, kill, pid_of, reaches

HEAVY = ("pandas", "numpy", "shapely", "docker", "matplotlib", "opendp")


@pytest.fixture
def person() -> em.Person:
    return em.Simulator(1, 2, seed=5).person(0)


def test_a_person_s_days_become_a_diary(engine_name: str, home: Path, person: em.Person) -> None:
    with em.Lab(engine_name) as lab:
        cloud = lab.controller.signup(person.name)
        cloud.store(person.entries())
        report = cloud.intake()
        trips, sections, places = cloud.trips(), cloud.sections(), cloud.places()
        assert len(trips) == report.trips > 2
        assert len(sections) == report.sections >= len(trips)
        assert set(sections["trip"]) == set(trips["trip"])
        assert sections.groupby("trip")["distance_m"].sum().max() > 500
        assert (trips["end_ts"] > trips["start_ts"]).all()
        assert trips.index.is_monotonic_increasing
        assert {"start_local", "mode"} <= set(trips)
        assert places["exit_ts"].iloc[:-1].notna().all()
        again = cloud.intake()
        assert (again.written, again.removed) == (0, 0)
        track = cloud.entries("analysis/recreated_location")
        assert track["section"].map(lambda link: link["$oid"]).isin(sections["section"]).all()
        for figure in (plots.trip_map(sections, places, track), plots.days(sections, places)):
            assert figure.axes[0].get_legend() is not None


def test_intake_of_an_empty_cloud_finds_nothing(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name) as lab:
        cloud = lab.controller.signup("ann")
        report = cloud.intake()
        assert (report.trips, report.written) == (0, 0)
        assert [len(cloud.trips()), len(cloud.sections()), len(cloud.places())] == [0, 0, 0]


def test_only_the_owner_may_run_it(engine_name: str, home: Path) -> None:
    with em.Lab(engine_name) as lab:
        lab.controller.signup("ann")
        with pytest.raises(NotPermitted):
            lab.controller.cloud("ann").intake()


def test_the_custodian_itself_loads_nothing_heavy() -> None:
    code = f"import emlab.apps.custodian as c, sys; c.import_rest(); print([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("engine_name", ["process"], indirect=True)
def test_a_killed_job_is_told_and_the_next_one_ends_its_work(engine_name: str, home: Path, person: em.Person) -> None:
    with em.Lab(engine_name) as lab:
        cloud = lab.controller.signup(person.name)
        cloud.store(person.entries())
        custodian = psutil.Process(pid_of(lab, cloud, "custodian"))
        errors: list[EmlabError] = []

        def run() -> None:
            try:
                cloud.intake()
            except EmlabError as exc:
                errors.append(exc)

        thread = threading.Thread(target=run)
        thread.start()
        job = next_job(custodian)
        kill(job)
        thread.join(30)
        assert [type(exc) for exc in errors] == [StoreError]
        assert "status -9" in str(errors[0])
        assert gone(job)
        report = cloud.intake()
        assert len(cloud.trips()) == report.trips > 2
        assert not jobs(custodian)


@pytest.mark.parametrize("engine_name", ["process"], indirect=True)
def test_two_runs_at_once_come_one_after_the_other(engine_name: str, home: Path, person: em.Person) -> None:
    with em.Lab(engine_name) as lab:
        cloud = lab.controller.signup(person.name)
        cloud.store(person.entries())
        reports: list[IntakeReport] = []
        threads = [threading.Thread(target=lambda: reports.append(cloud.intake())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sorted(report.written > 0 for report in reports) == [False, True]


@pytest.mark.parametrize("engine_name", ["process"], indirect=True)
def test_a_job_dies_with_its_custodian(engine_name: str, home: Path, person: em.Person) -> None:
    with em.Lab(engine_name) as lab:
        cloud = lab.controller.signup(person.name)
        cloud.store(person.entries())
        custodian = psutil.Process(pid_of(lab, cloud, "custodian"))

        def run() -> None:
            with pytest.raises(EmlabError):
                cloud.intake()

        thread = threading.Thread(target=run)
        thread.start()
        job = next_job(custodian)
        kill(custodian.pid)
        assert gone(job)
        assert reaches(cloud, [em.CloudState.FAILED])
        thread.join(30)
        assert len(cloud.trips()) in (0, cloud.intake().trips)


def jobs(custodian: psutil.Process) -> list[int]:
    return [child.pid for child in custodian.children() if "emlab.apps.job" in child.cmdline()]


def next_job(custodian: psutil.Process) -> int:
    """The pid of the job that is being started."""
    assert wait_until(lambda: bool(jobs(custodian)), 10)
    (pid,) = jobs(custodian)
    assert pid != os.getpid()
    return pid
