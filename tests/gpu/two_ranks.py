"""One of two tensor-parallel ranks under torchrun: each head, cut over the ranks, against log_softmax over all logits.

`test_two_gpus.py` starts it over NCCL; without a GPU it runs over gloo:
`torchrun --nproc-per-node 2 -m tests.gpu.two_ranks`.
"""

from __future__ import annotations

import os
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from nemo_sspo.megatron.head.one_pass import one_pass_logps
from nemo_sspo.megatron.head.recompute import response_logps
from nemo_sspo.megatron.runtime.cpu_runtime import cpu_runtime

SEQUENCE, ROWS, HIDDEN, VOCAB, PADDED_VOCAB, CAP = 32, 3, 64, 1_003, 1_152, 2.0
BOUND = 1e-4  # of fp32; relative to the largest element


def main() -> None:
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("highest")  # NGC's containers have TF32 on
    with cpu_runtime():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        for name in ("recompute", "recompute capped", "one pass", "one pass capped"):
            _check(name, device)
        dist.barrier()
        dist.destroy_process_group()


def _check(name: str, device: torch.device) -> None:
    draw = torch.Generator().manual_seed(0)  # the same on both ranks
    hidden = torch.randn(SEQUENCE, ROWS, HIDDEN, generator=draw).to(device)
    weight = (torch.randn(PADDED_VOCAB, HIDDEN, generator=draw) / HIDDEN**0.5).to(device)
    labels_BS = torch.randint(VOCAB, (ROWS, SEQUENCE), generator=draw).to(device)
    index_BS = torch.full((ROWS, SEQUENCE), -1, device=device)
    index_BS[:, 5:] = torch.arange(ROWS, device=device)[:, None]
    upstream_R = torch.tensor([1.0, -2.0, 0.5], device=device)
    cap = CAP if "capped" in name else None

    # Sequence parallelism: each rank has half of the positions, and gets their gradient.
    own_hidden, own_weight = (whole.chunk(2)[dist.get_rank()].clone().requires_grad_() for whole in (hidden, weight))
    one_pass = partial(one_pass_logps, dloss_dlogp=lambda _, indices: upstream_R[indices])
    head = one_pass if "one pass" in name else response_logps
    layout = {"vocab_size": VOCAB, "chunk_tokens": 40, "tp_group": dist.group.WORLD, "sequence_parallel": True}
    got_R = head(own_hidden, own_weight, labels_BS, index_BS, ROWS, softcap=cap, **layout)
    got_R.backward(upstream_R)

    hidden, weight = (whole.double().requires_grad_() for whole in (hidden, weight))
    expected_R = _log_softmax(hidden, weight[:VOCAB], labels_BS, cap)[5:].sum(dim=0)
    expected_R.backward(upstream_R.double())
    _require_near(f"{name}: log-probs", got_R, expected_R)
    _require_near(f"{name}: gradient of the states", own_hidden.grad, hidden.grad.chunk(2)[dist.get_rank()])
    _require_near(f"{name}: gradient of the weight", own_weight.grad, weight.grad.chunk(2)[dist.get_rank()])


def _log_softmax(hidden: Tensor, weight: Tensor, labels_BS: Tensor, cap: float | None) -> Tensor:
    logits_SBV = hidden @ weight.T
    if cap is not None:
        logits_SBV = cap * (logits_SBV / cap).tanh()
    return logits_SBV.log_softmax(-1).gather(-1, labels_BS.T[..., None]).squeeze(-1)


def _require_near(what: str, found: Tensor | None, expected: Tensor) -> None:
    assert found is not None
    found, expected = found.detach().double(), expected.detach()
    difference = float((found - expected).abs().max() / expected.abs().max())
    if not difference < BOUND:
        raise AssertionError(f"{what}: off by {difference:.1e}")


if __name__ == "__main__":
    main()
