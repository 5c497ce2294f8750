"""Ranks that srun started meet at a store whose port nobody chose beforehand."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.runtime.ranks import on_every_rank
from nemo_sspo.megatron.runtime.rendezvous import Node, announce, meet
from tests.megatron.runtime.world_sum import answer_in

_TASK = """
import sys
from nemo_sspo.megatron.runtime.ranks import on_every_rank
from nemo_sspo.stages.runner.slurm_task import set_rank_env
from tests.megatron.runtime.world_sum import sum_over_all_ranks
set_rank_env()
print(on_every_rank(sum_over_all_ranks, 4))
"""


def test_tasks_of_srun_are_the_ranks(tmp_path: Path) -> None:
    """Four tasks on two nodes, as srun would name them."""
    tasks = []
    for task in range(4):
        slurm = {"NTASKS": 4, "NNODES": 2, "PROCID": task, "LOCALID": task % 2, "NODEID": task // 2}
        environment = {f"SLURM_{name}": str(value) for name, value in slurm.items()}
        environment |= {
            "NEMO_SSPO_RANKS": "srun",
            "NEMO_SSPO_RENDEZVOUS": str(tmp_path / "r"),
            "GLOO_SOCKET_IFNAME": "lo",
        }
        command = [sys.executable, "-c", _TASK]
        tasks.append(subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True))
    answers = [answer_in(task.communicate(timeout=120)[0]) for task in tasks]
    assert answers == ["('1111', '0', '0', '4', '2', '0')", "None", "None", "None"]


_ALONE = """
import torch
torch.cuda.is_available = lambda: True
from nemo_sspo.megatron.runtime.ranks import on_every_rank
from tests.megatron.runtime.world_sum import sum_over_all_ranks
print(on_every_rank(sum_over_all_ranks, 1))
"""


def test_one_gpu_needs_no_launcher() -> None:
    """A machine that says it has one: a CUDA context is not forked, so this process is the rank."""
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "GROUP_RANK")}
    done = subprocess.run([sys.executable, "-c", _ALONE], env=environment, capture_output=True, text=True, timeout=120)
    assert answer_in(done.stdout) == "('1', '0', '0', '1', '1', '0')", done.stderr


def test_another_number_of_ranks_than_the_layout_has_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"2 ranks were started, but tensor x pipeline x context x data = 4"):
        on_every_rank(lambda: None, 4)


def test_ranks_that_nodes_cannot_share_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"NODE_RANK": "0", "NODE_COUNT": "3", "NEMO_SSPO_RENDEZVOUS": str(tmp_path / "r")}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="4 ranks cannot be shared by 3 nodes"):
        on_every_rank(lambda: None, 4)


@pytest.mark.parametrize(
    ("code", "kind"),
    [(socket.EAI_NONAME, UserError), (socket.EAI_AGAIN, ConnectionError)],
    ids=["unknown", "no answer"],
)
@pytest.mark.parametrize(
    ("rank", "whose"), [(0, "this node's own name"), (1, "the first node's name")], ids=["first node", "another node"]
)
def test_a_first_node_whose_name_has_no_address_is_named_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rank: int, whose: str, code: int, kind: type[Exception]
) -> None:
    """torch tries for five minutes, twice, while the other nodes wait."""

    def no_address(*_: object) -> None:
        raise socket.gaierror(code, "Name or service not known")

    monkeypatch.setattr(socket, "gethostname", lambda: "no-such-node-xyz")
    announce(tmp_path / "r", "no-such-node-xyz", 29500)
    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    with pytest.raises(kind, match=rf"{whose}, no-such-node-xyz, has no address here \(Name or service not known\)"):
        meet(Node(rank, 2, tmp_path / "r"))


def test_a_wrong_number_of_ranks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match=r"2 ranks were started, but .* = 4"):
        on_every_rank(lambda: None, 4)
