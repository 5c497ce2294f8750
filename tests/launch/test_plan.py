"""The graph of a run: pure, complete, acyclic, and what it was when it was last looked at."""

import json
import os
from pathlib import Path

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.plan import as_data, chain_lengths, plan

GOLDEN = Path(__file__).parents[1] / "golden" / "plan"
EXPERIMENTS = {
    "quickstart": ["experiment=quickstart"],
    "quickstart-gpu": ["experiment=quickstart-gpu", "parallel=tp2_pp2"],
    "selection": [
        "experiment=quickstart",
        "selection.candidates=3",
        "train.train_epochs=3",
        "selection.early_stop=true",
    ],
    "llama3-8b": ["experiment=llama3-8b", "prompts=p.jsonl", "iterations=2", "rollout.shards=2"],
    "llama3-8b-paper": ["experiment=llama3-8b-paper", "prompts=[a.jsonl,b.jsonl]", "iterations=2", "rollout.shards=1"],
    "llama3-70b": ["experiment=llama3-70b", "prompts=p.jsonl", "iterations=1", "rollout.shards=1"],
}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_golden(name):
    """NEMO_SSPO_UPDATE_GOLDEN=1 writes the files anew; read the difference before it is committed."""
    path = GOLDEN / f"{name}.json"
    data = as_data(plan(load_experiment(EXPERIMENTS[name])))
    if os.environ.get("NEMO_SSPO_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, indent=1) + "\n")
    assert data == json.loads(path.read_text())


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("reference", ["previous", "base"])
def test_every_input_is_made_by_a_step_before_and_every_artifact_is_used(iterations, shards, reference):
    overrides = [f"iterations={iterations}", f"rollout.shards={shards}", f"train.reference={reference}"]
    steps = plan(load_experiment(["experiment=quickstart", *overrides]))
    made: dict[Path, str] = {}
    used = set()
    for step in steps:
        assert {made[path] for path in step.inputs} == set(step.depends_on)
        assert step.output not in made
        made[step.output] = step.step_id
        used.update(step.depends_on)
    unused = {step.step_id for step in steps} - used
    ends = ("evaluate", "diagnose")
    assert unused == {f"iter_{iteration}.{end}" for iteration in range(1, iterations + 1) for end in ends}
    assert len(steps) == 3 + iterations * (3 * shards + 7)


@pytest.mark.parametrize(("selection", "candidates"), [("candidates=3", 3), ("early_stop=true", 1)])
def test_a_choice_is_made_before_anybody_needs_the_policy(selection, candidates):
    steps = plan(load_experiment(["experiment=quickstart", f"selection.{selection}"]))
    by_id = {step.step_id: step for step in steps}
    assert len(steps) == 4 + 2 * (3 + 7 + 2 * candidates + 1)
    assert by_id["iter_0.rollout_selection.00000"].depends_on == ("prepare_prompts",)
    for t in (1, 2):
        for number in range(candidates):
            export = by_id[f"iter_{t}.export_candidate.{number:05d}"]
            assert export.depends_on == (f"iter_{t}.train",)
            assert by_id[f"iter_{t}.rollout_selection.{number:05d}"].depends_on == ("prepare_prompts", export.step_id)
    of_second = {f"iter_2.rollout_selection.{number:05d}" for number in range(candidates)}
    of_first = {f"iter_1.rollout_selection.{number:05d}" for number in range(candidates)}
    assert set(by_id["iter_1.select_model"].depends_on) == {"iter_1.train", "iter_0.rollout_selection.00000", *of_first}
    assert set(by_id["iter_2.select_model"].depends_on) == {
        "iter_2.train",
        "iter_1.select_model",
        *of_first,
        *of_second,
    }
    # Whoever takes the weights of policy 1 takes the choice with them, and who samples from it waits for its export.
    for reader in ("iter_1.export", "iter_2.reference_logps", "iter_2.train"):
        assert {"iter_1.train", "iter_1.select_model"} <= set(by_id[reader].depends_on), reader
    assert "iter_1.export" in by_id["iter_2.rollout.00000"].depends_on


def test_the_base_is_no_choice():
    overrides = ["experiment=quickstart", "selection.candidates=2", "train.reference=base"]
    steps = {step.step_id: step for step in plan(load_experiment(overrides))}
    assert steps["iter_2.reference_logps"].depends_on == ("iter_2.build_pairs", "iter_0.import_policy")


def test_a_shard_is_scored_as_soon_as_it_is_sampled():
    steps = {step.step_id: step for step in plan(load_experiment(["experiment=quickstart", "rollout.shards=3"]))}
    assert steps["iter_1.score.00002"].depends_on == ("iter_1.rollout.00002",)
    assert len(steps["iter_1.build_pairs"].depends_on) == 9


def test_the_reference_policy_is_the_base_when_asked():
    for reference, parent in (("base", "iter_0.import_policy"), ("previous", "iter_1.train")):
        steps = plan(load_experiment(["experiment=quickstart", f"train.reference={reference}"]))
        (step,) = [step for step in steps if step.step_id == "iter_2.reference_logps"]
        assert parent in step.depends_on


def test_the_next_iteration_is_more_urgent_than_the_evaluation_of_this_one():
    lengths = chain_lengths(plan(load_experiment(["experiment=quickstart"])))
    assert lengths["iter_2.rollout.00000"] > lengths["iter_1.rollout_held_out.00000"]
    assert lengths["iter_2.evaluate"] == 1
    assert max(lengths, key=lengths.__getitem__) == "prepare_prompts"


def test_gpus_follow_the_layout_and_the_engine():
    overrides = ["experiment=llama3-70b", "prompts=p.jsonl"]
    steps = {step.step_id: step for step in plan(load_experiment(overrides))}
    gpus = {name: steps[f"iter_1.{name}"].gpus for name in ("rollout.00000", "score.00000", "train", "build_pairs")}
    assert gpus == {"rollout.00000": 8, "score.00000": 1, "train": 32, "build_pairs": 0}
    assert not any(step.gpus for step in plan(load_experiment([*overrides, "cluster=local_cpu"])))


def test_who_needs_no_gpu_takes_none():
    def gpus(*overrides):
        steps = plan(
            load_experiment(["experiment=llama3-8b", "prompts=p.jsonl", "engine.tensor_parallel=2", *overrides])
        )
        found = {step.stage: step.gpus for step in steps}
        return found["score"], found["evaluate"], found["embed"]

    assert gpus() == (1, 1, 1)
    assert gpus("oracle=llm_judge", "oracle.model=m", "encoder.device=cpu") == (0, 0, 0)
    assert gpus("oracle=policy_judge") == (2, 2, 1)


def test_a_judging_policy_is_waited_for():
    steps = {step.step_id: step for step in plan(load_experiment(["experiment=quickstart", "oracle=policy_judge"]))}
    assert steps["iter_1.score.00000"].depends_on == ("iter_1.rollout.00000",)
    assert steps["iter_2.score.00000"].depends_on == ("iter_2.rollout.00000", "iter_1.export")
    assert "iter_1.export" in steps["iter_2.evaluate"].depends_on
    overrides = ["experiment=quickstart", "oracle=policy_judge", "selection.candidates=2"]
    steps = {step.step_id: step for step in plan(load_experiment(overrides))}
    assert "iter_1.export" in steps["iter_2.select_model"].depends_on
