"""A run that goes on with more iterations: what it has stays as it is, and the new prompts are new."""

import json
from pathlib import Path

import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.load import change_experiment, load_experiment
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.preflight import problems
from nemo_sspo.launch.run_directory import bind, going_on
from nemo_sspo.launch.stale import freshness_of, refuse_stale
from tests.launch import ready_run
from tests.launch.fake_run import digests, drive, tiny_experiment
from tests.launch.published import publish_steps

GIVEN = ["experiment=quickstart", *ready_run.OVERRIDES]
LIMITED = "data.prompts_per_iteration=8"


def made(run: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(run.glob("**/manifest.json"))}


def test_nothing_that_is_finished_is_made_again(tmp_path):
    begun = tiny_experiment(tmp_path, "run", LIMITED)
    drive(begun)
    before, when = digests(begun.run_dir), made(begun.run_dir)
    longer = going_on(change_experiment(begun, ["iterations=3"]))
    assert longer.further.after == 1
    again = drive(longer)
    assert len(again.of("skipped")) == len(before) == 13
    assert {step.iteration for step in plan(longer) if step.step_id in again.of("finished")} == {2, 3}
    assert [name for name in again.of("finished") if "further" in name] == [
        "iter_2.further_prompts",
        "iter_3.further_prompts",
    ]
    assert {name: digest for name, digest in digests(begun.run_dir).items() if name in before} == before
    assert {path: time for path, time in made(begun.run_dir).items() if path in when} == when
    # And once more: what the first time added is as finished as the rest.
    refuse_stale(longer)
    longest = going_on(change_experiment(longer, ["iterations=4"]))
    assert longest.further.after == 1
    added = drive(longest).of("finished")
    assert {step.iteration for step in plan(longest) if step.step_id in added} == {4}


def test_every_command_goes_on_whatever_it_is_given(place, capsys):
    begun = load_experiment([*GIVEN, "iterations=1", LIMITED])
    publish_steps(begun, *(step.step_id for step in plan(begun)))
    bind(begun, RunLayout(begun.run_dir))
    for given in ([str(begun.run_dir), "iterations=3"], [*GIVEN, "iterations=3", LIMITED]):
        assert cli.main(["plan", *given, "--json"]) == 0
        steps = {step["step"]: step for step in json.loads(capsys.readouterr().out)["steps"]}
        assert steps["iter_3.rollout.00000"]["depends_on"] == [
            "prepare_prompts",
            "iter_2.export",
            "iter_3.further_prompts",
        ]
        assert steps["iter_3.further_prompts"]["depends_on"] == ["prepare_prompts", "iter_2.further_prompts"]
        assert cli.main(["status", *given, "--json"]) == 0
        states = {row["step"]: row["state"] for row in json.loads(capsys.readouterr().out)}
        assert {states[name] for name in steps if not name.startswith(("iter_2", "iter_3"))} == {"published"}
        assert states["iter_2.rollout.00000"] == "missing"
        assert cli.main(["run", *given, "--dry-run"]) == 0
        capsys.readouterr()
    assert cli.main(["plan", str(begun.run_dir), "name=other"]) == 2
    assert "a run keeps its name and runs_dir" in capsys.readouterr().err


def test_a_dry_run_knows_when_no_prompt_is_left(place):
    begun = load_experiment([*GIVEN, "iterations=1"])
    publish_steps(begun, "prepare_prompts")
    assert begun.further.after is None
    (problem,) = problems(going_on(load_experiment([*GIVEN, "iterations=3"])))
    assert problem.startswith("prompts=prompts.jsonl: each of its 30 prompts is used before iteration 2 or kept")
    ready_run.write_prompts(Path("more.jsonl"), 30, start=20)  # ten of them are in the first portion or held out
    more = [*GIVEN, "iterations=3", "further.prompts=more.jsonl"]
    assert problems(going_on(load_experiment([*more, "further.prompts_per_iteration=10"]))) == []
    (problem,) = problems(going_on(load_experiment(more)))  # 25 are taken at once, as many as the first portion
    assert problem.startswith("further.prompts=more.jsonl: each of its 30 prompts is used before iteration 3")
    (problem,) = problems(going_on(load_experiment([*more, "further.prompts_per_iteration=10", "rollout.shards=11"])))
    assert problem.startswith("rollout.shards=11 is more than the 10 prompts of an iteration")


def test_a_run_of_an_earlier_release_goes_on(place):
    """Its manifests know no `further`."""
    begun = load_experiment([*GIVEN, "iterations=1", LIMITED])
    publish_steps(begun, *(step.step_id for step in plan(begun)))
    for path in begun.run_dir.glob("**/manifest.json"):
        assert not any(key.startswith("further") for key in json.loads(path.read_text())["config"])
    longer = going_on(load_experiment([*GIVEN, "iterations=2", LIMITED]))
    freshness = freshness_of(longer)
    assert {step.iteration for step in plan(longer) if freshness.standing(step.output) != "current"} == {2}


@pytest.mark.parametrize("iterations", [1, 2])
def test_a_run_that_is_not_longer_is_as_it_was(place, iterations):
    begun = load_experiment([*GIVEN, f"iterations={iterations}"])
    publish_steps(begun, "prepare_prompts")
    assert going_on(begun) == begun
