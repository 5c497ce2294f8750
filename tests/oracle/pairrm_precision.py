"""How far PairRM's logits are from float32's in each precision, under the path of GPUs: transformers' own attention."""

from pathlib import Path

import numpy as np
import torch

from nemo_sspo.config.oracles import PairRMOracle
from nemo_sspo.oracle.pairrm.model import PairRM, PairRMModel
from nemo_sspo.oracle.protocol import Row
from tests.oracle.tiny_pairrm import CANDIDATE_MAX, SOURCE_MAX

BOUNDS = {"float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}
"""Largest error of a logit of the tiny model, whose logits have a standard deviation of 0.07; about three times what
the CPU's half precisions give."""


def errors(checkpoint: Path, rows: list[Row], device: str) -> dict[str, float]:
    """The largest error of a logit in each precision, against float32 on the CPU."""
    limits = {"source_max_tokens": SOURCE_MAX, "candidate_max_tokens": CANDIDATE_MAX}

    def logits(precision: str, device: str) -> np.ndarray:
        settings = PairRMOracle(path=str(checkpoint), batch_tokens=512, precision=precision, **limits)
        return PairRM(settings, device=device).compare(rows).logits_R

    exact = logits("float32", "cpu")
    before, PairRMModel.compute_on_cpu = PairRMModel.compute_on_cpu, lambda self: None  # type: ignore[method-assign]
    try:
        torch.set_float32_matmul_precision("highest")
        return {precision: float(np.abs(logits(precision, device) - exact).max()) for precision in BOUNDS}
    finally:
        PairRMModel.compute_on_cpu = before  # type: ignore[method-assign]
