"""The rollout engine's log-probs against Megatron's: which are taken, and what is told of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("megatron.core")

import pyarrow as pa
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from nemo_sspo.config.stages import Parallel
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding
from nemo_sspo.megatron.runtime.forked_ranks import run_forked
from nemo_sspo.stages.training import train as train_stage
from nemo_sspo.stages.training.checked_reference import (
    LEAST_CHECKED,
    ReferenceLogps,
    RolloutLogps,
    reference_logps,
    refuse_other_reference,
    sampled_rows,
)
from tests.megatron.hugging_face import hugging_face_logps
from tests.megatron.worlds import SECONDS, job, make_reference, reference_job, train

ROWS = (1, 4, 17)


@pytest.fixture(scope="session")
def engine(small_llama: Path, pairs: pa.Table) -> Tensor:
    """What a rollout engine finds: Hugging Face's log-probs, and a tenth of a nat of noise."""
    noise = torch.rand(20, 2, generator=torch.Generator().manual_seed(0)).double() - 0.5
    return hugging_face_logps(small_llama, pairs).double() + 0.2 * noise


def checked(binding: Binding, pairs: pa.Table, imported: Path, logps_P2: Tensor, tolerance: float) -> ReferenceLogps:
    """On two ranks, which must agree."""
    job, rollout = reference_job(pairs, imported, Parallel(data=2)), RolloutLogps(logps_P2, ROWS, tolerance)
    first, second = run_forked(lambda: reference_logps(job, rollout, binding.reference_logps), 2, timeout=SECONDS)
    assert torch.equal(first.logps_P2, second.logps_P2)
    assert (first.source, first.largest_difference) == (second.source, second.largest_difference)
    return first


def test_what_agrees_on_the_sample_is_taken(
    binding: Binding, small_llama: Path, imported: Path, pairs: pa.Table, engine: Tensor
) -> None:
    elsewhere = engine.clone()
    elsewhere[0] += 50  # not of the sample: nobody sees it
    found = checked(binding, pairs, imported, elsewhere, tolerance=0.11)
    differences = (engine - hugging_face_logps(small_llama, pairs).double())[list(ROWS)]
    assert (found.source, found.checked) == ("rollout", 3)
    assert torch.equal(found.logps_P2, elsewhere.float())
    assert found.largest_difference == pytest.approx(differences.abs().max().item(), abs=1e-4)
    assert found.mean_difference == pytest.approx(differences.mean().item(), abs=1e-4)


def test_one_sampled_response_that_differs_has_all_recomputed(
    binding: Binding, small_llama: Path, imported: Path, pairs: pa.Table, engine: Tensor
) -> None:
    off = engine.clone()
    off[17, 1] -= 3.0
    found = checked(binding, pairs, imported, off, tolerance=2.0)
    assert (found.source, found.checked) == ("recompute", 3)
    assert found.largest_difference == pytest.approx(3.0, abs=0.11)
    torch.testing.assert_close(found.logps_P2, hugging_face_logps(small_llama, pairs), rtol=1e-5, atol=1e-5)


def test_log_probs_that_are_missing_are_recomputed_without_a_check(
    binding: Binding, small_llama: Path, imported: Path, pairs: pa.Table, engine: Tensor
) -> None:
    missing = engine.clone()
    missing[0, 0] = torch.nan
    found = checked(binding, pairs, imported, missing, tolerance=2.0)
    assert (found.source, found.checked, found.largest_difference) == ("recompute", 0, None)
    torch.testing.assert_close(found.logps_P2, hugging_face_logps(small_llama, pairs), rtol=1e-5, atol=1e-5)


@given(pairs=st.integers(1, 2000), share=st.floats(0.001, 1.0), seed=st.integers(0, 9))
def test_sample(pairs: int, share: float, seed: int) -> None:
    rows = sampled_rows(pairs, share, seed)
    assert list(rows) == sorted(set(rows))
    assert set(rows) <= set(range(pairs))
    assert min(pairs, LEAST_CHECKED) <= len(rows) <= max(LEAST_CHECKED, share * pairs + 1)
    assert len(rows) >= min(pairs, share * pairs)
    assert rows == sampled_rows(pairs, share, seed)


@pytest.mark.parametrize("parallel", [Parallel(data=2), Parallel(tensor=2, pipeline=2)], ids=["DP2", "TP2 PP2"])
def test_a_stored_reference_that_is_not_the_policys_is_refused_before_the_first_step(
    binding: Binding, supervised: PairTable, pairs: pa.Table, imported: Path, parallel: Parallel
) -> None:
    """One response of one pair, off by a nat."""
    stored_P2 = torch.tensor([[pair.ref_chosen, pair.ref_rejected] for pair in supervised])

    def check() -> None:
        table = PairTable(pairs, make_reference(stored_P2))
        own = replace(reference_job(pairs, imported, parallel), pairs=table)
        run_forked(
            lambda: refuse_other_reference(own, 1, binding.reference_logps), parallel.world_size, timeout=SECONDS
        )

    check()
    stored_P2[11, 0] -= 1.0
    with pytest.raises(UserError, match=r"pair pair11: its reference log-prob is 1 nats off .* \(1 of 20 pairs"):
        check()


def test_training_after_the_check_is_the_training_without_it(
    binding: Binding, supervised: PairTable, imported: Path, tmp_path: Path
) -> None:
    """On the same ranks, one after the other; a training that goes on from a state is not checked again."""
    parallel = Parallel(tensor=2)
    with_check = job(supervised, imported, tmp_path / "checked", parallel, checkpoint_every_steps=4)

    def attempt() -> list[dict[str, Any]]:
        return run_forked(lambda: train_stage.train_on_rank(binding, with_check, checks=True), 2, timeout=SECONDS)[0]

    found = attempt()
    assert found == train(binding, job(supervised, imported, tmp_path / "plain", parallel))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_stage, "refuse_other_reference", lambda *_: pytest.fail("checked again"))
        assert attempt() == found
