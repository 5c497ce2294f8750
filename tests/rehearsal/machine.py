"""What else a rank takes for granted and a pretended machine cannot give. Each replacement says why it is one."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.distributed as dist
from megatron.core.dist_checkpointing import serialization, state_dict_utils, validation
from megatron.core.dist_checkpointing.strategies import common, fully_parallel
from megatron.core.dist_checkpointing.strategies import torch as torch_files
from megatron.core.dist_checkpointing.strategies.async_utils import AsyncCallsQueue
from megatron.core.transformer.moe.router import TopKRouter
from torch import nn
from torch.distributed.checkpoint import default_planner
from torch.distributed.checkpoint.utils import _DistWrapper
from torch.utils._python_dispatch import _disable_current_modes

from nemo_sspo.megatron.batches import microbatch_plan
from nemo_sspo.megatron.core import training as core_training
from tests.rehearsal import kernels, process_groups
from tests.rehearsal.case import Case


def pretend(case: Case) -> None:
    """Make this process that rank. It cannot be undone: fork first."""
    rank, world = str(case.rank), str(case.parallel.world_size)
    # As torchrun and Slurm's steps set them, each rank alone on its node.
    os.environ |= {
        "RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "NODE_RANK": rank,
        "GROUP_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "rehearsal",
    }  # fmt: skip
    # A fork of a process that has initialized CUDA must not use it; nothing of this device can break.
    torch.cuda._is_in_bad_fork = bool
    process_groups.pretend(case.rank, case.parallel.world_size)
    kernels.install()
    nn.Module._apply = _leave_parameters
    TopKRouter.routing = _in_turn(TopKRouter.routing)
    microbatch_plan.MicrobatchPlan.build = _on_host(microbatch_plan.MicrobatchPlan.build)
    if case.checkpoint is None:
        core_training.load_weights = _load_nothing
        core_training.save_weights = core_training.save_part = _save_nothing
        if case.trainer == "nemo":
            from nemo_sspo.megatron.nemo import live, strategy

            strategy.load_policy = _adapt_only
            live.save_weights = live.save_part = _save_nothing
    _save_and_load_alone()


def _save_and_load_alone() -> None:
    """One rank cannot know which parts of a tensor the others save: `tests/distributed` has all of them."""
    for module in (state_dict_utils, fully_parallel, validation):
        module.validate_sharding_integrity = lambda *_, **__: None
    # Of one plan torch checks all but this: that the parts make up the whole.
    validate = default_planner._validate_global_plan
    default_planner._validate_global_plan = lambda plans, metadata: validate(plans[:1], metadata)
    # Replicas would save a share each of what they all hold. Here the first one saves all of it.
    fully_parallel.FullyParallelSaveStrategyWrapper.apply_saving_parallelization = lambda *_: None
    # They do load a share each. Of objects the first replica would load all and hand them on; here each one does.
    loader = fully_parallel.FullyParallelLoadStrategyWrapper
    loader._defer_loading_sharded_objects = staticmethod(_load_all(loader._defer_loading_sharded_objects))
    fully_parallel.exchange_loaded_objects_gather_object = lambda loaded: loaded


def write_whole_states() -> None:
    """Have this rank write all that it holds and, as rank 0 does, what all ranks have in common and the index of it
    all: the state has then what this rank and its replicas load."""
    torch_files.is_main_replica = lambda _: True
    file = serialization if hasattr(serialization, "save_common") else common.TorchCommonSaveStrategy
    for owner, name in ((file, "save_common"), (AsyncCallsQueue, "maybe_finalize_async_calls")):
        setattr(owner, name, _as_rank_0(getattr(owner, name)))
    make = _DistWrapper.__init__

    def of_the_first(wrapper: Any, *args: Any) -> None:
        make(wrapper, *args)
        wrapper.is_coordinator = True

    _DistWrapper.__init__ = of_the_first


def _as_rank_0(function: Callable[..., Any]) -> Callable[..., Any]:
    def done(*args: Any, **kwargs: Any) -> Any:
        with mock.patch.object(dist, "get_rank", return_value=0):
            return function(*args, **kwargs)

    return done


def _load_all(defer: Callable[..., Any]) -> Callable[..., Any]:
    def none_deferred(state: Any) -> tuple[Any, ...]:
        objects, others, own, of_others = defer(state)
        return objects, others, own | of_others, {}

    return none_deferred


def _leave_parameters(module: nn.Module, function: Callable[..., Any], recurse: bool = True) -> nn.Module:
    """`Module._apply`: torch cannot swap a fake parameter for another. All but routers are on the GPU, in their type,
    already; moved to the host they are when training has ended."""
    for owner in module.modules() if recurse else [module]:
        for name, parameter in [item for item in owner._parameters.items() if item[1] is not None]:
            moved = function(parameter.detach())
            if moved.device.type == "cuda" and moved.dtype != parameter.dtype:
                raise TypeError(f"a parameter of {parameter.dtype} would become {moved.dtype}")
            if moved.device.type == "cuda" and parameter.device.type != "cuda":
                owner._parameters[name] = _with_attributes_of(parameter, nn.Parameter(moved))
    return module


def _with_attributes_of(parameter: nn.Parameter, moved: nn.Parameter) -> nn.Parameter:
    moved.__dict__.update(parameter.__dict__)
    return moved


def _on_host(function: Callable[..., Any]) -> Callable[..., Any]:
    """Without the fake GPU's mode, which asks at every operator whether it is one of the GPU: for speed alone."""

    def build(*args: Any) -> Any:
        with _disable_current_modes():
            return function(*args)

    return build


def _in_turn(function: Callable[..., Any]) -> Callable[..., Any]:
    """Tokens take the experts in turn, so that all have as many: which have the highest scores nobody knows here."""

    def routing(router: TopKRouter, *args: Any, **kwargs: Any) -> tuple[Any, torch.Tensor]:
        probs, unknown_TE = function(router, *args, **kwargs)
        with _disable_current_modes():
            tokens, experts = unknown_TE.shape
            taken_TK = (torch.arange(tokens * router.topk) % experts).view(tokens, router.topk)
            routing_TE = torch.zeros(tokens, experts, dtype=torch.bool).scatter_(1, taken_TK, True)
        return probs, routing_TE.to(unknown_TE.device, non_blocking=True)

    return routing


def _adapt_only(chunks: list[Any]) -> None:
    """`load_policy` without a checkpoint: tens of gigabytes that nobody has here."""
    from nemo_sspo.megatron.nemo import model

    for chunk in chunks:
        if chunk.adapters is not None:
            model.add_adapters(chunk.module, chunk.adapters, chunk.groups.tp)


def _load_nothing(*_: Any) -> None:
    """`load_weights` of such a model; what is adapted is adapted after it."""


def _save_nothing(*_: Any) -> None:
    """`save_weights` of a model of tens of gigabytes."""
