"""One tiny policy per test session, and prompts for it."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a random policy."""
    pytest.importorskip("transformers")
    from tests.rollout.tiny_policy import make_policy

    return make_policy(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="session")
def prompts(policy: Path) -> list[list[int]]:
    """Token ids of questions, four of them four times."""
    from nemo_sspo.rollout.tokenizer import load_policy_tokenizer, prompt_token_ids
    from tests.rollout.tiny_engine import QUESTIONS

    tokenizer = load_policy_tokenizer(str(policy))
    return [prompt_token_ids(tokenizer, [{"role": "user", "content": question}]) for question in QUESTIONS]
