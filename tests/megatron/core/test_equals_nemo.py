"""Both bindings call the same functions of megatron-core: where both run, they agree to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from nemo_sspo.config.stages import Parallel
from nemo_sspo.megatron.binding import binding
from tests.megatron.available import available

if available() != ["nemo", "core"]:
    pytest.skip("NeMo and megatron-core do not both run here", allow_module_level=True)

from tests.megatron.golden_steps import CASES, differences, measured_case
from tests.megatron.policies import POLICIES
from tests.megatron.worlds import make_pairs, reference, write_policy


@pytest.mark.parametrize("name", CASES)
def test_three_steps_give_the_bytes_that_nemo_gives(name: str, tmp_path: Path) -> None:
    """Reference log-probs, every metric of every step, and the files of the weights."""
    nemo, core = ({name: measured_case(trainer, tmp_path / trainer, *CASES[name])} for trainer in ("nemo", "core"))
    assert differences(core, nemo) == []


@pytest.mark.parametrize("name", ["llama_3.1", "gemma2", "qwen3_window"])
def test_a_family_has_the_log_probs_that_nemo_computes(name: str, tmp_path: Path) -> None:
    model_type, changes = POLICIES[name]
    policy = write_policy(tmp_path / "policy", model_type, **changes)
    found = []
    for trainer in ("nemo", "core"):
        bound, directory = binding(trainer), tmp_path / trainer
        bound.import_policy(policy, directory / "nemo", directory / "hf", torch.float32)
        found.append(reference(bound, make_pairs(6), directory, Parallel(tensor=2)))
    assert torch.equal(*found)
