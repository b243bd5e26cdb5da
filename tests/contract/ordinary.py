"""Does something as an ordinary user, in a process forked by root, whose interpreter that user could not even read."""

from __future__ import annotations

import ctypes
import os
import pwd
import traceback
from collections.abc import Callable, Sequence

from emlab.key import Key
from emlab.vaults.header import new_header

# an ordinary user that every system has: fusermount3 serves no user without a name
USER = pwd.getpwnam("nobody")
_SET_DUMPABLE = 4


def as_user(
    act: Callable[[], object], *, before: Callable[[], object] = lambda: None, groups: Sequence[int] = ()
) -> str:
    """Why `act` failed, as a traceback; empty if it did not. `before` is done by the same process while it is root.

    Args:
        groups: the user is a member of these. Modules that `act` needs must have been imported.
    """
    new_header("plain", Key.random())  # imports what the user may not be able to read
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            before()
            _become(groups)
            act()
        except BaseException:
            os.write(writer, traceback.format_exc().encode()[-4000:])
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        said = file.read().decode()
    os.waitpid(pid, 0)
    return said


def _become(groups: Sequence[int]) -> None:
    os.setgroups(list(groups))
    os.setresgid(USER.pw_gid, USER.pw_gid, USER.pw_gid)
    os.setresuid(USER.pw_uid, USER.pw_uid, USER.pw_uid)
    os.environ["HOME"] = "/nonexistent"
    # a process that changed its user may not look at itself in /proc, until it says so or executes a program
    if ctypes.CDLL(None).prctl(_SET_DUMPABLE, 1) != 0:
        raise OSError("prctl refused")
