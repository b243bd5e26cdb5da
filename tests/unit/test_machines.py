"""The ancestor's machines.json as settings: what is taken over, and what is named as left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emlab import machines, serving
from emlab.apps import listening
from emlab.errors import ConfigError
from emlab.lab import Lab

FIRST = {
    "controller-ip": "127.0.0.1",
    "controller-port": "4041",
    "tick-period": 60,
    "pause-ticks": 30,
    "kill-ticks": 15,
    "swarm-port": 54321,
    "machines": {"10.0.0.1": 2.0, "10.0.0.2": 1.0},
    "endpoints": {"pause": "/pause"},
}
SECOND = {
    "service_router_ip": "lab.example",
    "service_router_port": 4430,
    "service_router_use_tls": True,
    "certificate_bundle_path": "",
    "upc_port": 8123,
    "machines": {"10.0.0.1": 1.0},
    "upc_mode": "docker",
    "service_endpoint": "/service_request",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "machines.json"


def test_the_first_generation(file: Path) -> None:
    file.write_text(json.dumps(FIRST))
    lab, serve, remarks = machines.load(file)
    assert lab == {"idle_s": 1800.0}
    assert serve == {"host": "127.0.0.1", "port": 4041}
    assert sorted(remark.split(":")[0] for remark in remarks) == ["endpoints", "kill_ticks", "machines", "swarm_port"]
    assert Lab.of(lab, file).__repr__()
    assert serving.settings(serve, file).port == 4041


def test_the_second_generation(file: Path) -> None:
    file.write_text(json.dumps(SECOND))
    lab, serve, remarks = machines.load(file)
    assert lab == {}
    assert serve == {"host": "lab.example", "port": 4430}
    listening.check(serving.settings(serve, file))
    assert len(remarks) == 5


def test_plain_http_is_taken_over_on_this_host_only(file: Path) -> None:
    for host, tls in (("localhost", {"tls": False}), ("lab.example", {})):
        file.write_text(json.dumps({**SECOND, "service_router_ip": host, "service_router_use_tls": False}))
        _, serve, remarks = machines.load(file)
        assert serve == {"host": host, "port": 4430, **tls}
        listening.check(serving.settings(serve, file))
        assert any(remark.startswith("use_tls: ") for remark in remarks) is not bool(tls)
    file.write_text('{"controller-port": 4041, "controller-use-tls": false}')
    assert machines.load(file)[1] == {"port": 4041, "tls": False}  # where there is no address, it is this host


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "null", "{", '{"idle_s": 5}', '{"tick-period": 0, "pause-ticks": 1}', '{"controller-port": "x"}'],
)
def test_what_is_none(file: Path, text: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"machines\.json"):
        machines.load(file)


def test_one_that_is_not_there(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        machines.load(file)


@pytest.mark.parametrize(
    ("table", "said"),
    [({"prot": 1}, "it has host, names, port"), ({"signup": "everybody"}, "open, invitation, admin"), (5, "object")],
)
def test_settings_of_a_service_that_make_no_sense_are_named_with_their_file(
    table: object, said: str, file: Path
) -> None:
    with pytest.raises(ConfigError, match=said) as caught:
        serving.settings(table, file)
    assert str(file) in str(caught.value)
