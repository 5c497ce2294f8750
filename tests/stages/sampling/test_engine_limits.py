"""What vLLM refuses is said before it starts, and no more than that."""

from pathlib import Path

import pytest

from nemo_sspo.config.engines import VllmEngine
from nemo_sspo.megatron.models.family import HFConfig
from nemo_sspo.stages.sampling.engine_limits import HEADS_ON_A_PROCESSOR, engine_problems


def found(tensor_parallel: int = 1, *, on_cpu: bool = True, **config: int) -> list[str]:
    policy = HFConfig({"num_attention_heads": 6, "hidden_size": 192} | config, Path("config.json"))
    return list(engine_problems(policy, VllmEngine(tensor_parallel=tensor_parallel), on_cpu=on_cpu))


def test_heads_of_a_size_that_its_attention_lacks() -> None:
    assert found() == found(head_dim=128) == found(head_dim=33, on_cpu=False) == []
    for size in (1, 24, 33):
        (problem,) = found(head_dim=size)
        assert problem.startswith(f"config.json: heads of {size} channels, which vLLM does not take on a processor")


def test_heads_that_do_not_divide_over_its_gpus() -> None:
    assert found(3, on_cpu=False) == []
    (problem,) = found(4, on_cpu=False)
    assert (
        problem == "config.json: num_attention_heads=6 does not divide over engine.tensor_parallel=4; choose a divisor"
    )


def test_the_sizes_are_those_of_the_engine_that_is_installed() -> None:
    backend = pytest.importorskip("vllm.v1.attention.backends.cpu_attn").CPUAttentionBackend
    assert tuple(backend.get_supported_head_sizes()) == HEADS_ON_A_PROCESSOR
