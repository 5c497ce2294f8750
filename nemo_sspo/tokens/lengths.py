"""How long a text a model was made for, and what is longer."""

from collections.abc import Iterator
from pathlib import Path

from nemo_sspo.artifacts.json_files import json_or_empty
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.oracles import PolicyJudgeOracle


def model_positions(directory: Path) -> int | None:
    """Positions that a model was made for (`max_position_embeddings`); None where its config.json does not say."""
    config = json_or_empty(directory / "config.json")
    text = config.get("text_config")
    positions = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    return int(positions) if isinstance(positions, int | float) and positions > 0 else None


def length_problems(experiment: Experiment, directory: Path) -> Iterator[str]:
    """The longest prompt with the longest response, and a judge's question, are within the policy's positions and
    within what the engine is told to hold."""
    prompt, response = experiment.data.max_prompt_tokens, experiment.rollout.max_response_tokens
    lengths = {f"rollout.max_response_tokens={response} and data.max_prompt_tokens={prompt} come": prompt + response}
    if isinstance(experiment.oracle, PolicyJudgeOracle):
        context = experiment.oracle.context_tokens
        lengths[f"oracle.context_tokens={context} and an answer come"] = context + 1
    positions, held = model_positions(directory), experiment.engine.extra.get("max_model_len")
    named = f"the {positions} positions of policy={experiment.policy} (max_position_embeddings)"
    for what, tokens in lengths.items():
        if positions is not None and tokens > positions:
            yield f"{what} to {tokens} tokens, over {named}; lower them"
    if held is None:
        return
    setting = f"engine.extra.max_model_len={held}"
    if isinstance(held, bool) or not isinstance(held, int):
        yield f"{setting}: expected a whole number of tokens; correct it, or leave it out"
        return
    for what, tokens in lengths.items():
        if tokens > held:
            yield f"{what} to {tokens} tokens, over {setting}; leave that out, or lower them"
    if positions is not None and held > positions:
        yield f"{setting}: over {named}; leave it out"


def overlong_prompt(where: str, length: str, limit: int) -> str:
    """What is said of a prompt that is over the limit with its chat template."""
    return (
        f"{where}: {length} tokens with the chat template, over data.max_prompt_tokens={limit}; shorten it, raise the "
        "limit, or set data.overlong_prompts=drop"
    )
