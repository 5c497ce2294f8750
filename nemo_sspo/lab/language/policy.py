"""The policies of a language game: a small Llama over the world's words.

Legend: B rows, L tokens, V vocabulary, H hidden size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from nemo_sspo.lab.language.world import World, all_prompts, all_sentences

PAD, END, ANSWER = range(3)
"""Ids of the padding, of the end of a turn, and of what stands between a prompt and its response."""
MOST_TOKENS = 20
"""Longest response; the longest sentence of the world has 15 words."""


class Row(NamedTuple):
    """Token ids of a prompt and of a response to it, its end included."""

    prompt: list[int]
    response: list[int]


@dataclass(frozen=True)
class Recipe:
    """How a starting policy is made."""

    hidden: int = 64
    layers: int = 2
    heads: int = 4
    rows: int = 8192
    epochs: int = 4
    batch: int = 64
    learning_rate: float = 3e-3


@cache
def vocabulary() -> dict[str, int]:
    """Ids of the world's words."""
    texts = [prompt.text for prompt in all_prompts()] + list(all_sentences())
    words = sorted({word for each in texts for word in each.split()})
    return {word: index for index, word in enumerate(words, start=ANSWER + 1)}


@cache
def _words() -> dict[int, str]:
    return {index: word for word, index in vocabulary().items()}


def prompt_ids(prompt: str) -> list[int]:
    """A prompt, followed by the start of the response."""
    return [*(vocabulary()[word] for word in prompt.split()), ANSWER]


def row_of(prompt: str, answer: str) -> Row:
    """A prompt and an answer that ends."""
    return Row(prompt_ids(prompt), [*(vocabulary()[word] for word in answer.split()), END])


def answer_of(response: Sequence[int]) -> str:
    """The words of a response; special tokens inside it are shown, so that it is no sentence of the world."""
    ids = response[:-1] if response and response[-1] == END else response
    return " ".join(_words().get(index, f"<{index}>") for index in ids)


def starting_policy(world: World, recipe: Recipe) -> LlamaForCausalLM:
    """A fresh Llama that has been taught the answers of the world's teacher."""
    torch.manual_seed(world.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(vocabulary()) + ANSWER + 1,
            hidden_size=recipe.hidden,
            intermediate_size=2 * recipe.hidden,
            num_hidden_layers=recipe.layers,
            num_attention_heads=recipe.heads,
            num_key_value_heads=recipe.heads,
            max_position_embeddings=64,
            pad_token_id=PAD,
            eos_token_id=END,
            bos_token_id=None,
        )
    )
    rows = [row_of(*given) for given in world.teach(recipe.rows)]
    total = recipe.epochs * -(-len(rows) // recipe.batch)
    optimizer = torch.optim.AdamW(model.parameters(), recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.learning_rate, total, pct_start=0.1)
    for _ in range(recipe.epochs):
        for index in torch.randperm(len(rows)).split(recipe.batch):
            batch = [rows[i] for i in index]
            loss = -forward(model, batch).logps_B.sum() / sum(len(row.response) for row in batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


class Forward(NamedTuple):
    """What a policy makes of rows."""

    logps_B: Tensor
    """Log-prob of each response, summed over its tokens, the end of turn included."""
    last_BH: Tensor
    """State after the final norm at the response's last token."""
    mean_BH: Tensor
    """Mean of these states over the response's tokens."""


def forward(model: LlamaForCausalLM, rows: Sequence[Row]) -> Forward:
    """Log-probs and pooled states of responses. Rows are padded on the right, where causal attention never looks."""
    width = max(len(row.prompt) + len(row.response) for row in rows)
    ids_BL = torch.tensor([(row.prompt + row.response + [PAD] * width)[:width] for row in rows])
    start_B1 = torch.tensor([[len(row.prompt)] for row in rows])
    end_B1 = start_B1 + torch.tensor([[len(row.response)] for row in rows])
    place_L = torch.arange(width)
    in_response_BL = (place_L >= start_B1) & (place_L < end_B1)
    states_BLH = model.model(ids_BL, use_cache=False).last_hidden_state
    logits_BLV = model.lm_head(states_BLH[:, :-1])
    logps_BL = -F.cross_entropy(logits_BLV.transpose(1, 2), ids_BL[:, 1:], reduction="none")
    mean_BH = (states_BLH * in_response_BL[:, :, None]).sum(1) / in_response_BL.sum(1, keepdim=True)
    last_BH = states_BLH[torch.arange(len(rows)), end_B1[:, 0] - 1]
    return Forward((logps_BL * in_response_BL[:, 1:]).sum(1), last_BH, mean_BH)


@torch.inference_mode()
def logps(model: LlamaForCausalLM, rows: Sequence[Row], batch: int = 512) -> Tensor:
    """Log-probs of responses, without a gradient."""
    return torch.cat([forward(model, rows[start : start + batch]).logps_B for start in range(0, len(rows), batch)])


def sample(
    model: LlamaForCausalLM, prompts: Sequence[str], count: int, generator: torch.Generator
) -> list[list[list[int]]]:
    """`count` responses to each prompt at temperature 1, [N][K] token ids; one that does not end has no end token."""
    by_length: dict[int, list[int]] = {}
    for index, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt.split()), []).append(index)
    found: list[list[list[int]]] = [[] for _ in prompts]
    for indices in by_length.values():  # rows of one length need no padding
        ids_BL = torch.tensor([prompt_ids(prompts[index]) for index in indices]).repeat_interleave(count, 0)
        for row, response in enumerate(_continue(model, ids_BL, generator)):
            found[indices[row // count]].append(response)
    return found


@torch.inference_mode()
def _continue(model: LlamaForCausalLM, ids_BL: Tensor, generator: torch.Generator) -> Iterator[list[int]]:
    cache_of_keys, given_BL, drawn = DynamicCache(), ids_BL, []
    ended_B = torch.zeros(len(ids_BL), dtype=torch.bool)
    for _ in range(MOST_TOKENS):
        logits_BV = model(given_BL, past_key_values=cache_of_keys, use_cache=True, logits_to_keep=1).logits[:, -1]
        given_BL = torch.multinomial(logits_BV.softmax(-1), 1, generator=generator)
        drawn.append(given_BL)
        ended_B |= given_BL[:, 0] == END
        if ended_B.all():
            break
    for ids in torch.cat(drawn, 1).tolist():
        yield ids[: ids.index(END) + 1] if END in ids else ids
