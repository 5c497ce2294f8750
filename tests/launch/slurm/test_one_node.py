"""The batch script of one node has its step take the node's GPUs and cores."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "slurm" / "one_node.sbatch"


def test_the_step_takes_the_gpus_and_cores_of_the_node(tmp_path):
    srun = tmp_path / "srun"
    srun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    srun.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_CPUS_ON_NODE": "96"}
    command = ["bash", str(SCRIPT), "experiment=llama3-8b", "name=a b"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert "--cpus-per-task=96" in words  # else one core for the whole run
    assert words[-5:] == ["nemo-sspo", "run", "cluster=local_gpu", "experiment=llama3-8b", "name=a b"]
    # A step has the GPUs that its job asked for, none that --exclusive brought along.
    assert "#SBATCH --gpus-per-node=8\n" in SCRIPT.read_text()
