"""Checks of the oracle, one for each kind: everything that can be known without a model or a request."""

from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.json_files import read_json_object
from nemo_sspo.artifacts.sources.weight_files import incomplete_weights, weight_files
from nemo_sspo.artifacts.sources.weight_headers import model_headers
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.oracles import FunctionOracle, LlmJudgeOracle, PairRMOracle, PolicyJudgeOracle, RewardModelOracle
from nemo_sspo.errors import UserError
from nemo_sspo.launch.checks.models import local_directory
from nemo_sspo.launch.checks.prompts import planned_prompts, policy_tokens_of
from nemo_sspo.oracle.judge.endpoint import api_key, check_endpoint
from nemo_sspo.oracle.judge.question import ANSWERS, question, read_template, refuse_over_context
from nemo_sspo.oracle.pairrm.checkpoint import inspect_pairrm
from nemo_sspo.oracle.pairrm.tokens import check_files
from nemo_sspo.oracle.protocol import Row
from nemo_sspo.oracle.reward_model.files import reward_model_problems
from nemo_sspo.tokens.files import tokenizer_file
from nemo_sspo.tokens.own_file import own_file
from nemo_sspo.tokens.policy_files import row_problems
from nemo_sspo.tokens.single_tokens import single_tokens
from nemo_sspo.tokens.vocabulary import read_vocabulary

_ORDERS = 2


def check_oracle(experiment: Experiment) -> Iterator[str]:
    """What is wrong with the oracle's settings and files."""
    yield from _CHECKS[experiment.oracle.kind](experiment, experiment.oracle)


def oracle_paths(experiment: Experiment) -> tuple[str, ...]:
    """The oracle's model directory or hub id, where it has one."""
    oracle = experiment.oracle
    return (oracle.path,) if isinstance(oracle, PairRMOracle | RewardModelOracle) else ()


def planned_comparisons(experiment: Experiment) -> int | None:
    """Upper bound of the comparisons in a run, both orders counted; None if unknown."""
    prompts = planned_prompts(experiment)
    if prompts is None:
        return None
    trained, held_out, selecting = prompts.trained, prompts.held_out, prompts.selecting
    k, held_out_k = experiment.rollout.samples_per_prompt, experiment.rollout.held_out_samples_per_prompt
    meetings = experiment.iterations * (experiment.iterations + 1) // 2  # iteration t's policy meets 0, ..., t - 1
    evaluated = meetings * held_out * held_out_k**2 * _ORDERS
    selected = experiment.iterations * experiment.selection.candidates * selecting * held_out_k**2 * _ORDERS
    if (n := experiment.evaluation.best_of_n) is not None:
        evaluated += experiment.iterations * held_out * (n * (n - 1) + held_out_k * _ORDERS)
    return trained * k * (k - 1) + evaluated + selected


def _pairrm(experiment: Experiment, oracle: PairRMOracle) -> Iterator[str]:
    """The directory is a PairRM checkpoint in one of its published layouts, with a tokenizer of a PairRM."""
    if local_directory("oracle.path", oracle.path) is not None:
        check_files(inspect_pairrm(oracle.path))
    yield from ()


def _reward_model(experiment: Experiment, oracle: RewardModelOracle) -> Iterator[str]:
    """The directory holds a classifier with one output, whole safetensors and a tokenizer."""
    directory = local_directory("oracle.path", oracle.path)
    if directory is None:
        return
    config = read_json_object(directory / "config.json", "give the directory or hub id of a reward model")
    damaged = list(incomplete_weights(f"oracle.path={directory}", directory))
    yield from damaged or reward_model_problems(directory, config)
    if not damaged and experiment.cluster.has_gpus:
        yield from _too_large(directory, oracle)
    if tokenizer_file(directory) is None:
        yield f"oracle.path={directory}: no tokenizer beside the weights"
    elif (vocabulary := read_vocabulary(directory)) is not None:
        yield from row_problems(directory, "oracle.path", vocabulary)
    if "auto_map" in config and not oracle.trust_remote_code:
        yield (
            f"oracle.path={directory}: the model brings Python code of its own; read it, then give "
            "oracle.trust_remote_code=true"
        )


def _too_large(directory: Path, oracle: RewardModelOracle) -> Iterator[str]:
    """A model must fit on one GPU, of which a tenth is reserved for activations."""
    numbers = sum(prod(tensor.shape) for tensor in model_headers(weight_files(directory)).values())
    needed = numbers * (4 if oracle.precision == "float32" else 2) / 2**30
    if needed > 0.9 * oracle.gpu_memory_gib:
        yield (
            f"oracle.path={directory}: its weights take {needed:.0f} GiB of the one GPU that an oracle has, of "
            f"oracle.gpu_memory_gib={oracle.gpu_memory_gib:g}; give a smaller model, or that setting for a larger GPU"
        )


def _llm_judge(experiment: Experiment, oracle: LlmJudgeOracle) -> Iterator[str]:
    """Endpoint, key and template are there, and the plan stays below the cap."""
    check_endpoint(oracle)
    for check in (lambda: api_key(oracle), lambda: read_template(oracle.template)):
        try:
            check()
        except UserError as error:
            yield str(error)
    try:
        planned = planned_comparisons(experiment)
    except UserError:
        return  # the prompts cannot be read, which their own check says
    if planned is not None and planned > oracle.max_requests:
        yield (
            f"oracle.max_requests={oracle.max_requests}: the run may ask for {planned} comparisons; raise the cap, or "
            "lower data.prompts_per_iteration, rollout.samples_per_prompt or data.held_out_count"
        )


def _policy_judge(experiment: Experiment, oracle: PolicyJudgeOracle) -> Iterator[str]:
    """The policy answers with one token, and the template leaves room for texts."""
    template, directory = read_template(oracle.template), Path(experiment.policy)
    if (tokens := policy_tokens_of(experiment)) is not None:
        file = own_file(directory)
        for answer in ANSWERS:
            single_tokens(file.encode, file.decode, experiment.policy, answer)
        asked = tokens.render([{"role": "user", "content": question(template, Row("", "", ""))}], True)
        if len(file.encode(asked)) > oracle.context_tokens:
            refuse_over_context(oracle.context_tokens)
    yield from ()


def _function(experiment: Experiment, oracle: FunctionOracle) -> Iterator[str]:
    """Its import path is checked with those of the gate and the loss."""
    yield from ()


_CHECKS: dict[str, Callable[[Experiment, Any], Iterator[str]]] = {
    "pairrm": _pairrm,
    "reward_model": _reward_model,
    "llm_judge": _llm_judge,
    "policy_judge": _policy_judge,
    "function": _function,
}
