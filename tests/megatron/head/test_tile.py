"""Both tile implementations against double precision. `make test-kernels` has the Triton one, in its interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from types import ModuleType

import pytest

pytest.importorskip("megatron.core")

import torch
from torch import Tensor

from nemo_sspo.megatron.head import tile_torch
from nemo_sspo.megatron.head.common import logits_tile
from nemo_sspo.megatron.head.normalizer import Normalizer
from nemo_sspo.megatron.head.tile import math_on

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
IMPLEMENTATIONS = [pytest.param(tile_torch, id="plain")]
if find_spec("triton") is None:
    IMPLEMENTATIONS.append(pytest.param(None, id="triton", marks=pytest.mark.skip(reason="no Triton here")))
else:
    from nemo_sspo.megatron.head import tile_triton

    runs = pytest.mark.skipif(DEVICE not in tile_triton.DEVICES, reason="needs a GPU or TRITON_INTERPRET=1")
    IMPLEMENTATIONS.append(pytest.param(tile_triton, id="triton", marks=runs))
both = pytest.mark.parametrize("math", IMPLEMENTATIONS)

# What fp32 keeps of a logit: exactly what is stored, and of a capped one the rounding of its tanh and its product.
ROUNDING = 2.0**-22
# bf16 rounds to 8 bits. Triton's interpreter cuts off where a GPU rounds to nearest.
BF16 = {"torch": 2.0**-8, "triton": 2.0**-8 if DEVICE == "cuda" else 2.0**-7}

TOKENS = 6
SLOPES = [1.0, -2.0, 0.5, 0.0, 300.0, -1e-3]
SIZES = [1, 5, 37, 4096, 4097, 9000]
"""Columns: one; within a block, off its alignment; exactly one block; one more; several."""


def tile(x_CV: Tensor) -> Tensor:
    """These logits, as the heads' product lays them out."""
    made = logits_tile(x_CV.new_zeros(len(x_CV), 1), x_CV.new_zeros(x_CV.shape[1], 1))
    # What a product finds in fresh memory beyond a row's last column must not matter.
    made.as_strided((len(made), made.stride(0)), made.stride()).fill_(torch.nan)
    return made.copy_(x_CV)


def problem(columns: int, dtype: torch.dtype = torch.float32, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, labels and dloss_dlogp. The first labels are in the middle, first and last; others are other ranks'."""
    draw = torch.Generator().manual_seed(columns)
    logits = (scale * torch.randn(TOKENS, columns, generator=draw)).to(DEVICE, dtype)
    labels = torch.tensor([columns // 2, 0, columns - 1, -1, columns, columns // 3], device=DEVICE)
    return logits, labels, torch.tensor(SLOPES, device=DEVICE)


def capped(logits_CV: Tensor, softcap: float | None) -> Tensor:
    x_CV = logits_CV.double()
    return x_CV if softcap is None else softcap * (x_CV / softcap).tanh()


def statistics_in_double(logits: Tensor, labels: Tensor, softcap: float | None) -> tuple[Tensor, Tensor, Tensor]:
    y = capped(logits, softcap)
    maximum = y.amax(-1)
    is_here = (labels >= 0) & (labels < y.shape[1])
    target = torch.where(is_here, y.gather(1, torch.where(is_here, labels, 0)[:, None])[:, 0], 0.0)
    return maximum, (y - maximum[:, None]).exp().sum(-1), target


def gradient_in_double(
    logits: Tensor, labels: Tensor, dloss_dlogp: Tensor, elsewhere: float, softcap: float | None
) -> tuple[Tensor, Normalizer]:
    """By autograd of dloss_dlogp . log p(label), where other ranks hold one more column each, of logit `elsewhere`."""
    x = logits.double().requires_grad_()
    others = torch.full((len(x), 1), elsewhere, dtype=x.dtype, device=x.device)
    y = torch.cat([capped(x, softcap), others], dim=-1)
    is_here = (labels >= 0) & (labels < x.shape[1])
    logps = y.log_softmax(-1).gather(1, torch.where(is_here, labels, x.shape[1])[:, None])[:, 0]
    (dloss_dlogp.double() * logps).sum().backward()
    maximum = y.detach().amax(-1)
    total = (y.detach() - maximum[:, None]).exp().sum(-1)
    return x.grad, Normalizer(maximum.float(), total.float())


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Largest in any row, relative to the row's largest element."""
    largest = expected.abs().amax(-1, keepdim=True).clamp_min(1e-30)
    return float(((found.double() - expected).abs() / largest).max())


@both
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_statistics(math: ModuleType, dtype: torch.dtype, columns: int, softcap: float | None) -> None:
    logits, labels, _ = problem(columns, dtype)
    made = tile(logits)
    expected = statistics_in_double(logits, labels, softcap)
    bound = 1e-6 if softcap is None else 1e-6 + ROUNDING * float(expected[0].abs().max())
    for found, right in zip(math.statistics(made, labels, softcap), expected, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found.double(), right, rtol=bound, atol=1e-6)
    assert torch.equal(made, logits)


@both
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_gradient(math: ModuleType, dtype: torch.dtype, columns: int, softcap: float | None) -> None:
    """fp32 to 1e-6 of a row's largest; bf16 to its own rounding of every single element."""
    logits, labels, dloss_dlogp = problem(columns, dtype)
    expected, normalizer = gradient_in_double(logits, labels, dloss_dlogp, 1.5, softcap)
    made = tile(logits)
    math.to_gradient_(made, labels, dloss_dlogp, normalizer, softcap)
    assert made.dtype == dtype
    if dtype == torch.float32:
        bound = 1e-6 if softcap is None else 1e-6 + ROUNDING * float(logits.abs().max())
        assert relative_difference(made, expected) < bound
    else:
        rounding = BF16[math.__name__.rpartition("_")[2]]
        torch.testing.assert_close(made.double(), expected, rtol=rounding, atol=1e-6)
    assert made[3].abs().max() == 0  # its slope


@both
@pytest.mark.parametrize("softcap", [None, 30.0])
def test_logits_of_ten_thousand(math: ModuleType, softcap: float | None) -> None:
    """One log-normalizer in fp32 would be off by 5e-4 here."""
    logits, labels, dloss_dlogp = problem(37, scale=1.0)
    logits += torch.tensor([1e4, -1e4, 1e4, 1e4, -1e4, 9_999.0], device=DEVICE)[:, None]
    logits[0, 3], logits[2, 36] = -1e4, -1e4
    for found, right in zip(
        math.statistics(tile(logits), labels, softcap), statistics_in_double(logits, labels, softcap), strict=True
    ):
        torch.testing.assert_close(found.double(), right, rtol=1e-6, atol=1e-6)
    expected, normalizer = gradient_in_double(logits, labels, dloss_dlogp, -1e4, softcap)
    made = tile(logits)
    math.to_gradient_(made, labels, dloss_dlogp, normalizer, softcap)
    assert made.isfinite().all()
    assert relative_difference(made, expected) < 1e-6


@both
def test_a_row_whose_maximum_keeps_rising(math: ModuleType) -> None:
    """Each block of columns outgrows what was summed before it; and one whose first column leads by far."""
    logits = torch.linspace(-50, 50, 20_000, device=DEVICE).repeat(2, 1)
    logits[1] = logits[1].flip(0)
    labels = torch.tensor([19_999, 0], device=DEVICE)
    expected = statistics_in_double(logits, labels, None)
    for found, right in zip(math.statistics(tile(logits), labels, None), expected, strict=True):
        torch.testing.assert_close(found.double(), right, rtol=1e-6, atol=0)


@both
@pytest.mark.parametrize("cap", [0.1, 1.0, 30.0])
def test_the_cap_near_nought_and_far_out(math: ModuleType, cap: float) -> None:
    """Relative precision at every size of a logit: tanh by exponentials alone loses it near 0."""
    ratio = torch.cat([torch.logspace(-6, 1, 40), -torch.logspace(-6, 1, 40)]).to(DEVICE)
    logits = (cap * ratio)[:, None]
    labels = torch.zeros(len(logits), dtype=torch.int64, device=DEVICE)
    _, _, target = math.statistics(tile(logits), labels, cap)
    torch.testing.assert_close(target.double(), capped(logits, cap)[:, 0], rtol=5e-7, atol=0)


@both
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_is_not_hidden(math: ModuleType, bad: float) -> None:
    logits, labels, dloss_dlogp = problem(37)
    logits[1, 5] = bad
    maximum, total, _ = math.statistics(tile(logits), labels, None)
    assert total.isfinite().tolist() == [True, False, True, True, True, True]
    made = tile(logits)
    math.to_gradient_(made, labels, dloss_dlogp, Normalizer(maximum, total), None)
    assert made.isfinite().all(dim=-1).tolist() == [True, False, True, True, True, True]


def test_plain_torch_takes_a_tile_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four rows and two: to the last bit as all of them at once."""
    logits, labels, dloss_dlogp = problem(37)
    _, normalizer = gradient_in_double(logits, labels, dloss_dlogp, 1.5, 2.0)
    statistics, gradients = [], []
    for rows in (TOKENS, 4):
        monkeypatch.setattr(tile_torch, "ELEMENTS_ON_CPU", rows * 37)
        monkeypatch.setattr(tile_torch, "ELEMENTS_ELSEWHERE", rows * 37)
        statistics.append(torch.stack(tile_torch.statistics(logits, labels, 2.0)))
        gradients.append(logits.clone())
        tile_torch.to_gradient_(gradients[-1], labels, dloss_dlogp, normalizer, 2.0)
    assert torch.equal(*statistics)
    assert torch.equal(*gradients)


@both
def test_slopes_that_autograd_expanded(math: ModuleType) -> None:
    """Of a sum over tokens: one number with stride 0."""
    logits, labels, _ = problem(37)
    dloss_dlogp = torch.tensor(-2.0, device=DEVICE).expand(TOKENS)
    expected, normalizer = gradient_in_double(logits, labels, dloss_dlogp, 1.5, None)
    made = tile(logits)
    math.to_gradient_(made, labels, dloss_dlogp, normalizer, None)
    assert relative_difference(made, expected) < 1e-6


@both
def test_only_the_tile_is_written(math: ModuleType) -> None:
    """It may be part of a larger one: rows before and after stay, and so does all beyond its alignment."""
    columns = 37
    logits, labels, dloss_dlogp = problem(columns)
    around = torch.full((TOKENS + 2, 128), 7.0, device=DEVICE)
    part = around[1:-1, :columns]
    part.copy_(logits)
    _, normalizer = gradient_in_double(logits, labels, dloss_dlogp, 1.5, None)
    math.to_gradient_(part, labels, dloss_dlogp, normalizer, None)
    assert (around[0] == 7).all()
    assert (around[-1] == 7).all()
    assert (around[:, 48:] == 7).all()
    alone = tile(logits)
    math.to_gradient_(alone, labels, dloss_dlogp, normalizer, None)
    assert torch.equal(part, alone)


@both
def test_addresses_beyond_32_bits(math: ModuleType) -> None:
    """Rows 2^30 elements apart: the third begins at 2^31. The memory between them is never touched."""
    logits, labels, dloss_dlogp = (x[:3] for x in problem(37, torch.bfloat16))
    far = torch.empty(2**31 + 64, dtype=torch.bfloat16, device=DEVICE).as_strided((3, 37), (2**30, 1))
    far.copy_(logits)
    near = tile(logits)
    for found, right in zip(math.statistics(far, labels, None), math.statistics(near, labels, None), strict=True):
        assert torch.equal(found, right)
    _, normalizer = gradient_in_double(logits, labels, dloss_dlogp, 1.5, None)
    for made in (far, near):
        math.to_gradient_(made, labels, dloss_dlogp, normalizer, None)
    assert torch.equal(far, near)


@pytest.mark.skipif(find_spec("triton") is None, reason="no Triton here")
def test_machine_code_reads_a_tile_once_sixteen_bytes_at_a_time() -> None:
    """For a vocabulary that no power of two divides. Triton compiles for Hopper where there is no GPU at all."""
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    command = [sys.executable, "-m", "tests.megatron.head.compile_tile", "90"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    per_thread = 4096 // 256 * 2 // 16  # bytes of a block in bf16, 16 at a time
    for softcap in ("None", "30.0"):
        assert found[f"statistics {softcap}"] == {"wide loads": per_thread, "wide stores": 0}
        assert found[f"gradient {softcap}"] == {"wide loads": per_thread, "wide stores": per_thread}


def test_the_kernels_refuse_a_tile_that_is_not_aligned() -> None:
    tile_triton = pytest.importorskip("nemo_sspo.megatron.head.tile_triton")
    labels = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    for made in (torch.zeros(4, 37, device=DEVICE), torch.zeros(4, 64, device=DEVICE)[:, ::2]):
        with pytest.raises(ValueError, match="logits_tile"):
            tile_triton.statistics(made, labels, None)


def test_which_implementation_serves() -> None:
    """Triton where it runs, plain torch everywhere else."""
    runs_triton = find_spec("triton") is not None and DEVICE in tile_triton.DEVICES
    expected = "nemo_sspo.megatron.head.tile_triton" if runs_triton else "nemo_sspo.megatron.head.tile_torch"
    assert math_on(DEVICE).__name__ == expected
    assert math_on("meta") is tile_torch
