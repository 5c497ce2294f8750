"""Which settings have a role: every one is listed here, so that none changes it unnoticed."""

from typing import get_args

import pytest

from nemo_sspo.config.gates import Gate
from nemo_sspo.config.load import load_experiment
from nemo_sspo.config.losses import Loss
from nemo_sspo.config.oracles import Oracle
from nemo_sspo.config.roles import ImportPath, Knob, Role, SourcePath, WithoutEffect, roles

KNOBS = {
    *(f"train.{name}" for name in ("micro_batch_size", "packing", "pack_tokens", "share_prompt", "recompute")),
    *("train.head", "train.head_chunk_tokens"),
    *(f"parallel.{name}" for name in ("tensor", "pipeline", "virtual_pipeline", "context", "data", "expert")),
    *("parallel.sequence", "parallel.distributed_optimizer", "parallel.overlap_communication"),
    *(f"engine.{name}" for name in ("tensor_parallel", "max_num_seqs", "gpu_memory_utilization", "cpu_kv_cache_gib")),
    *("engine.enforce_eager", "encoder.device", "encoder.batch_size"),
}
WITHOUT_EFFECT = {"train.export_adapter", "train.loggers", "train.checkpoint_every_steps", "train.keep_states"}
SOURCES = {
    *("policy", "prompts", "further.prompts", "data.held_out_prompts"),
    *("rollout.source", "evaluation.labelled_pairs", "encoder.path"),
}
OF_ORACLE: dict[str, dict[type[Role], set[str]]] = {
    "pairrm": {SourcePath: {"path"}, Knob: {"batch_tokens"}},
    "reward_model": {SourcePath: {"path"}, Knob: {"batch_tokens"}, WithoutEffect: {"gpu_memory_gib"}},
    "llm_judge": {
        SourcePath: {"template"},
        WithoutEffect: {
            *("api_key_variable", "concurrency", "retries", "timeout_seconds"),
            *("max_requests", "max_tokens", "max_dollars"),
            *("dollars_per_million_input_tokens", "dollars_per_million_output_tokens"),
        },
    },
    "policy_judge": {SourcePath: {"template"}},
    "function": {ImportPath: {"function"}},
}


def members(union: object) -> list[type]:
    return list(get_args(get_args(union)[0]))


@pytest.mark.parametrize("oracle", members(Oracle), ids=lambda model: model.model_fields["kind"].default)
def test_every_setting_with_a_role(oracle: type) -> None:
    experiment = load_experiment(["experiment=quickstart"]).model_copy(update={"oracle": oracle.model_construct()})
    of_oracle = OF_ORACLE[oracle.model_fields["kind"].default]
    found = roles(experiment)
    for role, common in ((Knob, KNOBS), (WithoutEffect, WITHOUT_EFFECT), (SourcePath, SOURCES), (ImportPath, set())):
        expected = common | {f"oracle.{name}" for name in of_oracle.get(role, ())}
        assert {key for key, value in found.items() if isinstance(value, role)} == expected, role


@pytest.mark.parametrize("variant", [*members(Gate), *members(Loss)])
def test_custom_variants_name_code_and_no_other_has_a_role(variant: type) -> None:
    is_custom = variant.model_fields["kind"].default == "custom"
    assert roles(variant.model_construct()) == ({"function": ImportPath()} if is_custom else {})
