"""Ports that are down, memory that may not be locked, interfaces that are not there, a name that is a loopback."""

import os
import resource

import pytest

from nemo_sspo.doctor.host import network
from nemo_sspo.doctor.host.network import network_checks
from tests.doctor.by_name import by_name, wrong


@pytest.fixture(autouse=True)
def site(monkeypatch, tmp_path):
    """Two interfaces and one InfiniBand port."""
    for name in ("lo", "eth0", "ib0"):
        (tmp_path / "net" / name).mkdir(parents=True)
    monkeypatch.setattr(network, "INTERFACES", tmp_path / "net")
    monkeypatch.setattr(network, "INFINIBAND", tmp_path / "infiniband")
    monkeypatch.setattr(network, "HOSTS", tmp_path / "hosts")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (resource.RLIM_INFINITY,) * 2)
    for name in ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost\n10.0.0.7 {os.uname().nodename} # 127.0.1.1 is not ours\n")
    port(tmp_path, "mlx5_0", "4: ACTIVE")
    return tmp_path


def port(folder, device, state):
    place = folder / "infiniband" / device / "ports" / "1"
    place.mkdir(parents=True, exist_ok=True)
    (place / "state").write_text(f"{state}\n")


def checks(experiment, *overrides, many_nodes=True):
    return network_checks(experiment(*overrides), many_nodes=many_nodes)


def test_a_sound_network(experiment):
    assert wrong(checks(experiment)) == []
    assert by_name(checks(experiment))["InfiniBand"].measured == "1 of 1 ports active"


def test_ports_that_are_down(experiment, site):
    port(site, "mlx5_1", "1: DOWN")
    assert wrong(checks(experiment)) == [("InfiniBand", "warning")]
    assert "mlx5_1:1 DOWN" in by_name(checks(experiment))["InfiniBand"].note
    port(site, "mlx5_0", "2: INIT")
    assert wrong(checks(experiment)) == [("InfiniBand", "failed")]


def test_memory_that_may_not_be_locked(experiment, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (8 << 20, 8 << 20))
    check = by_name(checks(experiment))["locked memory"]
    assert (check.verdict, check.measured) == ("failed", "8192 KiB")


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        *(("ib", "passed"), ("=ib0", "passed"), ("ens3,eth", "passed"), ("^docker,lo", "passed")),
        *(("ens3", "failed"), ("=ib", "failed"), ("^eth,ib", "failed")),
    ],
)
def test_interfaces_as_nccl_reads_them(experiment, given, verdict):
    found = by_name(checks(experiment, f"+cluster.train.variables.NCCL_SOCKET_IFNAME='{given}'"))
    assert found["NCCL_SOCKET_IFNAME"].verdict == verdict


def test_gloo_takes_whole_names(experiment, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib")
    assert wrong(checks(experiment)) == [("GLOO_SOCKET_IFNAME", "failed")]


def test_a_name_that_is_a_loopback_matters_to_several_nodes(experiment, site):
    (site / "hosts").write_text(f"127.0.1.1 {os.uname().nodename}\n")
    assert wrong(checks(experiment)) == [("this node's name", "warning")]
    assert wrong(checks(experiment, many_nodes=False)) == []
