"""llm-blender's own scoring of a PairRM checkpoint: the reference that tests and benchmarks compare ours with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def load_blender(checkpoint: Path, device: str = "cpu") -> Any:
    """An ``llm_blender.Blender`` with the ranker of an llm-blender layout directory."""
    _serve_transformers_4()
    import llm_blender

    blender = llm_blender.Blender()
    blender.loadranker(str(checkpoint), device=device)
    return blender


def blender_logits(
    blender: Any, prompts: Sequence[str], responses: Sequence[Sequence[str]], batch_size: int = 1
) -> NDArray[np.float32]:
    """Raw logits [N, K, K] as llm-blender computes them, in K (K - 1) forward passes per batch of prompts.

    Its results depend on the batch where something is cut; one prompt a batch is what its users' published data has.
    """
    device = next(blender.ranker.parameters()).device
    logits = []
    for start in range(0, len(prompts), batch_size):
        batch = slice(start, start + batch_size)
        pairs = zip(prompts[batch], responses[batch], strict=True)
        items = [{"source": prompt, "candidates": list(candidates)} for prompt, candidates in pairs]
        collated = blender.ranker_collator(items)
        tensors = {name: tensor.to(device) for name, tensor in collated.items() if tensor is not None}
        with torch.inference_mode():
            logits.append(blender.ranker._full_predict(**tensors)["logits"].float().cpu().numpy())
    return np.concatenate(logits)


def _serve_transformers_4() -> None:
    """llm-blender 0.0.2 uses two names that transformers 5 dropped."""
    from transformers import PreTrainedTokenizerBase
    from transformers.utils import hub

    if not hasattr(hub, "TRANSFORMERS_CACHE"):
        setattr(hub, "TRANSFORMERS_CACHE", ".")  # noqa: B010 - the type checker knows transformers 5 only
    if not hasattr(PreTrainedTokenizerBase, "batch_encode_plus"):
        setattr(PreTrainedTokenizerBase, "batch_encode_plus", _encode)  # noqa: B010


def _encode(tokenizer: Any, texts: list[str], **options: Any) -> Any:
    return tokenizer(texts, **options)
