"""The preference oracle: a small PairRM taught the true preference, with help from auxiliary labels.

B: rows, L: tokens, H: hidden size
"""

import random
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from scripts.toy.batching import pad_rows, similar_length_batches, warm_up_then_linear
from scripts.toy.comparisons import NO_LABEL, TRAIT_COUNT, Comparison
from scripts.toy.pairrm import SOURCE, DebertaV2PairRM, OracleSize, build_pairrm, compare_rows, segment_ids
from scripts.toy.word_vectors import co_occurrence_vectors


class OracleRecipe(NamedTuple):
    """Size and training of the oracle."""

    size: OracleSize = OracleSize()
    written: int = 4_000
    """comparisons of answers by the data set's author"""
    sampled_requests: int = 1_250
    """supervised requests that the policy answers `sampled_answers` times; every pair is compared"""
    sampled_answers: int = 6
    vector_texts: int = 4
    """answers per supervised request that the word vectors are counted on"""
    batch: int = 16
    learning_rate: float = 1e-3
    warm_up: int = 30
    token_loss: float = 2.0
    trait_loss: float = 1.0


class TrainingHeads(nn.Module):
    """Auxiliary outputs that make the encoder learn; thrown away afterwards."""

    def __init__(self, hidden: int):
        super().__init__()
        self.tokens = nn.Linear(hidden, 1)
        self.traits = nn.Sequential(nn.Linear(2 * hidden, hidden), nn.Tanh(), nn.Linear(hidden, TRAIT_COUNT))


def start_oracle(
    tokenizer: PreTrainedTokenizerFast, texts: Sequence[tuple[str, str]], recipe: OracleRecipe, seed: int
) -> DebertaV2PairRM:
    """An untrained PairRM whose word embeddings are co-occurrence vectors of (request, answer) texts."""
    torch.manual_seed(seed)
    model = build_pairrm(recipe.size, tokenizer)
    rows = [
        tokenizer.encode(request, add_special_tokens=False) + tokenizer.encode(answer, add_special_tokens=False)
        for request, answer in texts
    ]
    vectors_VH = co_occurrence_vectors(rows, len(tokenizer), recipe.size.hidden, seed)
    special = torch.tensor(sorted(tokenizer.all_special_ids))
    vectors_VH[special] = 0.5 * torch.randn(len(special), recipe.size.hidden)
    model.pretrained_model.embeddings.word_embeddings.weight.data.copy_(vectors_VH)
    return model


def train_oracle(model: DebertaV2PairRM, rows: Sequence[Comparison], recipe: OracleRecipe, seed: int) -> list[float]:
    """One pass over `rows`; returns the preference loss (nats) averaged over each tenth of it."""
    torch.manual_seed(seed)
    heads = TrainingHeads(model.config.hidden_size)
    parameters = [*model.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    batches = list(similar_length_batches([len(r.ids) for r in rows], recipe.batch, random.Random(seed)))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warm_up_then_linear(step, len(batches), recipe.warm_up)
    )
    model.train()
    losses: list[float] = []
    for batch in (bar := tqdm(batches, desc="oracle", unit="step", disable=None)):
        preference_loss, extra_loss = _losses(model, heads, [rows[i] for i in batch], recipe)
        optimizer.zero_grad()
        (preference_loss + extra_loss).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(preference_loss.item())
        if len(losses) % 50 == 0:
            bar.set_postfix(loss=f"{sum(losses[-50:]) / 50:.3f}")
    model.eval()
    tenth = max(1, len(losses) // 10)
    return [sum(losses[at : at + tenth]) / tenth for at in range(0, tenth * 10, tenth)]


def _losses(
    model: DebertaV2PairRM, heads: TrainingHeads, rows: list[Comparison], recipe: OracleRecipe
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy with the true preference, and the weighted sum of the auxiliary ones."""
    ids_BL, mask_BL = pad_rows([row.ids for row in rows], model.config.pad_token_id)
    encodings = model.encode(ids_BL, mask_BL)
    bce = F.binary_cross_entropy_with_logits
    preference_loss = bce(model.compare(encodings), torch.tensor([row.preference for row in rows]))
    trait_loss = bce(heads.traits(encodings.first_B2H), torch.tensor([row.first_traits for row in rows]))
    trait_loss = trait_loss + bce(heads.traits(encodings.second_B2H), torch.tensor([row.second_traits for row in rows]))

    labels_BL = torch.full(ids_BL.shape, NO_LABEL)
    for i, row in enumerate(rows):
        labels_BL[i, : len(row.ids)] = torch.tensor(row.token_labels)
    labelled_BL = labels_BL != NO_LABEL
    token_logits = heads.tokens(encodings.tokens_BLH).squeeze(-1)[labelled_BL]
    token_loss = bce(token_logits, labels_BL[labelled_BL]) if labelled_BL.any() else token_logits.sum()
    return preference_loss, recipe.token_loss * token_loss + recipe.trait_loss * trait_loss


class Agreement(NamedTuple):
    """How an oracle does on comparisons whose truth is known."""

    pairs: int
    accuracy: float
    """share of pairs whose symmetrised logit has the sign of the truth (equal qualities left out)"""
    order_flips: float
    """share of pairs whose verdict depends on the order in which they are shown"""
    mean_error: float
    """mean |predicted - true| preference probability"""


def measure_oracle(
    model: DebertaV2PairRM, tokenizer: PreTrainedTokenizerFast, pairs: Sequence[tuple[str, str, str, float]]
) -> Agreement:
    """Agreement on (request, first, second, true preference) pairs; both orders are scored."""

    def row(request: str, first: str, second: str) -> list[int]:
        segments = ((SOURCE, request), ("<|candidate1|>", first), ("<|candidate2|>", second))
        return [token for marker, text in segments for token in segment_ids(tokenizer, marker, text)]

    forward_N = compare_rows(model, [row(x, a, b) for x, a, b, _ in pairs])
    backward_N = compare_rows(model, [row(x, b, a) for x, a, b, _ in pairs])
    symmetric_N = (forward_N - backward_N) / 2
    truth_N = torch.tensor([p for *_, p in pairs])
    decided_N = (truth_N - 0.5).abs() > 1e-6
    correct_N = ((symmetric_N > 0) == (truth_N > 0.5))[decided_N]
    return Agreement(
        pairs=len(pairs),
        accuracy=correct_N.float().mean().item(),
        order_flips=((forward_N > 0) == (backward_N > 0)).float().mean().item(),
        mean_error=(torch.sigmoid(symmetric_N) - truth_N).abs().mean().item(),
    )
