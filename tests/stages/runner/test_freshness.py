"""A step takes only what today's settings would make, and publishes only what it began to make: planted changes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import is_published, open_artifact
from nemo_sspo.config.engines import VllmEngine
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.oracles import PairRMOracle
from nemo_sspo.config.stages import Judging, Rollout
from nemo_sspo.errors import UserError
from nemo_sspo.stages.__main__ import run_step
from nemo_sspo.stages.sampling import judging
from tests.stages import runs
from tests.stages.fake_oracle import FormulaOracle

TEXTS = [["a", "bb"], ["ccc", "d"]]


@pytest.fixture
def settings(tmp_path: Path) -> Experiment:
    """Of a stored run with prompts and a rollout, both current."""
    settings = runs.experiment(tmp_path)
    runs.store(settings)
    runs.publish_prompts(settings)
    runs.publish_rollout(settings, runs.rollout_rows(TEXTS))
    return settings


@pytest.fixture
def score(settings: Experiment, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs the score step; `meanwhile` happens while its oracle is loaded. Where its artifact belongs."""

    def run(meanwhile: Callable[[], object]) -> Path:
        def load(*_: object) -> FormulaOracle:
            meanwhile()
            return FormulaOracle(lambda row: 0.0)

        monkeypatch.setattr(judging, "load_oracle", load)
        run_step(settings.run_dir, "score", 1, 0, "test")
        return scores(settings)

    return run


def scores(settings: Experiment) -> Path:
    return RunLayout(settings.run_dir).artifact("score", 1, 0)


def rollout(settings: Experiment) -> Path:
    return RunLayout(settings.run_dir).artifact("rollout", 1, 0)


def change(settings: Experiment, **parts: object) -> None:
    """Store the experiment with other settings."""
    runs.store(settings.model_copy(update=parts))


def replace_rollout(settings: Experiment) -> None:
    shutil.rmtree(rollout(settings))
    runs.publish_rollout(settings, runs.rollout_rows([["a", "bb"], ["ccc", "other"]]))


def other_prompts(settings: Experiment) -> None:
    prompts = RunLayout(settings.run_dir).artifact("prepare_prompts")
    shutil.rmtree(prompts)
    runs.publish_prompts(settings, "others")


def never() -> None:
    raise AssertionError("the oracle was loaded")


def test_what_is_current_is_taken_and_published(settings, score) -> None:
    # Of a setting that the step does not depend on, nothing is said.
    assert is_published(score(lambda: change(settings, iterations=3)))


def test_knobs_may_change_before_a_step_and_while_it_runs(settings, score) -> None:
    change(settings, engine=VllmEngine(max_num_seqs=3), oracle=PairRMOracle(path="no/oracle", batch_tokens=64))
    made = open_artifact(score(lambda: change(settings)))
    assert (made.manifest.knobs, made.manifest.rounding) == ({"oracle.batch_tokens": 64}, ("oracle.batch_tokens",))


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (
            lambda s: change(s, rollout=Rollout(samples_per_prompt=7)),
            r"shard_00000: out of date \(rollout.samples_per_prompt: 5 -> 7\): `nemo-sspo redo",
        ),
        (
            lambda s: change(s, seed=9),
            r"shard_00000: out of date \(seed: 0 -> 9; input prompts: prepare_prompts is stale",
        ),
        (other_prompts, r"shard_00000: out of date \(input prompts: content changed\)"),
        (
            lambda s: shutil.rmtree(RunLayout(s.run_dir).artifact("prepare_prompts")),
            r"shard_00000: out of date \(input prompts: prepare_prompts is missing\)",
        ),
    ],
)
def test_an_input_that_is_out_of_date_is_refused_before_a_model_is_loaded(settings, score, plant, message) -> None:
    plant(settings)
    with pytest.raises(UserError, match=message):
        score(never)
    assert not scores(settings).parent.exists()


@pytest.mark.parametrize(
    ("plant", "message"),
    [
        (
            lambda s: change(s, judging=Judging(reasoning="left_out")),
            r"score: while it ran, .* changed \(judging.reasoning: 'judged' -> 'left_out'\): .* is not published",
        ),
        (replace_rollout, r"score: while it ran, .* changed \(.*rollout/shard_00000 is another now\)"),
        (
            lambda s: shutil.rmtree(rollout(s)),
            r"score: while it ran, .* changed \(.*rollout/shard_00000 is another now\)",
        ),
    ],
)
def test_what_was_made_of_settings_or_inputs_that_changed_meanwhile_is_not_published(
    settings, score, plant, message
) -> None:
    with pytest.raises(UserError, match=message):
        score(lambda: plant(settings))
    assert not list(scores(settings).parent.iterdir()), "neither the artifact nor a draft"
