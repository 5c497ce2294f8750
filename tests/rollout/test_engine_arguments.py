"""What vLLM is asked for: no model is loaded."""

from pathlib import Path

import pytest

from nemo_sspo.config.variants import VllmEngine as VllmSettings
from nemo_sspo.rollout.vllm_engine import engine_arguments


@pytest.mark.parametrize(
    ("given", "on_cpu", "asked"),
    [
        (None, False, {}),  # vLLM knows the GPU
        (None, True, {"max_num_seqs": 256}),
        (48, False, {"max_num_seqs": 48}),
        (48, True, {"max_num_seqs": 48}),
    ],
)
def test_how_many_sequences_at_once_is_vllms_choice_on_a_gpu(
    given: int | None, on_cpu: bool, asked: dict[str, int]
) -> None:
    arguments = engine_arguments(Path("policy"), VllmSettings(max_num_seqs=given), on_cpu)
    assert {name: value for name, value in arguments.items() if name == "max_num_seqs"} == asked
