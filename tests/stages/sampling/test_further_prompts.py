"""Prompts of iterations that a run did not begin with: new to it, in the same order however far it goes."""

from pathlib import Path

import pytest

pytest.importorskip("transformers")

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.tables import HELD_OUT, SELECTION_PROMPTS, portion_prompts
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.stages import Data, Further, Selection
from nemo_sspo.errors import UserError
from nemo_sspo.launch.run_directory import going_on
from tests.stages import runs
from tests.stages.sampling.questions import QUESTIONS, texts, write


def begun(root: Path, policy: Path, **changes: object) -> Experiment:
    root.mkdir(exist_ok=True)
    prompts = write(root / "p.jsonl", QUESTIONS)
    given = {"policy": str(policy), "prompts": prompts, "data": Data(held_out_count=10, prompts_per_iteration=9)}
    settings = runs.experiment(root, **(given | changes))
    runs.run_stage(settings, "prepare_prompts", 0)
    return settings


def longer(settings: Experiment, iterations: int, **further: object) -> list[set[str]]:
    """The texts of the portions that are added."""
    data = settings.model_dump() | {"iterations": iterations, "further": Further(**further)}
    settings = going_on(Experiment.model_validate(data))
    added = [
        runs.run_stage(settings, "further_prompts", t) for t in range(settings.first_iterations + 1, iterations + 1)
    ]
    assert [artifact.manifest.rows for artifact in added] == [artifact.manifest.counts["prompts"] for artifact in added]
    return [texts(artifact, portion_prompts(artifact.manifest.iteration)) for artifact in added]


def test_they_are_in_no_set_before_and_the_first_ones_stay_as_they_are(tmp_path: Path, policy: Path) -> None:
    settings = begun(tmp_path, policy, selection=Selection(candidates=2, prompts=7))
    prompts = RunLayout(settings.run_dir).artifact("prepare_prompts")
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in prompts.iterdir()}
    added = longer(settings, 3)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in prompts.iterdir()} == before
    tables = (HELD_OUT, SELECTION_PROMPTS, portion_prompts(1))
    first = [{row["messages"][0]["content"] for row in table.read(prompts).to_pylist()} for table in tables]
    assert [len(part) for part in (*first, *added)] == [10, 7, 9, 9, 9]
    assert len(set().union(*first, *added)) == 44
    assert set().union(*first, *added) < set(QUESTIONS)


def test_going_on_in_two_steps_is_going_on_in_one(tmp_path: Path, policy: Path) -> None:
    once, twice = (begun(tmp_path / name, policy) for name in ("once", "twice"))
    added = longer(once, 4)
    assert longer(twice, 2) == added[:1]
    assert longer(twice, 4)[1:] == added[1:]
    assert [len(part) for part in added] == [9, 9, 9]


def test_a_file_of_further_prompts_without_those_that_are_used(tmp_path: Path, policy: Path) -> None:
    settings = begun(tmp_path, policy, data=Data(held_out_count=10))  # all others are in the first portion
    with pytest.raises(UserError, match=r"prompts=.*p\.jsonl: each of its 47 prompts is used before iteration 2 or"):
        longer(settings, 2)
    new = [f"other {n}" for n in range(5)]
    more = write(tmp_path / "more.jsonl", [*QUESTIONS[:20], *new])
    assert longer(settings, 2, prompts=more) == [set(new)]
    counts = runs.open_artifact(RunLayout(settings.run_dir).artifact("further_prompts", 2)).manifest.counts
    assert (counts["prompts"], counts["used_before"]) == (5, 20)


def test_a_list_gives_each_iteration_its_own_file_then_too(tmp_path: Path, policy: Path) -> None:
    files = tuple(write(tmp_path / f"{n}.jsonl", QUESTIONS[n::3]) for n in range(3))
    data = Data(held_out_prompts=write(tmp_path / "held.jsonl", ["only held out"]))
    settings = begun(tmp_path, policy, prompts=files, data=data)
    assert longer(settings, 3) == [set(QUESTIONS[1::3]), set(QUESTIONS[2::3])]
