"""The base policy: a small Llama taught on the supervised rows until it really answers.

B: rows, L: tokens, V: vocabulary
"""

import random
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from scripts.toy.batching import pad_rows, similar_length_batches, warm_up_then_linear
from scripts.toy.tokenizer import train_policy_tokenizer

IGNORED = -100
"""label that `cross_entropy` skips"""


class PolicyRecipe(NamedTuple):
    """Sizes and training of the policy; 6 heads and 4 layers divide by TP2 x PP2."""

    vocabulary: int = 1536
    hidden: int = 192
    feed_forward: int = 512
    layers: int = 4
    heads: int = 6
    kv_heads: int = 2
    context: int = 1024
    epochs: int = 6
    batch: int = 16
    learning_rate: float = 2e-3
    warm_up: int = 20
    weight_decay: float = 0.05


class Policy(NamedTuple):
    """A model with its tokenizer and what training it gave."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    losses: list[float]
    """mean training loss per response token, of each epoch (nats)"""


def prompt_ids(tokenizer: PreTrainedTokenizerFast, prompt: str) -> list[int]:
    """The prompt as a user turn, followed by the start of the assistant's."""
    turn = [{"role": "user", "content": prompt}]
    return tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)


def response_ids(tokenizer: PreTrainedTokenizerFast, response: str) -> list[int]:
    """The response and its end-of-turn token."""
    return [*tokenizer.encode(response, add_special_tokens=False), tokenizer.eos_token_id]


def train_policy(rows: Sequence[dict[str, str]], recipe: PolicyRecipe, seed: int) -> Policy:
    """Teach a fresh Llama the rows' responses (cross-entropy on response tokens only)."""
    tokenizer = train_policy_tokenizer(_texts(rows), recipe.vocabulary)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(_config(recipe, tokenizer))
    examples = [(prompt_ids(tokenizer, r["prompt"]), response_ids(tokenizer, r["response"])) for r in rows]
    losses = _fit(model, examples, recipe, random.Random(seed))
    model.generation_config.do_sample = True
    return Policy(model.eval(), tokenizer, losses)


def _fit(
    model: LlamaForCausalLM, examples: list[tuple[list[int], list[int]]], recipe: PolicyRecipe, rng: random.Random
) -> list[float]:
    optimizer = torch.optim.AdamW(
        model.parameters(), recipe.learning_rate, betas=(0.9, 0.95), weight_decay=recipe.weight_decay
    )
    lengths = [len(prompt) + len(response) for prompt, response in examples]
    total = recipe.epochs * -(-len(examples) // recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warm_up_then_linear(step, total, recipe.warm_up)
    )
    model.train()
    losses: list[float] = []
    with tqdm(total=total, desc="policy", unit="step", disable=None) as bar:
        for _ in range(recipe.epochs):
            epoch_losses = []
            for batch in similar_length_batches(lengths, recipe.batch, rng):
                loss = response_loss(model, [examples[i] for i in batch])
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                epoch_losses.append(loss.item())
                bar.update()
            losses.append(sum(epoch_losses) / len(epoch_losses))
            bar.set_postfix(loss=f"{losses[-1]:.3f}")
    return losses


def response_loss(model: LlamaForCausalLM, examples: Sequence[tuple[list[int], list[int]]]) -> torch.Tensor:
    """Mean cross-entropy of the response tokens given prompt and prefix (nats per token)."""
    ids_BL, mask_BL = pad_rows([prompt + response for prompt, response in examples], model.config.pad_token_id)
    labels_BL = ids_BL.masked_fill(mask_BL == 0, IGNORED)
    for row, (prompt, _) in enumerate(examples):
        labels_BL[row, : len(prompt)] = IGNORED
    logits_BLV = model(input_ids=ids_BL, attention_mask=mask_BL, use_cache=False).logits
    return F.cross_entropy(logits_BLV[:, :-1].flatten(0, 1), labels_BL[:, 1:].flatten(), ignore_index=IGNORED)


def _texts(rows: Sequence[dict[str, str]]) -> Iterable[str]:
    for row in rows:
        yield row["prompt"]
        yield row["response"]


def _config(recipe: PolicyRecipe, tokenizer: PreTrainedTokenizerFast) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.hidden,
        intermediate_size=recipe.feed_forward,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=recipe.hidden // recipe.heads,
        max_position_embeddings=recipe.context,
        rope_theta=10_000.0,
        rms_norm_eps=1e-5,
        attention_bias=False,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
