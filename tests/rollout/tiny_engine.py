"""Real vLLM on the tiny policy, and what its tests ask of it."""

from pathlib import Path

from nemo_sspo.config.engines import VllmEngine as VllmSettings
from nemo_sspo.rollout.protocol import Sampling
from nemo_sspo.rollout.tokenizer import load_policy_tokenizer, stop_token_ids
from nemo_sspo.rollout.vllm_engine import VllmEngine

QUESTIONS = ["How do I sort a list?", "Tell me about the old town.", "a", "Python? " * 9] * 4
WARM = Sampling(samples=5, temperature=0.7, top_p=0.9, max_tokens=48)


def ignore(done: int) -> None:
    """No progress is wanted."""


def start(policy: Path, seed: int) -> VllmEngine:
    stops = stop_token_ids(str(policy), load_policy_tokenizer(str(policy)))
    return VllmEngine(str(policy), VllmSettings(max_num_seqs=64), seed=seed, max_model_len=160, stop_token_ids=stops)
