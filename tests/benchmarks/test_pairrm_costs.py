"""What scoring with PairRM costs, counted: its floor of FLOPs, and the padding of its batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DebertaV2Model

from benchmarks import random_pairrm
from benchmarks.packing import drawn
from benchmarks.pairrm_floor import needed_flops
from benchmarks.random_pairrm import PLACES, Size, config_of
from nemo_sspo.oracle.batching import pack
from nemo_sspo.oracle.pairrm.deberta_attention import WantedStates


@pytest.mark.parametrize("length", [60, 600])
@torch.inference_mode()
def test_a_row_takes_the_floor_and_no_more(length: int) -> None:
    """Counted on the real model; torch counts no baddbmm_, the product of queries and keys."""
    size = Size(hidden=32, layers=3, heads=2)
    states = WantedStates(DebertaV2Model(config_of(size, 100)).eval())
    ids = torch.randint(5, 100, (1, length))
    with FlopCounterMode(display=False) as counter:
        states(ids, torch.ones_like(ids), torch.tensor([[1, 20, 40]]))
    uncounted = 2 * size.hidden * length * ((size.layers - 1) * length + 3)
    near = min(2 * length - 1, PLACES)
    reached = near if near < PLACES else PLACES - 1  # 1 - PLACES / 2 ... PLACES / 2 - 1, or one more where clamped
    assert counter.get_total_flops() + uncounted == pytest.approx(
        needed_flops(size, [length]), rel=(near - reached + 1) / near
    )


def test_a_checkpoint_is_not_put_where_llm_blender_takes_it_for_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks for names of models in paths, and random names of folders can spell them."""
    names = iter(["wphi01", "2llama", "plain"])

    class Folder:
        def __init__(self) -> None:
            self.name = f"/tmp/{next(names)}"

        def cleanup(self) -> None:
            removed.append(self.name)

    removed: list[str] = []
    monkeypatch.setattr(random_pairrm.tempfile, "TemporaryDirectory", Folder)
    assert random_pairrm.folder_for_checkpoints().name == "/tmp/plain"
    assert removed == ["/tmp/wphi01", "/tmp/2llama"]


@pytest.mark.parametrize("budget", [2048, 16384])
def test_batches_hold_next_to_no_padding(budget: int) -> None:
    """A window of rows, five responses to prompts as long as UltraFeedback's; sorting saves a sixth at the least."""
    lengths = np.array(
        [
            prompt + first + second + 9
            for prompt, *pair in drawn(204).of_pair
            for first, second in itertools.permutations((*pair, sum(pair) // 2, *pair), 2)
        ]
    )
    slots = sum(len(batch) * int(lengths[batch].max()) for batch in pack(lengths, budget))
    unsorted = sum(len(batch) * int(batch.max()) for batch in np.array_split(lengths, len(lengths) // 8))
    assert 1 - lengths.sum() / slots < 0.01
    assert slots < 0.85 * unsorted
