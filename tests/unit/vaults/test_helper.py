"""What the helper container may, and how its answers are read; tests/guest/test_helper_container.py lets it mount."""

from __future__ import annotations

import errno
import json
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from emlab.errors import VaultBusy, VaultError
from emlab.vaults import helper, mounter
from emlab.vaults.ecryptfs_token import KEY_BYTES
from emlab.vaults.helper import Helper

HOME = Path("/labs/lab/clouds/0123/vault")
# what would let a program out of its container, or look into others
DANGEROUS = {
    *("bpf", "chroot", "delete_module", "finit_module", "fsopen", "init_module", "kcmp", "kexec_load", "mknod"),
    *("mknodat", "move_mount", "name_to_handle_at", "open_by_handle_at", "open_tree", "perf_event_open", "pidfd_getfd"),
    *(
        "pivot_root",
        "process_vm_readv",
        "process_vm_writev",
        "ptrace",
        "reboot",
        "setns",
        "socket",
        "swapon",
        "unshare",
    ),
    *("userfaultfd", "request_key", "connect", "kill", "chmod", "chown", "unlink", "rename", "setuid", "seccomp"),
}


@pytest.fixture(params=[True, False], ids=["with seccomp", "without"])
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    docker = pytest.importorskip("docker")
    return helper.host_config(docker.APIClient(version="1.41"), HOME, confined=request.param)


class TestContainer:
    def test_it_has_two_rights_no_network_and_a_root_that_nobody_writes(self, config: dict[str, Any]) -> None:
        assert (config["CapDrop"], config["CapAdd"]) == (["ALL"], ["SYS_ADMIN", "DAC_OVERRIDE"])
        assert (config["NetworkMode"], config["IpcMode"]) == ("none", "none")
        assert config["ReadonlyRootfs"] is True
        assert "no-new-privileges:true" in config["SecurityOpt"]
        forbidden = {"Privileged", "PidMode", "UsernsMode", "UTSMode", "Devices", "VolumesFrom", "Binds", "ExtraHosts"}
        assert forbidden & config.keys() == set()

    def test_it_sees_one_vault_and_no_directory_above_or_beside(self, config: dict[str, Any]) -> None:
        (mount,) = config["Mounts"]
        assert (mount["Type"], mount["Source"], mount["Target"]) == ("bind", str(HOME), str(HOME))
        assert mount["BindOptions"] == {"Propagation": "rshared"}

    def test_it_is_small_and_goes_by_itself_and_leaves_neither_log_nor_core_nor_swap(
        self, config: dict[str, Any]
    ) -> None:
        assert config["Memory"] == config["MemorySwap"] == helper.MEMORY
        assert config["PidsLimit"] == helper.PIDS
        assert (config["AutoRemove"], config["RestartPolicy"]) == (True, {"Name": "no"})
        assert config["LogConfig"]["Type"] == "none"
        assert [(each["Name"], each["Hard"]) for each in config["Ulimits"]] == [("core", 0)]

    def test_of_what_docker_hides_it_sees_only_the_table_of_keys(self, config: dict[str, Any]) -> None:
        assert {"/proc/kcore", "/proc/acpi", "/proc/timer_list", "/sys/firmware"} <= set(config["MaskedPaths"])
        assert "/proc/keys" not in config["MaskedPaths"]
        assert "ReadonlyPaths" not in config  # Docker's own

    def test_few_system_calls_are_let_through(self) -> None:
        profile = json.loads(helper._profile())
        assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
        (rule,) = profile["syscalls"]
        assert rule["action"] == "SCMP_ACT_ALLOW"
        assert {"add_key", "keyctl", "mount", "umount2"} <= set(rule["names"])
        assert DANGEROUS & set(rule["names"]) == set()
        assert len(set(rule["names"])) == len(rule["names"]) < 110

    def test_an_engine_without_seccomp_is_given_no_profile(self, config: dict[str, Any]) -> None:
        given = [one for one in config["SecurityOpt"] if one.startswith("seccomp=")]
        assert given in ([], [f"seccomp={helper._profile()}"])


class Said(Helper):
    """A container that says this."""

    def __init__(self, line: str) -> None:
        super().__init__(HOME)
        self._line = line
        self.asked: list[tuple[Sequence[str], bytes]] = []

    def _run(self, command: list[str], send: bytes) -> str:
        self.asked.append((command, send))
        return self._line


class TestAnswers:
    @pytest.mark.parametrize(("line", "word"), [("done", "done"), ("busy", "busy"), ("kept ab", "kept")])
    def test_it_was_unmounted_or_is_used(self, line: str, word: str) -> None:
        container = Said(line)
        assert container.unmount(HOME / "open/clear", ["ab"], lazy=False) == word
        assert container.unmount(HOME / "open/clear", ["ab"], lazy=True) == word
        assert [[command[0], command[-1]] for command, _ in container.asked] == [["unmount", "ab"], ["detach", "ab"]]

    def test_the_kernel_has_a_key_or_none(self) -> None:
        assert Said("done").kept(["ab"]) is None
        assert Said("kept ab").kept(["ab"]) == "ab"
        assert Said("never asked").kept([]) is None

    def test_while_the_kernel_has_a_key_nothing_is_mounted(self) -> None:
        with pytest.raises(VaultBusy, match="key ab is still there"):
            Said("kept ab").mount("/lower", Path("/proc"), (b"k" * KEY_BYTES, b"n" * KEY_BYTES))

    def test_what_the_system_refuses_is_its_error(self) -> None:
        with pytest.raises(OSError, match="No such device") as caught:
            Said(f"errno {errno.ENODEV}").trial()
        assert caught.value.errno == errno.ENODEV

    @pytest.mark.parametrize("line", ["", "busy", "kept ab", "errno", "errno x", "failed to", "Traceback"])
    def test_any_other_word_is_an_error(self, line: str) -> None:
        with pytest.raises(VaultError, match=f"said: {line or 'nothing'}"):
            Said(line).trial()

    def test_keys_go_to_the_standard_input_and_nowhere_else(self) -> None:
        container, point = Said("done"), Path("/proc")  # where something is mounted
        container.mount("/lower", point, (b"k" * KEY_BYTES, b"n" * KEY_BYTES))
        assert container.asked == [(["mount", "/lower", "/proc"], b"k" * KEY_BYTES + b"n" * KEY_BYTES)]

    def test_a_mount_that_is_not_seen_here_is_taken_away_and_an_error(self) -> None:
        container = Said("done")
        with pytest.raises(VaultError, match="does not see it"):
            container.mount("/lower", Path("/nowhere"), (b"k" * KEY_BYTES, b"n" * KEY_BYTES))
        assert container.asked[1:] == [(["detach", "/nowhere"], b"")]


class TestListening:
    def test_frames_are_put_together_up_to_the_first_line(self) -> None:
        here, there = socket.socketpair()
        for part in (b"do", b"ne 12\nmore"):
            there.sendall(struct.pack(">BxxxL", 1, len(part)) + part)
        there.close()
        assert helper._listen(here) == "done 12"
        here.close()

    def test_of_an_endless_answer_little_is_kept(self) -> None:
        here, there = socket.socketpair()
        part = b"x" * helper.MAX_ANSWER
        for _ in range(3):
            there.sendall(struct.pack(">BxxxL", 1, len(part)) + part)
        assert helper._listen(here) == "x" * 500
        for each in (here, there):
            each.close()


class TestProgram:
    def test_keys_that_do_not_arrive_mount_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Path("/dev/null").open() as nothing:
            monkeypatch.setattr("sys.stdin", nothing)
            assert mounter.main("mount", ["/lower", "/nowhere"]) == "failed the keys did not arrive"

    def test_what_the_system_refuses_is_said_by_its_number(self) -> None:
        assert mounter.main("try", ["/nowhere"]).startswith("errno ")

    def test_no_key_of_a_name_that_nobody_has_is_kept(self) -> None:
        assert mounter.main("kept", ["0123456789abcdef"]) == "done"
