from __future__ import annotations

from types import SimpleNamespace

import pytest

pytest.importorskip("nemo.collections.llm")

import torch
from megatron.core.optimizer.distrib_optimizer import DistributedOptimizer
from nemo.lightning.io import pl as nemo_checkpoint_io
from nemo.lightning.pytorch.strategies import MegatronStrategy
from torch.distributed import DeviceMesh

from nemo_sspo.config.precisions import Fp32Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.megatron.nemo import recipe, strategy
from nemo_sspo.megatron.nemo.cpu import nemo_cpu_runtime
from nemo_sspo.megatron.optimizer.torch_adam import torch_adam_resumes


def test_sgd_takes_its_momentum_from_the_settings() -> None:
    made = recipe.optimizer(Train(optimizer="sgd", sgd_momentum=0.5), Fp32Precision(), Parallel(), 3)
    assert made.config.sgd_momentum == 0.5


def test_the_cpu_runtime_leaves_nothing_behind() -> None:
    def patched() -> list[object]:
        return [
            nemo_checkpoint_io._fix_tensors_device,
            DeviceMesh.__dict__["from_group"].__func__,
            DistributedOptimizer._set_main_param_and_optimizer_states,
        ]

    before = patched()
    with nemo_cpu_runtime(), torch_adam_resumes():
        inside = patched()
    assert patched() == before
    if torch.cuda.is_available():
        assert inside[:-1] == before[:-1]
    else:
        assert all(one is not other for one, other in zip(inside, before, strict=True))


def test_torchs_adam_resumes_with_a_gpu_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no Transformer Engine megatron-core takes it on GPUs too. What resumes it is what the tests of
    resuming run on the CPU, and the strategy of GPUs has it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    before = DistributedOptimizer._set_main_param_and_optimizer_states
    with nemo_cpu_runtime(), torch_adam_resumes():
        assert DistributedOptimizer._set_main_param_and_optimizer_states is not before
    parameter = torch.nn.Parameter(torch.ones(3))
    adam = torch.optim.AdamW([parameter])
    made = object.__new__(strategy.PolicyStrategy)
    made._optimizers = [SimpleNamespace(mcore_optimizer=SimpleNamespace(optimizer=adam))]
    monkeypatch.setattr(MegatronStrategy, "optimizer_sharded_state_dict", lambda *_: {})
    made.optimizer_sharded_state_dict(is_loading=True)
    assert sorted(adam.state[parameter]) == ["exp_avg", "exp_avg_sq", "step"]


def test_streams_meet_before_and_after_the_weights_are_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    """NeMo wraps on a stream of its own. There is none here, so what is called is written down."""
    calls: list[str] = []
    note = lambda name: lambda *_: calls.append(name)  # noqa: E731
    monkeypatch.setattr(strategy, "load_policy", note("load"))
    monkeypatch.setattr(MegatronStrategy, "init_model_parallel", note("wrap"))
    monkeypatch.setattr(torch.cuda, "synchronize", note("wait"))
    made = recipe.strategy(Parallel(), Fp32Precision(), trains=True)
    monkeypatch.setattr(made, "megatron_parallel", [], raising=False)
    made.init_model_parallel()
    assert calls == ["load", "wait", "wrap", "wait"]
