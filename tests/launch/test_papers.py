"""The papers' presets with a small policy: a dry run finds every input in order, and plans what the papers do."""

from collections import Counter

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.config.stages import Train
from nemo_sspo.launch.checks.notes import notes
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.preflight import problems
from nemo_sspo.launch.totals import optimizer_steps
from nemo_sspo.megatron.batches.batch_plan import candidate_steps, steps_per_epoch
from nemo_sspo.megatron.optimizer.learning_rate import highest_factor, schedule
from tests.launch import ready_run

CPU = ("cluster=local_cpu", "precision=fp32", "parallel=single", "rollout.shards=2")
SMALL = (
    *("data.held_out_count=5", "selection.prompts=5", "train.global_batch_size=4"),
    *("policy=policy", "oracle.path=oracle", "encoder.path=package:tests.launch.tiny_encoder", "train.loggers=[]"),
)
EIGHTEEN = ("train.train_epochs=18", "selection.candidates=18")


@pytest.fixture
def given(place) -> list[str]:
    """Overrides of a run from three files of 30 prompts."""
    for number in range(3):
        ready_run.write_prompts(place / f"{number}.jsonl", 30, start=30 * number)
    python = [override for override in ready_run.REST if override.startswith("cluster.")]
    return ["prompts=[0.jsonl,1.jsonl,2.jsonl]", *CPU, *SMALL, *python]


@pytest.mark.parametrize("name", ["llama3-8b-paper", "mistral-7b-paper"])
def test_a_dry_run_finds_everything_in_order(name: str, given: list[str], place) -> None:
    experiment = load_experiment([f"experiment={name}", *given])
    assert problems(experiment) == []
    (note,) = notes(experiment)
    assert note.startswith("train.schedule_epochs=18, train.train_epochs=1: training ends in the warm-up")
    all_epochs = load_experiment([f"experiment={name}", *given, *EIGHTEEN])
    assert problems(all_epochs) == []
    assert (
        optimizer_steps(all_epochs, plan(all_epochs)) == 18 * (optimizer_steps(experiment, plan(experiment)) or 0) > 0
    )
    too_many = load_experiment([f"experiment={name}", *given, "selection.candidates=8"])
    assert problems(too_many)[0].startswith("selection.candidates=8 is more than the 7 optimizer steps of an iteration")
    ready_run.write_prompts(place / "1.jsonl", 30)
    twice = problems(load_experiment([f"experiment={name}", *given]))
    assert twice[0].startswith("1.jsonl line 1: the same prompt as 0.jsonl line 1;")


@pytest.mark.parametrize(("overrides", "candidates"), [((), 4), (EIGHTEEN, 18)])
def test_every_iteration_chooses_among_its_checkpoints(overrides: tuple[str, ...], candidates: int) -> None:
    experiment = load_experiment(["experiment=llama3-8b-paper", "prompts=[a.jsonl,b.jsonl,c.jsonl]", *overrides])
    steps = Counter((step.stage, step.iteration) for step in plan(experiment))
    for iteration in (1, 2, 3):
        assert steps["export_candidate", iteration] == steps["rollout_selection", iteration] == candidates
        assert steps["select_model", iteration] == steps["train", iteration] == 1


def test_of_20000_pairs_the_first_of_18_scheduled_epochs_is_trained_and_kept_in_quarters() -> None:
    """313 steps of 5634, of which a tenth warm up: step n has n / 565 of the peak, and the last 313 / 565."""
    train: Train = load_experiment(["experiment=llama3-8b-paper", "prompts=[a,b,c]"]).train
    steps = steps_per_epoch(20_000, train.global_batch_size)
    assert (steps, candidate_steps(steps, 4)) == (313, [78, 156, 234, 313])
    factor = schedule(train, steps)
    assert [factor(step) for step in (0, 155, 312)] == pytest.approx([1 / 565, 156 / 565, 313 / 565], rel=1e-12)
    assert highest_factor(train, steps) * train.learning_rate == pytest.approx(2.77e-7, rel=1e-3)
    whole = train.model_copy(update={"train_epochs": 18})
    assert highest_factor(whole, steps) == 1.0
    assert schedule(whole, steps)(18 * steps - 1) == pytest.approx(1 / (5634 - 564), rel=1e-12)
