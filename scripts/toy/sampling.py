"""Samples of a policy with plain `generate`, for training and measuring the oracle."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from tqdm import tqdm
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.toy.policy import prompt_ids

BATCH = 500


class Sample(NamedTuple):
    """One sampled response."""

    text: str
    token_ids: list[int]
    """with the end-of-turn token if the policy ended by itself"""


@torch.no_grad()
def sample(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    prompts: Sequence[str],
    count: int,
    *,
    seed: int,
    max_new_tokens: int = 64,
) -> list[list[Sample]]:
    """`count` responses to each prompt at temperature 1, nothing cut off the distribution."""
    torch.manual_seed(seed)
    rows = [ids for ids in (prompt_ids(tokenizer, prompt) for prompt in prompts) for _ in range(count)]
    samples: list[Sample] = []
    with tqdm(total=len(rows), desc="sampling", unit="response", disable=None) as bar:
        for start in range(0, len(rows), BATCH):
            samples += _generate(model, tokenizer, rows[start : start + BATCH], max_new_tokens)
            bar.update(len(samples) - bar.n)
    return [samples[at : at + count] for at in range(0, len(samples), count)]


def _generate(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, rows: list[list[int]], max_new_tokens: int
) -> list[Sample]:
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    width = max(map(len, rows))
    ids_BL = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
    generated = model.generate(
        input_ids=ids_BL, attention_mask=(ids_BL != pad).long(), do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        max_new_tokens=max_new_tokens, pad_token_id=pad, eos_token_id=end,
    )[:, width:].tolist()  # fmt: skip
    samples = []
    for ids in generated:
        kept = ids[: ids.index(end) + 1] if end in ids else ids
        samples.append(Sample(tokenizer.decode(kept, skip_special_tokens=True), kept))
    return samples
