"""One tiny PairRM per test session, in every layout."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories of one random PairRM: ``hf``, ``llm-blender``, ``pickle``."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.oracle.tiny_pairrm import make_checkpoints

    return make_checkpoints(tmp_path_factory.mktemp("pairrm"))
