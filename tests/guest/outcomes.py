"""Tests of every outcome, for test_routing.py; collected only by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.guest import routing

pytestmark = pytest.mark.needs("ecryptfs")


@pytest.fixture
def broken() -> None:
    raise RuntimeError("this fixture is broken")


def test_passes() -> None:
    assert "ecryptfs" in Path("/proc/filesystems").read_text()


def test_fails() -> None:
    print("some output")  # noqa: T201 - to be seen in the report
    assert 1 + 1 == 3


def test_has_a_broken_fixture(broken: None) -> None:
    raise AssertionError("not reached")


def test_skips() -> None:
    pytest.skip("not in the mood")


def test_kills_the_guest() -> None:
    assert routing.REPORTS in os.environ, "this is no guest"
    Path("/proc/sysrq-trigger").write_text("c")


def test_is_never_reached() -> None:
    raise AssertionError("not reached")
