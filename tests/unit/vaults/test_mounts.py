"""The kernel's mount table, read from its text."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emlab.errors import VaultError
from emlab.vaults import mounts
from emlab.vaults.mounts import Mount

LINES = r"""27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
43 27 0:39 / /vaults/a\040b/clear rw,nosuid,nodev,noexec,relatime shared:7 - fuse.gocryptfs emlab-1\054 rw,user_id=0
44 27 0:40 / /c rw,relatime shared:12 master:7 propagate_from:2 - ecryptfs /l\134ow rw,ecryptfs_sig=ab,ecryptfs_key=32
45 27 0:41 /sub /d ro unbindable - tmpfs none ro
"""


def test_a_line_has_a_point_a_kind_a_source_flags_options_and_groups() -> None:
    root, go, ecryptfs, tmpfs = mounts.parse(LINES)
    assert (root.point, root.kind, root.source, root.groups) == ("/", "ext4", "/dev/vda", frozenset())
    assert (go.point, go.source) == ("/vaults/a b/clear", "emlab-1,")
    assert go.flags == {"rw", "nosuid", "nodev", "noexec", "relatime"}
    assert ecryptfs.source == r"/l\ow"
    assert ecryptfs.groups == {"7", "12"}
    assert (root.shared, go.shared, ecryptfs.shared) == ("", "7", "12")
    assert ecryptfs.options == {"rw": "", "ecryptfs_sig": "ab", "ecryptfs_key": "32"}
    assert tmpfs.flags == {"ro"}
    assert tmpfs.groups == frozenset()


@given(st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw and b"/" not in raw))
def test_any_name_comes_back_as_python_names_it(raw: bytes) -> None:
    """As the kernel writes it: blanks and backslashes in octal, all else, also what is no text, as it is."""
    written = raw
    for sign in (b"\\", b" ", b"\t", b"\n"):
        written = written.replace(sign, b"\\%03o" % sign[0])
    line = os.fsdecode(b"1 2 0:3 / /" + written + b" rw - tmpfs none rw\n")
    (found,) = mounts.parse(line)
    assert found.point == "/" + os.fsdecode(raw)


@pytest.mark.parametrize("sign", ["\r", "\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_a_sign_that_ends_lines_elsewhere_does_not_end_one_here(sign: str) -> None:
    (found,) = mounts.parse(f"1 2 0:3 / /a{sign}b rw - tmpfs none rw\n")
    assert found.point == f"/a{sign}b"


def test_the_table_of_this_process_is_read() -> None:
    assert [mount.kind for mount in mounts.at(Path("/proc"))][-1:] == ["proc"]
    assert mounts.at(Path("/proc/self")) == []
    assert any(mount.point == "/" for mount in mounts.read())


def test_what_is_open_below_a_directory_names_its_process(tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    assert mounts.users(tmp_path) == []
    with (tmp_path / "with" / "file").open("w"):
        (holder,) = mounts.users(tmp_path)
        assert holder.pid == os.getpid()
        assert f"(process {os.getpid()})" in str(holder)
        assert mounts.users(tmp_path / "wit") == []


def test_no_other_namespace_sees_a_mount_that_is_nowhere() -> None:
    def nothing(_mount: Mount) -> bool:
        return False

    assert mounts.elsewhere(nothing) == []


def test_a_path_lies_on_the_mount_that_is_nearest_above_it_and_on_top(monkeypatch: pytest.MonkeyPatch) -> None:
    over = LINES + "46 44 0:42 / /c rw shared:13 - tmpfs over rw\n"
    monkeypatch.setattr(mounts, "read", lambda: mounts.parse(over))
    held = [mounts.holding(Path(path)).source for path in ("/nowhere/x", "/vaults/a b/clear/x", "/c/x", "/cc", "/d")]
    assert held == ["/dev/vda", "emlab-1,", "over", "/dev/vda", "none"]


def failing(monkeypatch: pytest.MonkeyPatch, *numbers: int) -> list[int]:
    """Looks at a file system fail so, one after the other; those that are left, from the last."""
    left = list(reversed(numbers))

    def statvfs(path: Path) -> None:
        if left:
            raise OSError(left.pop(), "failed", str(path))

    monkeypatch.setattr(os, "statvfs", statvfs)
    return left


@pytest.mark.parametrize("before", [[], [errno.EIO], [errno.EIO] * (mounts.LOOKS - 1)])
def test_one_whose_daemon_is_being_killed_is_dead(monkeypatch: pytest.MonkeyPatch, before: list[int]) -> None:
    """A request that a daemon was reading when it was killed fails as if a disk had: seen once in 150 kills."""
    for number in mounts.DEAD_ERRNOS:
        failing(monkeypatch, *before, number)
        assert not mounts.answers(Path("/somewhere"))


def test_one_that_has_recovered_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, errno.EIO)
    assert mounts.answers(Path("/somewhere"))


@pytest.mark.parametrize(("number", "looks"), [(errno.EIO, mounts.LOOKS), (errno.EACCES, 1)])
def test_one_of_which_nothing_is_known_is_an_error(monkeypatch: pytest.MonkeyPatch, number: int, looks: int) -> None:
    left = failing(monkeypatch, *[number] * 10)
    with pytest.raises(VaultError, match="cannot look at /somewhere"):
        mounts.answers(Path("/somewhere"))
    assert len(left) == 10 - looks
