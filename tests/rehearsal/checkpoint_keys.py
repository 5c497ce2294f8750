"""Names and shapes of a policy's tensors: those that Transformer Engine's layers ask a checkpoint for, on a GPU, and
those that the conversion from Hugging Face writes into it, on the host."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nemo_sspo.config.stages import Parallel
from tests.rehearsal.case import Case
from tests.rehearsal.run import import_everything, in_fork, on_fake_gpu

Keys = dict[str, list[int]]
"""Shape by name: the whole tensor's, of all ranks, as a checkpoint stores it."""


def keys_of_transformer_engine(case: Case, folder: Path, changes: Mapping[str, Any] | None = None) -> Keys:
    """Of the layers that a rank trains.

    `changes`: fields of the model's config that are other than the policy says, under NeMo.
    """

    def build() -> Any:
        if case.trainer == "core":
            from nemo_sspo.megatron.core.policy import policy_chunks
            from nemo_sspo.megatron.runtime.groups import Groups

            (chunk,) = policy_chunks(folder, case.parallel, case.precision, case.train, Groups.of_megatron())
            return chunk
        from nemo_sspo.megatron.nemo.model_config import training_config

        config = training_config(folder, case.parallel, case.precision, case.train)
        config.tensor_model_parallel_size, config.sequence_parallel = case.parallel.tensor, case.parallel.sequence
        for name, value in (changes or {}).items():
            setattr(config, name, value)
        return config.configure_model(tokenizer=None)

    return _keys(case, folder, build)


def keys_of_conversion(case: Case, folder: Path) -> Keys:
    """Of the host's layers, after they have taken all that the conversion makes of the Hugging Face model."""

    def build() -> Any:
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        from nemo_sspo.megatron.models.families import read_hf_config
        from nemo_sspo.megatron.models.shape import Shape
        from nemo_sspo.megatron.models.weight_map import conversions

        policy = AutoModelForCausalLM.from_config(AutoConfig.for_model(**case.model), dtype=torch.bfloat16)
        tensors, shape = policy.state_dict(), Shape.of(read_hf_config(folder))
        state = {each.ours: each.join(*(tensors[name] for name in each.theirs)) for each in conversions(shape)}
        model = _host_model(case, folder)
        taken = model.load_state_dict(state, strict=False)
        missing = [name for name in taken.missing_keys if not name.endswith("_extra_state")]
        if missing or taken.unexpected_keys:
            raise KeyError(f"not converted: {missing}; without a place: {taken.unexpected_keys}")
        return model

    return _keys(replace(case, parallel=Parallel()), folder, build)


def _host_model(case: Case, folder: Path) -> Any:
    import torch

    if case.trainer == "core":
        from nemo_sspo.megatron.core.policy import host_policy

        return host_policy(folder, torch.bfloat16)
    from nemo_sspo.megatron.nemo.model_config import host_config

    return host_config(folder, torch.bfloat16).configure_model(tokenizer=None)


def _keys(case: Case, folder: Path, build: Callable[[], Any]) -> Keys:
    import_everything()
    (folder / "config.json").write_text(json.dumps(dict(case.model)))
    answer = folder / "keys.json"

    def tell() -> None:
        import torch.distributed as dist
        from megatron.core import parallel_state
        from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed

        dist.init_process_group("nccl")
        parallel_state.initialize_model_parallel(
            case.parallel.tensor,
            expert_model_parallel_size=case.parallel.expert,
            expert_tensor_parallel_size=case.parallel.expert_tensor,
            create_gloo_process_groups=False,
        )
        model_parallel_cuda_manual_seed(1)
        answer.write_text(json.dumps(_stored(build())))

    in_fork(lambda: on_fake_gpu(case, tell))
    return json.loads(answer.read_text())


def _stored(model: Any) -> Keys:
    from megatron.core.dist_checkpointing.dict_utils import nested_values
    from megatron.core.dist_checkpointing.mapping import ShardedTensor, apply_factories

    from nemo_sspo.megatron.checkpoints.weights import KEY_PREFIX, sharded_weights

    state = sharded_weights(model)
    apply_factories(state)  # gate and up are cut apart
    keys: Keys = {}
    for part in nested_values(state):
        if not isinstance(part, ShardedTensor):
            raise TypeError(f"{part} is no tensor of a checkpoint")
        # What layers have in common lies in one tensor of all of them.
        keys[part.key.removeprefix(KEY_PREFIX)] = list(part.global_shape)
    return keys
