"""Batches of token rows: padding, and batches of similar length.   B: rows, L: tokens"""

import random
from collections.abc import Iterator, Sequence

import torch


def pad_rows(rows: Sequence[Sequence[int]], pad: int, multiple: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids and attention mask, both [B, L] int64, L a multiple of `multiple`."""
    length = -(-max(map(len, rows)) // multiple) * multiple
    ids_BL = torch.full((len(rows), length), pad)
    mask_BL = torch.zeros(len(rows), length, dtype=torch.long)
    for i, row in enumerate(rows):
        ids_BL[i, : len(row)] = torch.tensor(row)
        mask_BL[i, : len(row)] = 1
    return ids_BL, mask_BL


def similar_length_batches(
    lengths: Sequence[int], size: int, rng: random.Random, window: int = 8
) -> Iterator[list[int]]:
    """One epoch of row indices in random batches; rows of a batch have similar lengths, to save padding.

    Only `window` batches at a time are sorted by length, so that batches differ from epoch to epoch.
    """
    order = list(range(len(lengths)))
    rng.shuffle(order)
    batches = []
    for start in range(0, len(order), size * window):
        chunk = sorted(order[start : start + size * window], key=lambda i: lengths[i])
        batches += [chunk[at : at + size] for at in range(0, len(chunk), size)]
    rng.shuffle(batches)
    yield from batches


def warm_up_then_linear(step: int, total: int, warm_up: int, floor: float = 0.03) -> float:
    """Factor on the learning rate at `step` (from 0): rises over `warm_up` steps, falls linearly to `floor`."""
    return min(1.0, (step + 1) / warm_up) * (floor + (1 - floor) * (1 - step / total))
