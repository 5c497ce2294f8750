"""Say what is wrong with a configuration in one line: the full key, what stood there, what was expected."""

from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher, get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from nemo_sspo.config.cluster import PATTERNS_IN_WORDS
from nemo_sspo.config.describe import kinds_of_keys

_EXPECTED = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "string_type": "text",
    "model_type": "a section (key.name=value sets one of its settings)",
    "model_attributes_type": "a section (key.name=value sets one of its settings)",
    "dict_type": "a mapping",
    "tuple_type": "a list",
}
_CLOSE_ENOUGH = 0.6
_LONGEST = 10**1000
"""Python writes no number of more than 4300 digits."""

NAMES_ELSEWHERE = {
    "lr": "train.learning_rate",
    "lr_scheduler_type": "train.lr_schedule",
    "warmup_ratio": "train.warmup_fraction",
    "num_train_epochs": "train.train_epochs",
    "epochs": "train.train_epochs",
    "max_epochs": "train.train_epochs",
    "batch_size": "train.global_batch_size",
    "train_global_batch_size": "train.global_batch_size",
    "per_device_train_batch_size": "train.micro_batch_size",
    "train_micro_batch_size": "train.micro_batch_size",
    "gradient_accumulation_steps": "train.global_batch_size",
    "max_grad_norm": "train.clip_grad",
    "gradient_checkpointing": "train.recompute",
    "activation_checkpointing": "train.recompute",
    "save_steps": "train.checkpoint_every_steps",
    "report_to": "train.loggers",
    "use_peft": "train.peft",
    "lora_r": "train.lora_rank",
    "sequence_packing": "train.packing",
    "padding_free": "train.packing",
    "max_length": "pairs.max_tokens",
    "max_prompt_length": "data.max_prompt_tokens",
    "max_completion_length": "rollout.max_response_tokens",
    "max_new_tokens": "rollout.max_response_tokens",
    "num_generations": "rollout.samples_per_prompt",
    "num_return_sequences": "rollout.samples_per_prompt",
    "model": "policy",
    "model_name": "policy",
    "model_name_or_path": "policy",
    "dataset": "prompts",
    "dataset_name": "prompts",
    "dataset_text_field": "data.columns.prompt",
    "prompt_key": "data.columns.prompt",
    "chosen_key": "data.columns.chosen",
    "rejected_key": "data.columns.rejected",
    "field_messages": "data.columns.conversations",
    "output_dir": "runs_dir",
    "tensor_model_parallel_size": "parallel.tensor",
    "pipeline_model_parallel_size": "parallel.pipeline",
    "context_parallel_size": "parallel.context",
    "tensor_parallel_size": "engine.tensor_parallel",
    "chat_template_kwargs": "data.template_arguments",
    "chat_template_args": "data.template_arguments",
    "enable_thinking": "data.template_arguments",
    "reward_model_path": "oracle.path",
    "judge": "oracle",
    "repulsion.form": "repulsion.kind",
}
"""What TRL, NeMo-RL, vLLM and earlier releases call a setting of ours."""


def validation_message(error: ValidationError, settings: Mapping[str, Any]) -> str:
    """One line for everything pydantic found: a misspelt key first (it also causes missing ones), then values."""
    problems = error.errors(include_url=False)
    misspelt = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    missing = [_path(problem, settings) for problem in problems if problem["type"] == "missing"]
    others = [problem for problem in problems if problem["type"] not in ("extra_forbidden", "missing")]
    if misspelt:
        return _misspelt(_path(misspelt[0], settings), settings)
    if others:
        return _wrong_value(others[0], settings)
    return f"{_listed(missing)} missing: give {' '.join(f'{path}=...' for path in missing)}"


def closest(name: str, candidates: Iterable[str]) -> str:
    """``" (did you mean x?)"``, or nothing where no candidate is near."""
    near = get_close_matches(name, list(candidates), n=1, cutoff=_CLOSE_ENOUGH)
    return f" (did you mean {near[0]}?)" if near else ""


def shown(value: object) -> str:
    """A value as it was typed, or escaped where it would break the line."""
    if isinstance(value, int) and abs(value) >= _LONGEST:
        return "a number of thousands of digits"
    text = "null" if value is None else str(value)
    return text if text.isprintable() else repr(text)


def nearest_key(path: str, candidates: Iterable[str]) -> str | None:
    """The known key most like an unknown one: by its whole path, or by its last name in whatever section."""
    leaf = path.rpartition(".")[2]

    def likeness(candidate: str) -> float:
        whole = SequenceMatcher(None, path, candidate).ratio()
        last = SequenceMatcher(None, leaf, candidate.rpartition(".")[2]).ratio()
        return max(whole, last) + 0.1 * min(whole, last)

    best = max(candidates, key=likeness)
    return best if likeness(best) >= _CLOSE_ENOUGH else None


def _misspelt(path: str, settings: Mapping[str, Any]) -> str:
    known = kinds_of_keys()
    section = path.rpartition(".")[0]
    if path in known:
        kind = settings[section].get("kind")
        return f"{path}: no setting of {section}={kind}; it belongs to {section}={' or '.join(known[path])}"
    elsewhere = NAMES_ELSEWHERE.get(path) or NAMES_ELSEWHERE.get(path.rpartition(".")[2])
    near = elsewhere or nearest_key(path, [*known, "experiment"])
    return f"{shown(path)}: no such setting" + (
        f" (did you mean {near}?)" if near else "; `nemo-sspo config` lists them"
    )


def _wrong_value(problem: ErrorDetails, settings: Mapping[str, Any]) -> str:
    path, kind = _path(problem, settings), problem["type"]
    context = problem.get("ctx", {})
    if kind == "value_error":
        message = str(context["error"])
        return f"{path}: {message}" if path else message
    if kind == "union_tag_invalid":
        return (
            f"{path}.kind={shown(context['tag'])}: no such kind; one of {context['expected_tags'].replace(chr(39), '')}"
        )
    if kind == "union_tag_not_found":
        return f"{path}.kind is missing: choose one with {path}=<kind>"
    if kind == "string_pattern_mismatch":
        return f"{path}={shown(problem['input'])}: expected {PATTERNS_IN_WORDS[context['pattern']]}"
    if kind == "tuple_type" and isinstance(problem["input"], str):
        return f"{path}={shown(problem['input'])}: expected a list, which is written {path}=[{problem['input']}]"
    expected = _EXPECTED.get(kind) or problem["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    return f"{path}={shown(problem['input'])}: expected {expected}"


def _path(problem: ErrorDetails, settings: Mapping[str, Any]) -> str:
    """Dotted key of a problem. Pydantic puts the kind of a union's member between the names: it is left out."""
    *parents, last = problem["loc"] or ("",)
    names: list[str] = []
    node: Any = settings
    tagged = False
    for part in parents:
        if isinstance(node, Mapping) and part == node.get("kind") and not tagged:
            tagged = True  # a kind may be named as one of its fields: only its first mention is the tag
        elif isinstance(node, Mapping) and part in node:
            names.append(str(part))
            node, tagged = node[part], False
        elif not isinstance(node, Mapping):
            names.append(str(part))
    is_tag = isinstance(node, Mapping) and node.get("kind") == last and problem["type"] not in ("missing",)
    return ".".join(names if is_tag and last not in node else [*names, str(last)])


def _listed(names: list[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"
