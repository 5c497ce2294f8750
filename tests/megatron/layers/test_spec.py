"""The local layers against Megatron's own attention and torch's norms, inside one forked rank."""

from __future__ import annotations

import logging
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

pytest.importorskip("megatron.core")

import torch
from megatron.core.extensions.transformer_engine import TENorm
from megatron.core.fusions.fused_bias_dropout import get_bias_dropout_add
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
from megatron.core.tensor_parallel import model_parallel_cuda_manual_seed
from megatron.core.transformer.dot_product_attention import DotProductAttention
from megatron.core.transformer.enums import AttnMaskType
from megatron.core.transformer.moe.moe_layer import MoELayer
from torch import Tensor

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.layers import spec as layers
from nemo_sspo.megatron.layers.attention_mask import PackedRow
from nemo_sspo.megatron.layers.gemma2 import NormThenAdd
from tests.megatron.layers.one_layer import GROUPS, HEADS, ROWS, SEQUENCE, SIZE, attention, config, in_one_rank

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="local layers are for machines without CUDA")


def inputs() -> list[Tensor]:
    draw = torch.Generator().manual_seed(2)
    return [torch.randn(SEQUENCE, ROWS, heads, SIZE, generator=draw) for heads in (HEADS, GROUPS, GROUPS)]


@pytest.mark.parametrize("changes", [{}, {"window_size": (3, 0)}, {"apply_query_key_layer_scaling": True}], ids=str)
def test_same_attention_as_megatrons(changes: dict[str, Any]) -> None:
    def both() -> tuple[Tensor, Tensor]:
        local, megatron = (attention(kind, **changes) for kind in (layers.LocalCoreAttention, DotProductAttention))
        return local(*inputs()), megatron(*inputs(), attention_mask=None)

    torch.testing.assert_close(*in_one_rank(both), rtol=1e-5, atol=1e-6)


def test_capped_attention_by_its_formula() -> None:
    cap, scale, window = 1.5, 0.4, 3

    def capped() -> Tensor:
        module_config = config(window_size=(window, 0), softmax_scale=scale)
        module_config.attn_logit_softcapping = cap
        build = partial(layers.LocalCoreAttention, softmax_scale=scale)  # as Megatron's attention hands it on
        return build(module_config, layer_number=1, attn_mask_type=AttnMaskType.causal, attention_type="self")(
            *inputs()
        )

    query, key, value = (x.double() for x in inputs())
    expected = torch.zeros(SEQUENCE, ROWS, HEADS, SIZE, dtype=torch.float64)
    for at in range(SEQUENCE):
        seen = slice(max(at - window, 0), at + 1)
        for head in range(HEADS):
            group = head // (HEADS // GROUPS)
            scores = torch.einsum("bd,tbd->tb", query[at, :, head], key[seen, :, group]) * scale
            weights = (cap * (scores / cap).tanh()).softmax(dim=0)
            expected[at, :, head] = torch.einsum("tb,tbd->bd", weights, value[seen, :, group])
    torch.testing.assert_close(in_one_rank(capped).double(), expected.flatten(2), rtol=1e-5, atol=1e-6)


def test_packed_sequences_do_not_see_each_other() -> None:
    bounds = [0, 3, 4, 10]

    def both() -> tuple[Tensor, Tensor]:
        local = attention(layers.LocalCoreAttention)
        rows = [x[:, 0] for x in inputs()]
        packing = PackedRow(qkv_format="thd", cu_seqlens_q=torch.tensor(bounds, dtype=torch.int32))
        alone = [local(*(x[a:b, None] for x in rows))[:, 0] for a, b in pairwise(bounds)]
        return local(*rows, packed_seq_params=packing), torch.cat(alone)

    torch.testing.assert_close(*in_one_rank(both), rtol=1e-5, atol=1e-6)


def test_dropout_acts_in_training_only_and_follows_the_seed() -> None:
    def draws() -> list[Tensor]:
        module = attention(layers.LocalCoreAttention, attention_dropout=0.5)
        results = []
        for train in (False, True, True):
            model_parallel_cuda_manual_seed(7)
            results.append(module.train(train)(*inputs()))
        results.append(attention(layers.LocalCoreAttention)(*inputs()))
        return results

    evaluated, trained, again, without = in_one_rank(draws)
    assert torch.equal(evaluated, without)
    assert torch.equal(trained, again)
    assert (trained - without).abs().max() > 0.1


def test_what_local_attention_cannot_do_is_refused() -> None:
    with pytest.raises(UserError, match="causal"):
        layers.LocalCoreAttention(config(), 1, AttnMaskType.padding, "self")
    with pytest.raises(UserError, match="softmax_type 'learnable'"):
        attention(layers.LocalCoreAttention, softmax_type="learnable")


@pytest.mark.parametrize("zero_centered", [False, True])
def test_norms_are_torchs(zero_centered: bool) -> None:
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    build = partial(config, layernorm_zero_centered_gamma=zero_centered)
    rms = layers.LocalNorm(build(), 16, eps=1e-6)
    layer = layers.LocalNorm(build(normalization="LayerNorm"), 16)
    torch.testing.assert_close(rms(x), torch.nn.functional.rms_norm(x, (16,), eps=1e-6))
    torch.testing.assert_close(layer(x), torch.nn.functional.layer_norm(x, (16,), eps=1e-5))
    with torch.no_grad():
        rms.weight += 1  # a gain of 2 in either convention
    torch.testing.assert_close(rms(x), 2 * torch.nn.functional.rms_norm(x, (16,), eps=1e-6))


@pytest.mark.parametrize("sequence_parallel", [False, True])
def test_norm_parameters_carry_the_mark_that_sums_their_gradients_over_tp(sequence_parallel: bool) -> None:
    shape = {"tensor_model_parallel_size": 2, "sequence_parallel": sequence_parallel, "normalization": "LayerNorm"}
    norm = layers.LocalNorm(config(**shape), 16)
    assert {parameter.sequence_parallel for parameter in norm.parameters()} == {sequence_parallel}


def test_without_a_gpu_the_local_layers_are_chosen_and_the_log_says_so() -> None:
    def chosen() -> tuple[bool, list[str]]:
        messages: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: messages.append(record.getMessage())
        logger = logging.getLogger(layers.__name__)
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        return layers.layer_spec(config()).layer_norm is layers.LocalNorm, messages

    is_local, messages = in_one_rank(chosen)
    assert is_local
    assert any("local" in message for message in messages)


def test_a_gpu_without_transformer_engine_is_refused_unless_local_layers_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Else it would train slowly on them without a word."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(layers, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"no Transformer Engine in this environment: .*train\.layers=local"):
        layers.layer_spec(config())
    assert not layers.takes_transformer_engine("local")
    monkeypatch.setattr(layers, "find_spec", lambda name: object())
    assert layers.takes_transformer_engine("auto")
    assert not layers.takes_transformer_engine("local")


WINDOW: dict[str, Any] = {"window_size": (3, 0)}
CONTEXT: dict[str, Any] = {"context_parallel_size": 2}


@pytest.mark.parametrize(
    ("cap", "shares_prompts", "changes", "is_flex"),
    [
        (None, False, {}, False),
        (50.0, False, {}, True),
        (None, True, {}, True),
        (None, False, WINDOW, False),
        (None, False, CONTEXT, False),
        (None, False, WINDOW | CONTEXT, True),
    ],
)
def test_on_a_gpu_only_what_transformer_engine_cannot_do_is_not_its(
    cap: float | None, shares_prompts: bool, changes: dict[str, Any], is_flex: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Transformer Engine is not installed here: Megatron's local spec stands for its one."""
    monkeypatch.setattr(layers, "transformer_engine_usable", lambda: True)
    monkeypatch.setattr(layers, "get_num_layers_to_build", lambda *_args, **_kwargs: 1)
    monkeypatch.setattr(
        layers,
        "get_gpt_layer_with_transformer_engine_spec",
        lambda **_: get_gpt_layer_local_spec(normalization="RMSNorm"),
    )
    gemma = config(**changes)
    gemma.sandwich_norms, gemma.attn_logit_softcapping = True, cap
    (layer,) = layers.layer_spec(gemma, shares_prompts=shares_prompts).layer_specs
    spec = layer.submodules
    expected = layers.FlexCoreAttention if is_flex else DotProductAttention
    assert spec.self_attention.submodules.core_attention is expected
    assert {spec.self_attn_bda.module, spec.mlp_bda.module} == {NormThenAdd}
    assert spec.self_attn_bda.params["norm"] is TENorm
    (plain,) = layers.layer_spec(config()).layer_specs
    assert plain.submodules.self_attn_bda is get_bias_dropout_add


def test_each_stage_of_a_mixture_has_experts_in_its_own_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    def of_stage(stage: int) -> list[bool]:
        # In the stage's chunk of a pipeline of two, with two chunks each.
        monkeypatch.setattr(layers, "get_num_layers_to_build", lambda *_args, **_kwargs: 2)
        monkeypatch.setattr(layers, "get_transformer_layer_offset", lambda *_args: 2 * stage)
        spec = layers.local_layer_spec(mixed)
        # Megatron describes them by a partial from 0.18 on, by a spec before.
        made = [layer.submodules.mlp for layer in spec.layer_specs]
        return [MoELayer in (getattr(mlp, "module", None), getattr(mlp, "func", None)) for mlp in made]

    pattern = [0, 1, 1, 1, 0, 0]
    mixed = config(num_layers=6, num_moe_experts=2, moe_ffn_hidden_size=8, moe_layer_freq=pattern)
    assert [of_stage(stage) for stage in range(3)] == [[False, True], [True, True], [False, False]]


@pytest.mark.parametrize("has_gpu", [False, True])
def test_local_layers_attend_in_plain_torch_without_a_gpu_only(has_gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def chosen() -> type:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
        spec, *_ = layers.local_layer_spec(config()).layer_specs
        return spec.submodules.self_attention.submodules.core_attention

    assert in_one_rank(chosen) is (layers.FlexCoreAttention if has_gpu else layers.LocalCoreAttention)


class _Squared(torch.autograd.Function):
    """What Transformer Engine's norm does where gradients are enabled: it saves its input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return weight * x**2

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return 2 * weight * x * grad, (x**2 * grad).sum()


class _SavingNorm(torch.nn.Module):
    def __init__(self, **_: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(3.0))

    def forward(self, x: Tensor) -> Tensor:
        """As in transformer_engine/pytorch/ops/fuser.py, `OperationFuser.__call__`."""
        return _Squared.apply(x, self.weight) if torch.is_grad_enabled() else self.weight * x**2


def test_a_norm_behind_a_branch_saves_nothing_in_inference_mode() -> None:
    """Megatron's layer enables gradients around it even there (`bias_dropout_add_exec_handler`)."""
    add = NormThenAdd(config(), _SavingNorm)
    with torch.inference_mode():
        branch, residual = torch.full((2,), 2.0), torch.ones(2)
        with torch.enable_grad():
            out = add(False, False)((branch, None), residual, 0.0)
    assert out.tolist() == [13.0, 13.0]
    branch = torch.full((2,), 2.0, requires_grad=True)
    with torch.enable_grad():
        add(True, False)((branch, None), torch.ones(2), 0.0).sum().backward()
    assert branch.grad is not None
    assert branch.grad.tolist() == [12.0, 12.0]
    assert add.norm.weight.grad.tolist() == 8.0
