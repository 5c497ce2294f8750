"""A stage reports the facts that it is declared with, or publishes nothing."""

from pathlib import Path

import pytest

from nemo_sspo.artifacts.facts.base import Facts
from nemo_sspo.artifacts.facts.training import WeightFacts
from nemo_sspo.stages.pairs import build_pairs
from nemo_sspo.stages.runner.context import StageContext
from tests.stages import runs

OTHERS = [None, WeightFacts(parameters=5)]


@pytest.mark.parametrize("facts", OTHERS)
def test_other_facts_than_declared_are_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, facts: Facts | None
) -> None:
    def run(context: StageContext) -> None:
        context.output.facts = facts

    settings, rows = runs.experiment(tmp_path), runs.rollout_rows([["a", "b"]])
    runs.publish_rollout(settings, rows)
    runs.publish_scores(settings, [])
    runs.publish_vectors(settings, {"a": [1.0]})
    monkeypatch.setattr(build_pairs, "run", run)
    with pytest.raises(TypeError, match=f"build_pairs reports {type(facts).__name__}, not PairFacts"):
        runs.run_stage(settings, "build_pairs")
    assert not list((settings.run_dir / "iter_1").glob("*build_pairs*"))
