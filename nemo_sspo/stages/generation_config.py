"""How to sample from an exported policy, for those who load it with transformers or vLLM."""

import json
from pathlib import Path

from nemo_sspo.config.stages import Rollout
from nemo_sspo.rollout.tokenizer import load_policy_tokenizer, stop_token_ids

GENERATION_CONFIG = "generation_config.json"


def write_generation_config(directory: Path, rollout: Rollout) -> None:
    """Write how the run sampled, where the base policy says nothing: a file that is there stays as it is.

    A response ends where it ended in the run: at the tokenizer's end of sequence, and at config.json's, which vLLM goes
    by where there is no other file.
    """
    path = directory / GENERATION_CONFIG
    if path.exists():
        return
    configured = json.loads((directory / "config.json").read_bytes()).get("eos_token_id")
    ends = set(configured if isinstance(configured, list) else [configured]) - {None}
    ends |= set(stop_token_ids(str(directory), load_policy_tokenizer(str(directory))))
    sampling = {
        "do_sample": True,
        "eos_token_id": sorted(ends),
        "temperature": rollout.temperature,
        "top_p": rollout.top_p,
    }
    path.write_text(json.dumps(sampling, indent=2) + "\n", encoding="utf-8")
