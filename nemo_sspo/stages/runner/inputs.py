"""What each stage reads: directories of artifacts, by name."""

from collections.abc import Callable
from pathlib import Path

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.experiment import Experiment

Inputs = dict[str, list[Path]]
StepInputs = Callable[[Experiment, RunLayout, int, int], Inputs]
"""The inputs of a step from (experiment, layout, iteration, shard)."""


def nothing(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """Files outside the run only."""
    return {}


def further_prompts(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """All prompts that the run has taken so far."""
    earlier = _further(experiment, layout, iteration - 1)
    return {"prompts": [layout.artifact("prepare_prompts")], "earlier": earlier}


def rollout(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """The policy that the iteration starts from, and its prompts where the run did not begin with them."""
    sampling, further = _sampling_inputs(layout, policy=iteration - 1), _further(experiment, layout, iteration)
    return sampling | ({"portion": further[-1:]} if further else {})


def rollout_held_out(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """The policy that the iteration has made."""
    return _sampling_inputs(layout, policy=iteration)


def rollout_selection(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """A candidate; in iteration 0 the base policy."""
    sampling = {} if iteration == 0 else {"policy": [layout.artifact("export_candidate", iteration, shard)]}
    return {"prompts": [layout.artifact("prepare_prompts")], **sampling}


def score(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """The shard's responses, and the policy that judges them where one does."""
    return embed(experiment, layout, iteration, shard) | _judging_inputs(experiment, layout, iteration)


def embed(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """The shard's responses."""
    return {"rollout": [layout.artifact("rollout", iteration, shard)]}


def build_pairs(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """All shards of the iteration."""
    shards = range(experiment.rollout.shards)
    return {
        name: [layout.artifact(name, iteration, shard) for shard in shards] for name in ("rollout", "score", "embed")
    }


def diagnose(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """All shards, the pairs, and the labelled comparisons where there are some."""
    pairs = {"build_pairs": [layout.artifact("build_pairs", iteration)]}
    labelled = {"score_labelled": [layout.artifact("score_labelled", 0)]}
    inputs = build_pairs(experiment, layout, iteration, shard) | pairs
    return inputs | labelled if experiment.evaluation.labelled_pairs else inputs


def reference_logps(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """The pairs, the reference policy, and the engine's log-probs where they are taken."""
    reference = 0 if experiment.train.reference == "base" else iteration - 1
    inputs = {
        "build_pairs": [layout.artifact("build_pairs", iteration)],
        **_policy_inputs(experiment, layout, reference),
    }
    if experiment.train.reference_source == "rollout_checked":
        shards = range(experiment.rollout.shards)
        inputs["rollout"] = [layout.artifact("rollout", iteration, shard) for shard in shards]
    return inputs


def train(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """The pairs, their reference, and the policy that the iteration starts from."""
    return {
        "build_pairs": [layout.artifact("build_pairs", iteration)],
        "reference_logps": [layout.artifact("reference_logps", iteration)],
        **_policy_inputs(experiment, layout, iteration - 1),
    }


def export_candidate(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """The training with its candidates."""
    return {"checkpoint": [layout.artifact("train", iteration)]}


def select_model(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """Responses of the candidates, and of those before them, one of which the iteration started from."""
    shards = range(experiment.selection.candidates)
    inputs = {
        "train": [layout.artifact("train", iteration)],
        "candidates": [layout.artifact("rollout_selection", iteration, shard) for shard in shards],
    }
    if iteration == 1:
        inputs["before"] = [layout.artifact("rollout_selection", 0, 0)]
    else:
        inputs["before"] = [layout.artifact("rollout_selection", iteration - 1, shard) for shard in shards]
        inputs["selection"] = [layout.artifact("select_model", iteration - 1)]
    return inputs | _judging_inputs(experiment, layout, iteration)


def export(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """The policy, and what its model card describes."""
    further = _further(experiment, layout, iteration)
    return {
        **({"further": further} if further else {}),
        **_policy_inputs(experiment, layout, iteration),
        "build_pairs": [layout.artifact("build_pairs", iteration)],
        "prompts": [layout.artifact("prepare_prompts")],
    }


def evaluate(experiment: Experiment, layout: RunLayout, iteration: int, shard: int) -> Inputs:
    """Held-out responses of this policy and of all before it."""
    *earlier, new = (layout.artifact("rollout_held_out", policy, 0) for policy in range(iteration + 1))
    return {"new": [new], "earlier": earlier} | _judging_inputs(experiment, layout, iteration)


def _further(experiment: Experiment, layout: RunLayout, iteration: int) -> list[Path]:
    """Prompts of the iterations up to this one that the run did not begin with."""
    later = range(experiment.first_iterations + 1, iteration + 1)
    return [layout.artifact("further_prompts", each) for each in later]


def _sampling_inputs(layout: RunLayout, policy: int) -> Inputs:
    """Prompts, and the export of the policy that samples; policy 0 is the experiment's own, which is no artifact."""
    prompts = {"prompts": [layout.artifact("prepare_prompts")]}
    return {**prompts, "policy": [layout.artifact("export", policy)]} if policy > 0 else prompts


def _judging_inputs(experiment: Experiment, layout: RunLayout, iteration: int) -> Inputs:
    """The export of the policy that judges an iteration, where the oracle is the policy it starts from."""
    oracle = experiment.oracle
    if oracle.kind != "policy_judge" or oracle.judge == "base" or iteration == 1:
        return {}
    return {"policy": [layout.artifact("export", iteration - 1)]}


def _policy_inputs(experiment: Experiment, layout: RunLayout, policy: int) -> Inputs:
    """Where the NeMo checkpoint of a policy lies, and the choice among several (`chosen.policy_checkpoint`)."""
    if policy == 0:
        return {"checkpoint": [layout.artifact("import_policy", 0)]}
    trained = {"checkpoint": [layout.artifact("train", policy)]}
    return trained | ({"selection": [layout.artifact("select_model", policy)]} if experiment.selection.is_on else {})
