"""The rehearsal runs on a pretended GPU alone: `make test-rehearsal`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rehearsal.cuda_runtime import is_pretended

# What these assert shows its values, as a test's own assertions do.
pytest.register_assert_rewrite("tests.rehearsal.soundness")

collect_ignore_glob = [] if is_pretended() else ["test_*.py"]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny policies, imported."""
    from tests.rehearsal.checkpoints import import_policies

    return import_policies(tmp_path_factory.mktemp("checkpoints"))
