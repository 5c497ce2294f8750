"""How long a text a model was made for, and what is longer."""

from collections.abc import Iterator
from pathlib import Path

from nemo_sspo.artifacts.json_files import json_or_empty
from nemo_sspo.config.experiment import Experiment


def model_positions(directory: Path) -> int | None:
    """Positions that a model was made for (`max_position_embeddings`); None where its config.json does not say."""
    config = json_or_empty(directory / "config.json")
    text = config.get("text_config")
    positions = (text if isinstance(text, dict) else config).get("max_position_embeddings")
    return int(positions) if isinstance(positions, int | float) and positions > 0 else None


def length_problems(experiment: Experiment, directory: Path) -> Iterator[str]:
    """The longest prompt with the longest response is within the policy's positions."""
    positions = model_positions(directory)
    prompt, response = experiment.data.max_prompt_tokens, experiment.rollout.max_response_tokens
    if positions is not None and prompt + response > positions:
        yield (
            f"rollout.max_response_tokens={response} and data.max_prompt_tokens={prompt} come to {prompt + response} "
            f"tokens, over the {positions} positions of policy={experiment.policy} (max_position_embeddings); lower "
            "them"
        )
