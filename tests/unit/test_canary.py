"""The search for what must not be readable finds it in each form, wherever it lies."""

from __future__ import annotations

import base64
import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.canary import Canary, forms, search, search_bytes

NAME = "Zebra-Crossing-4711"


@given(st.binary(min_size=12, max_size=40), st.binary(max_size=5), st.binary(max_size=5))
def test_base64_is_found_whatever_stands_beside_it(canary: bytes, before: bytes, after: bytes) -> None:
    assert search_bytes(base64.b64encode(before + canary + after), [canary])
    assert search_bytes(base64.urlsafe_b64encode(before + canary + after), [canary])


@pytest.mark.parametrize(
    "written",
    [
        NAME.encode(),
        NAME.encode().hex().encode(),
        NAME.encode().hex().upper().encode(),
        NAME.encode("utf-16"),
        NAME.encode("utf-16-be"),
    ],
)
def test_a_name_is_found_in_each_form(tmp_path: Path, written: bytes) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(os.urandom(5000) + written + os.urandom(5000))
    assert [hit.path.name for hit in search(tmp_path, [NAME])] == ["file"]


def test_a_coordinate_is_found_as_text_and_as_a_double(tmp_path: Path) -> None:
    latitude = 47.376886412345
    (tmp_path / "bson").write_bytes(b"\x01lat\0" + struct.pack("<d", latitude))
    (tmp_path / "json").write_text(f'{{"lat":{latitude}}}')
    assert {hit.path.name for hit in search(tmp_path, [latitude])} == {"bson", "json"}


def test_names_of_files_and_folders_and_targets_of_links_are_searched(tmp_path: Path) -> None:
    (tmp_path / f"x{NAME}").mkdir()
    (tmp_path / "link").symlink_to(f"/nowhere/{NAME}")
    assert {hit.form for hit in search(tmp_path, [NAME])} == {"raw in its name", "raw in its target"}


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(os.urandom(100_000))
    (tmp_path / "empty").touch()
    assert search(tmp_path, [NAME, 47.376886412345, os.urandom(32)]) == []


@pytest.mark.parametrize("short", ["abc", b"12345", 1.5])
def test_a_canary_that_chance_would_find_is_refused(short: Canary) -> None:
    with pytest.raises(ValueError, match="less than"):
        forms(short)
