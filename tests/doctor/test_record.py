"""The record holds every figure, and nothing that names a machine, a path or a secret."""

import json
import os

from rich.console import Console

from nemo_sspo.doctor.check import Check, at_most, not_run
from nemo_sspo.doctor.machine import look_at_machine, variables
from nemo_sspo.doctor.record import as_json, check_table, tally

CHECKS = [
    at_most("vLLM against Megatron", 0.25, 0.5, unit="nats", note="48 pairs"),
    Check("kill and resume", "passed", 0.0, 1e-4, stand_in="CPU"),
    not_run("rollout environment", "cluster.rollout.python=/home/somebody/env/bin/python: lacks vllm"),
]


def lines(width: int) -> list[str]:
    """What a terminal shows."""
    console = Console(width=width, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    console.print(check_table(CHECKS))
    return [line.rstrip() for line in console.export_text().splitlines()]


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
    assert lines(120)[:3] == [
        "passed   vLLM against Megatron: 0.25 nats (at most 0.5 nats)",
        "passed   kill and resume: 0 (at most 0.0001) [stand-in: CPU]",
        "not run  rollout environment",
    ]


def test_it_fits_a_terminal_and_says_what_to_do_below_a_finding():
    assert max(map(len, lines(80))) <= 80
    below = [line for line in lines(80) if line.startswith(" ")]
    assert " ".join("".join(below).split()).startswith("cluster.rollout.python=")
    assert "lacks vllm" in below[-1]


def test_the_tally_begins_with_the_worst():
    assert tally(CHECKS) == "1 not run, 2 passed"
    warned = [Check("a", "warning"), Check("b", "warning")]
    assert tally([*warned, *CHECKS]) == "1 not run, 2 warnings, 2 passed"
