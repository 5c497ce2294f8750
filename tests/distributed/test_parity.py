"""Every parallel layout against one plain process: the loss to 1e-6 and every gradient to 1e-5, relative."""

from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import torch

from tests.distributed import world
from tests.distributed.architectures import GEMMA2, LLAMA, Architecture
from tests.distributed.compare import deviation, rounding_of_truth, truth_of
from tests.distributed.ranks import Case, Result, run_cases
from tests.distributed.world import ETA, LAYOUTS, REPULSION_WEIGHT, Layout

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="runs Megatron over gloo on the CPU, which it does only where CUDA is absent"
)

UNEVEN = world.pairs()[:7]  # no multiple of any microbatch size here: a filler pair completes it
EXACT = [
    Case(f"{'packed' if packed else 'padded'}, {name}", packed=packed, **options)
    for packed in (False, True)
    for name, options in {
        "microbatches of 1": {},
        "microbatches of 2, tied": {"micro_batch_size": 2, "tied": True},
        "microbatches of 4, mean pooling": {"micro_batch_size": 4, "pooling": "mean"},
        "uneven last batch": {"micro_batch_size": 2, "pairs": UNEVEN},
        "no repulsion": {"repulsion_weight": 0.0},
        # Tiles of 5 tokens: the responses have 1 to 11, so some share a tile and some are longer than one.
        "one pass": {"one_pass": True, "micro_batch_size": 2},
        "one pass, tied, uneven": {"one_pass": True, "micro_batch_size": 4, "tied": True, "pairs": UNEVEN},
        "gemma 2": {"architecture": GEMMA2, "tied": True},
        "gemma 2, mean pooling, uneven": {
            "architecture": GEMMA2,
            "micro_batch_size": 4,
            "tied": True,
            "pooling": "mean",
            "pairs": UNEVEN,
        },
        "gemma 2, one pass": {"architecture": GEMMA2, "one_pass": True, "micro_batch_size": 2, "tied": True},
    }.items()
]
FIRST_STEP = [
    Case("first step, one pass", at_reference=True, micro_batch_size=2, one_pass=True),
    Case("first step, padded", at_reference=True, micro_batch_size=2),
    Case("first step, packed", at_reference=True, micro_batch_size=2, packed=True, tied=True),
    Case(
        "first step, gemma 2, one pass",
        at_reference=True,
        micro_batch_size=2,
        packed=True,
        tied=True,
        architecture=GEMMA2,
        one_pass=True,
    ),
]
SHARED = [
    Case("shared prompts", packed=True, shared=True, micro_batch_size=2, pooling="mean"),
    Case("shared prompts, one pass, tied", packed=True, shared=True, micro_batch_size=4, tied=True, one_pass=True),
    # Its windows are shorter than a prompt and a response: they must count positions, not places in the row.
    Case("shared prompts, gemma 2", packed=True, shared=True, micro_batch_size=2, tied=True, architecture=GEMMA2),
]
REPULSION_ALONE = Case("repulsion alone", preference_weight=0.0, pooling="mean")
IDENTICAL = Case("identical responses", preference_weight=0.0, pairs=world.identical_responses())
NOTHING = Case("neither term", preference_weight=0.0, repulsion_weight=0.0)


@pytest.fixture(scope="session", params=[world.ONE_RANK, *LAYOUTS], ids=lambda layout: layout.name)
def results(request: pytest.FixtureRequest) -> dict[str, Result]:
    layout: Layout = request.param
    return run_cases(layout, [*EXACT, *SHARED, *FIRST_STEP, REPULSION_ALONE, IDENTICAL, NOTHING])


@pytest.mark.parametrize("case", [*EXACT, *FIRST_STEP, REPULSION_ALONE], ids=lambda case: case.name)
def test_loss_and_every_gradient_match_one_process(results: dict[str, Result], case: Case) -> None:
    found = deviation(results[case.name], truth_of(case))
    assert found.is_within_tolerance, str(found)


@pytest.mark.parametrize("case", SHARED, ids=lambda case: case.name)
def test_shared_prompts_change_nothing(results: dict[str, Result], case: Case) -> None:
    """The truth computes every response in a row of its own."""
    found = deviation(results[case.name], truth_of(case))
    assert found.is_within_tolerance, str(found)
    assert results[case.name].metrics["gradient_ratio"] == pytest.approx(truth_of(case).gradient_ratio, rel=1e-5)


def test_every_metric_is_the_mean_over_the_global_batch(results: dict[str, Result]) -> None:
    case = next(case for case in EXACT if case.pairs == UNEVEN)
    metrics, expected = results[case.name].metrics, truth_of(case)
    d_chosen = [logp - pair.ref_chosen for (logp, _), pair in zip(expected.logps, UNEVEN, strict=True)]
    d_rejected = [logp - pair.ref_rejected for (_, logp), pair in zip(expected.logps, UNEVEN, strict=True)]
    margins = [chosen - rejected for chosen, rejected in zip(d_chosen, d_rejected, strict=True)]
    assert metrics["pairs"] == len(UNEVEN)
    assert metrics["d_chosen"] == pytest.approx(sum(d_chosen) / 7, abs=2e-5)
    assert metrics["d_rejected"] == pytest.approx(sum(d_rejected) / 7, abs=2e-5)
    assert metrics["margin"] == pytest.approx(sum(margins) / 7, abs=2e-5)
    assert metrics["accuracy"] == pytest.approx(sum(margin > 0 for margin in margins) / 7)
    assert metrics["repulsion"] == pytest.approx(expected.repulsion, rel=1e-5)
    assert metrics["cosine"] == pytest.approx(expected.repulsion + 1, rel=1e-5)  # the Euclidean form is cos - 1
    assert metrics["loss"] == pytest.approx(metrics["preference"] + REPULSION_WEIGHT * metrics["repulsion"], rel=1e-6)


@pytest.mark.parametrize("case", EXACT, ids=lambda case: case.name)
def test_which_term_leads_is_measured_alike_everywhere(results: dict[str, Result], case: Case) -> None:
    assert results[case.name].metrics["gradient_ratio"] == pytest.approx(truth_of(case).gradient_ratio, rel=1e-5)


@pytest.mark.parametrize("case", FIRST_STEP, ids=lambda case: case.name)
def test_first_loss_is_its_closed_form(results: dict[str, Result], case: Case) -> None:
    """The reference comes from the same weights through the same code: d is 0, to the last bit."""
    metrics = results[case.name].metrics
    assert (metrics["d_chosen"], metrics["d_rejected"], metrics["margin"]) == (0.0, 0.0, 0.0)
    targets = [(pair.target_chosen - 0.5) ** 2 + (pair.target_rejected - 0.5) ** 2 for pair in case.pairs]
    closed_form = ETA**2 / 2 * sum(targets) / len(targets)
    assert metrics["preference"] == pytest.approx(closed_form, rel=1e-6)
    assert metrics["loss"] == pytest.approx(closed_form + REPULSION_WEIGHT * metrics["repulsion"], rel=1e-6)


def test_repulsion_reaches_the_last_layer(results: dict[str, Result]) -> None:
    grads = results[REPULSION_ALONE.name].grads
    last = f"decoder.layers.{world.LAYERS - 1}."
    for name, grad in grads.items():
        if name.startswith((last, "decoder.final_layernorm")):
            assert grad.abs().max() > 1e-2, name
    # It is a function of hidden states only.
    assert grads["output_layer.weight"].abs().max() == 0.0


def test_repulsion_vanishes_for_identical_responses(results: dict[str, Result]) -> None:
    largest = max(grad.abs().max().item() for grad in results[IDENTICAL.name].grads.values())
    usual = max(grad.abs().max().item() for grad in results[REPULSION_ALONE.name].grads.values())
    assert largest < 1e-6 * usual
    assert results[IDENTICAL.name].metrics["cosine"] == pytest.approx(1.0)


def test_weight_zero_switches_the_repulsion_off(results: dict[str, Result]) -> None:
    assert results[NOTHING.name].metrics["loss"] == 0.0
    assert all(grad.abs().max() == 0.0 for grad in results[NOTHING.name].grads.values())


@pytest.mark.parametrize("architecture", [LLAMA, GEMMA2], ids=lambda architecture: architecture.name)
def test_tolerances_are_above_rounding(architecture: Architecture) -> None:
    """The truth in single precision is itself this far from double precision: a tenth of what is allowed, or more."""
    assert rounding_of_truth(architecture).is_within_tolerance
