"""One tiny policy per test session."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a random policy."""
    pytest.importorskip("transformers")
    from tests.rollout.tiny_policy import make_policy

    return make_policy(tmp_path_factory.mktemp("policy"))
