"""Hugging Face's answers, against which Megatron's are held."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM


def hugging_face_logps(policy: Path, pairs: pa.Table) -> torch.Tensor:
    """Sums of log-softmax over each response's tokens, one sequence at a time and without padding. [N, 2]."""
    # The other implementations leave out the caps of Gemma 2.
    model = AutoModelForCausalLM.from_pretrained(policy, attn_implementation="eager")
    sums = []
    for pair in pairs.to_pylist():
        for response in (pair["chosen_token_ids"], pair["rejected_token_ids"]):
            prompt = pair["prompt_token_ids"]
            tokens = torch.tensor([prompt + response])
            with torch.no_grad():
                logp_SV = model(tokens).logits[0].log_softmax(-1)
            sums.append(logp_SV[len(prompt) - 1 : -1].gather(1, torch.tensor(response)[:, None]).sum())
    return torch.stack(sums).view(-1, 2)
