"""The record holds every figure, and nothing that names a machine, a path or a secret."""

import json
import os

from rich.console import Console

from nemo_sspo.doctor.check import Check, at_most, not_run
from nemo_sspo.doctor.machine import look_at_machine, variables
from nemo_sspo.doctor.record import as_json, check_table

CHECKS = [
    at_most("vLLM against Megatron", 0.25, 0.5, unit="nats", note="48 pairs"),
    Check("kill and resume", "passed", 0.0, 1e-4, stand_in="CPU"),
    not_run("rollout environment", "cluster.rollout.python=/home/somebody/env/bin/python: lacks vllm"),
]


def test_it_keeps_figures_bounds_and_verdicts():
    record = json.loads(as_json(CHECKS, {"cpus": 2}, {}, {"seconds": {"loop": 1.5}}))
    assert record["outcome"] == "incomplete"
    first = record["checks"][0]
    assert (first["measured"], first["bound"], first["unit"], first["verdict"]) == (0.25, 0.5, "nats", "passed")
    assert record["checks"][1]["stand_in"] == "CPU"
    assert record["trial"] == {"seconds": {"loop": 1.5}}


def test_it_names_no_path_and_no_host():
    host = os.uname().nodename
    text = as_json(CHECKS, {"note": f"on {host}: ~/.cache/x and >= 1 GiB, tokens/s"}, {})
    assert "somebody" not in text
    assert f"on {host}" not in text
    assert "cluster.rollout.python=<path>: lacks vllm" in text
    assert "<path> and >= 1 GiB, tokens/s" in text


def test_variables_tell_what_steers_nccl_and_hide_what_is_private(monkeypatch, tmp_path):
    given = {
        "NCCL_DEBUG": "INFO",
        "NCCL_COMM_ID": "node17:4000",
        "NCCL_SOCKET_IFNAME": "ib0",
        "CUDA_HOME": "/home/somebody/cuda",
        "NVTE_FUSED_ATTN": "0",
        "HF_TOKEN": "hf_secret",
    }
    assert variables(given) == {
        "CUDA_HOME": "(set)",
        "NCCL_COMM_ID": "(set)",
        "NCCL_DEBUG": "INFO",
        "NCCL_SOCKET_IFNAME": "(set)",
        "NVTE_FUSED_ATTN": "0",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    seen = json.dumps(look_at_machine(tmp_path / "runs"))
    for secret in ("node17", "hf_secret", "somebody", str(tmp_path)):
        assert secret not in seen


def test_the_table_shows_a_stand_in():
    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(check_table(CHECKS))
    lines = console.export_text().splitlines()
    assert lines[1].split() == ["vLLM", "against", "Megatron", "0.25", "nats", "0.5", "nats", "passed"]
    assert lines[2].rstrip().endswith("stand-in: CPU")
    assert "not run" in lines[3]
