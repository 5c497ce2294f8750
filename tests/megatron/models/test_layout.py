"""What divides over the ranks, and which settings exclude each other: the rules of dry run and training."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from nemo_sspo.config.precisions import Bf16Precision, Fp8Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.models.family import HFConfig
from nemo_sspo.megatron.models.layout import layout_problems, padded_vocab_size, setting_problems

POLICY = {
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "intermediate_size": 24,
    "vocab_size": 130,
    "num_hidden_layers": 6,
}


def found(parallel: Parallel, **changes: Any) -> list[str]:
    return list(layout_problems(HFConfig(POLICY | changes, Path("config.json")), parallel))


@pytest.mark.parametrize(
    ("parallel", "changes", "named"),
    [
        (Parallel(tensor=8), {}, "num_key_value_heads=4 does not divide over parallel.tensor=8 (8 parts)"),
        (Parallel(tensor=8), {"num_key_value_heads": None, "num_attention_heads": 12}, "num_attention_heads=12"),
        (Parallel(tensor=4), {"intermediate_size": 26}, "intermediate_size=26 does not divide over parallel.tensor=4"),
        (Parallel(tensor=3), {"num_attention_heads": 6, "num_key_value_heads": 3}, "vocab_size (padded)=256"),
        (Parallel(pipeline=4), {}, "num_hidden_layers=6 does not divide over parallel.pipeline"),
        (Parallel(pipeline=2, virtual_pipeline=2), {}, "num_hidden_layers=6 does not divide"),
    ],
)
def test_what_does_not_divide_is_named(parallel: Parallel, changes: dict[str, Any], named: str) -> None:
    assert named in found(parallel, **changes)[0]


def test_what_divides_is_taken() -> None:
    for parallel in (Parallel(tensor=4, pipeline=3), Parallel(pipeline=3, virtual_pipeline=2), Parallel(context=5)):
        assert found(parallel) == []


def test_megatron_does_not_replicate_key_value_heads() -> None:
    """Newer versions do; then `layout_problems` refuses too much."""
    transformer_config = pytest.importorskip("megatron.core.transformer.transformer_config")
    if not version("megatron-core").startswith("0.15."):
        pytest.skip("NeMo 2.7.3 comes with megatron-core 0.15")
    shape = {"num_layers": 1, "hidden_size": 16, "num_attention_heads": 8, "num_query_groups": 4}
    with pytest.raises(ValueError, match="num_query_groups"):
        transformer_config.TransformerConfig(**shape, tensor_model_parallel_size=8)


def test_vocabularies_are_padded_to_128_rows() -> None:
    assert [padded_vocab_size(rows) for rows in (1, 128, 129, 151936)] == [128, 128, 256, 151936]


def test_settings_that_exclude_each_other() -> None:
    adapters, local = Train(peft="lora", lora_rank=3), Train(layers="local")
    (problem,) = setting_problems(Parallel(tensor=2), adapters, Bf16Precision())
    assert problem.startswith("train.lora_rank=3 does not divide over parallel.tensor=2")
    (problem,) = setting_problems(Parallel(), Train(optimizer="sgd"), Bf16Precision())
    assert problem.endswith("choose parallel.distributed_optimizer=false")
    assert not list(setting_problems(Parallel(distributed_optimizer=False), Train(optimizer="sgd"), Bf16Precision()))
    (problem,) = setting_problems(Parallel(), local, Fp8Precision())
    assert problem.startswith("precision=fp8 needs Transformer Engine's layers")
    assert not list(setting_problems(Parallel(tensor=3), adapters, Fp8Precision()))
    assert not list(setting_problems(Parallel(tensor=2), Train(lora_rank=3), Bf16Precision()))
    assert not list(setting_problems(Parallel(), local, Bf16Precision()))
