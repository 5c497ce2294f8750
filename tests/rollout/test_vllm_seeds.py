"""What real vLLM samples is its seed's, to the last bit.

Every test starts engines of its own, one after the other: a further engine takes over vLLM's process-wide groups, and
the one before it can do nothing more. Those that share one are in test_vllm_engine.py.
"""

from pathlib import Path

import pytest

pytest.importorskip("vllm")

from tests.rollout.tiny_engine import WARM, ignore, start


def test_a_shard_is_sampled_alike_whatever_its_engine_sampled_before(policy: Path, prompts: list[list[int]]) -> None:
    """As a new engine samples it: every token and log-prob is equal."""
    engine = start(policy, seed=7)
    new = engine.generate(prompts, WARM, ignore)
    other = [[*prompt[:-1], 7, prompt[-1]] for prompt in prompts]
    engine.begin(8)
    shard = engine.generate(other, WARM, ignore)
    engine.begin(7)
    assert engine.generate(prompts, WARM, ignore) == new
    assert engine.generate(prompts, WARM, ignore) != new, "generators go on, and the cache has hits"
    engine.begin(8)
    assert engine.generate(other, WARM, ignore) == shard


def test_equal_seeds_repeat_and_others_differ(policy: Path, prompts: list[list[int]]) -> None:
    sampled = start(policy, seed=7).generate(prompts, WARM, ignore)
    assert start(policy, seed=7).generate(prompts, WARM, ignore) == sampled
    assert start(policy, seed=8).generate(prompts, WARM, ignore) != sampled
    assert len({tuple(completion.token_ids) for completion in sampled[0]}) > 1, "K samples, not one sample K times"
