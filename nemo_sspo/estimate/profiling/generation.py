"""Tokens/s of an engine: `python -m nemo_sspo.estimate.profiling.generation POLICY ENGINE`; prints JSON.

The policy, in an engine of these settings (JSON), answers random prompts, as many as keep it full.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from nemo_sspo.artifacts.sources.models import local_model
from nemo_sspo.config.engines import VllmEngine as EngineSettings
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.rollout.protocol import Sampling
from nemo_sspo.rollout.vllm_engine import VllmEngine
from nemo_sspo.visible_gpus import visible_gpus

_PROMPT, _RESPONSE = 180, 340
_ON_GPU, _ON_PROCESSOR = (512, 4), (8, 2)
"""Prompts, and responses to each."""


def main(policy: str, settings: EngineSettings) -> None:
    """Print tokens/s, and the seconds that the engine took to start, the policy's reading among them."""
    directory = local_model(policy, "policy")
    longest = min(_PROMPT + _RESPONSE, read_hf_config(Path(directory)).count("max_position_embeddings"))
    begun = time.monotonic()
    engine = VllmEngine(policy, settings, seed=0, max_model_len=longest, stop_token_ids=())
    engine.begin(0)
    ready = time.monotonic()
    vocabulary, generator = read_hf_config(Path(directory)).count("vocab_size"), random.Random(0)
    prompts, samples = _ON_GPU if visible_gpus() else _ON_PROCESSOR
    response = min(_RESPONSE, longest // 2)
    tokens = [[generator.randrange(vocabulary) for _ in range(longest - response)] for _ in range(prompts)]
    found = engine.generate(tokens, Sampling(samples, 1.0, 1.0, response), lambda _done: None)
    made = sum(len(completion.token_ids) for completions in found for completion in completions)
    print(json.dumps({"tokens_per_second": made / (time.monotonic() - ready), "start": ready - begun}))


if __name__ == "__main__":
    main(sys.argv[1], EngineSettings.model_validate_json(sys.argv[2]))
