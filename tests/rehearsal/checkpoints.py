"""python -m tests.rehearsal.checkpoints FOLDER: the tiny policies, imported as a step on the host does it.

In a process of its own that sees no GPU: Megatron's local layers write what Transformer Engine's read.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.rehearsal.cuda_runtime import environment


def import_policies(folder: Path) -> Path:
    """`folder`, with FAMILY/nemo below it for every tiny model."""
    variables = {name: value for name, value in os.environ.items() if name not in environment()}
    command = [sys.executable, "-m", "tests.rehearsal.checkpoints", str(folder)]
    subprocess.run(command, env=variables | {"CUDA_VISIBLE_DEVICES": "", "TORCH_CUDA_ARCH_LIST": "9.0"}, check=True)
    return folder


def main(folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from nemo_sspo.megatron.binding import binding
    from tests.rehearsal.cases import TINY_MIXTURES, TINY_MODELS

    for family, values in (TINY_MODELS | TINY_MIXTURES).items():
        policy, output = folder / family / "policy", folder / family
        config = AutoConfig.for_model(**values)
        AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(policy)
        binding("core").import_policy(policy, output / "nemo", output / "hf", torch.bfloat16)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
