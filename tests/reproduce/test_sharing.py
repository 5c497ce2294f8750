"""What runs have in common is made once, and what they have not is never taken."""

from pathlib import Path

import pytest

from nemo_sspo.artifacts.removed import mark_removed
from nemo_sspo.artifacts.store import is_published
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch import local
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.stale import freshness_of
from nemo_sspo.reproduce.cost import work_of
from nemo_sspo.reproduce.needs import steps_for
from nemo_sspo.reproduce.sharing import share, shared_steps
from tests.launch.fake_run import drive, tiny_experiment
from tests.launch.published import publish_steps

BEFORE_THE_GATE = {"prepare_prompts", "import_policy", "rollout", "rollout_held_out", "score", "embed"}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Experiment]:
    monkeypatch.setattr(local.runner, "POLL_SECONDS", 0.02)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    changes = {"both": (), "gate": ("repulsion.weight=0",), "none": ("gate=none",), "seeded": ("seed=3",)}
    return {name: tiny_experiment(tmp_path, name, *given) for name, given in changes.items()}


def stages(experiment: Experiment, other: Experiment, iteration: int) -> set[str]:
    names = shared_steps(experiment, other)
    return {step.stage for step in plan(experiment) if step.step_id in names and step.iteration <= iteration}


def test_what_a_setting_changes_is_not_shared_nor_what_reads_it(runs: dict[str, Experiment]) -> None:
    of_repulsion = stages(runs["both"], runs["gate"], 1)
    assert of_repulsion == BEFORE_THE_GATE | {"build_pairs", "reference_logps", "diagnose"}
    assert stages(runs["both"], runs["none"], 1) == BEFORE_THE_GATE
    assert stages(runs["both"], runs["seeded"], 1) == set()


def test_a_run_takes_what_is_published_and_makes_the_rest(runs: dict[str, Experiment]) -> None:
    donor, taker = runs["both"], runs["gate"]
    steps = plan(taker)
    first, second = work_of({"both": donor, "gate": taker}, {"both": plan(donor), "gate": steps})
    assert len(first.missing) == len(plan(donor))
    assert second.shared == {"both": len(shared_steps(taker, donor))}
    drive(donor)
    taken = share(taker, steps, [donor])
    assert set(taken) == shared_steps(taker, donor)
    freshness = freshness_of(taker)
    for step in steps:
        assert freshness.standing(step.output) == ("current" if step.step_id in taken else "missing")
    some = next(step for step in steps if step.stage == "rollout")
    theirs = donor.run_dir / some.output.relative_to(taker.run_dir)
    assert (some.output / "content.txt").samefile(theirs / "content.txt"), "one copy on the disk"
    display = drive(taker)
    assert set(display.of("finished")) == {step.step_id for step in steps} - set(taken)
    assert share(taker, steps, [donor]) == []
    assert work_of({"gate": taker}, {"gate": steps})[0].missing == ()


def test_what_clean_has_emptied_is_made_anew(runs: dict[str, Experiment]) -> None:
    donor, taker = runs["both"], runs["gate"]
    publish_steps(donor, "iter_1.score", "iter_0.import_policy")
    emptied = next(step for step in plan(donor) if step.stage == "import_policy")
    mark_removed(emptied.output, ["content.txt"])
    taken = share(taker, plan(taker), [donor])
    assert emptied.step_id not in taken
    assert any(name.startswith("iter_1.score") for name in taken)


def test_only_what_is_read_is_made(runs: dict[str, Experiment]) -> None:
    steps = steps_for(runs["both"], {("diagnose", 1)})
    made = {step.stage for step in steps}
    assert "diagnose" in made
    assert not made & {"train", "export", "evaluate"}
    assert not any(is_published(step.output) for step in steps)
