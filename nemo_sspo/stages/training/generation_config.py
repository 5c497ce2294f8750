"""How to sample from an exported policy, for those who load it with transformers or vLLM."""

import json
from pathlib import Path

from nemo_sspo.config.stages import Rollout
from nemo_sspo.tokens.policy_files import read_policy_tokens, stop_ids

GENERATION_CONFIG = "generation_config.json"


def write_generation_config(directory: Path, rollout: Rollout) -> None:
    """Write how the run sampled, where the base policy says nothing: a file that is there stays as it is.

    A response ends where it ended in the run. That is read from the files: no tokenizer is loaded, which this
    environment's library might read otherwise, or not at all.
    """
    path = directory / GENERATION_CONFIG
    if path.exists():
        return
    tokens = read_policy_tokens(directory, {})
    ends = (
        stop_ids(directory, None, None)
        if tokens is None
        else stop_ids(directory, tokens.end_of_turn, tokens.vocabulary)
    )
    sampling = {
        "do_sample": True,
        "eos_token_id": ends,
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
    }
    path.write_text(json.dumps(sampling, indent=2) + "\n", encoding="utf-8")
