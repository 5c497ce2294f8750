"""What commands print fits 80 columns, and warns as the page does."""

import io

import pytest
from rich.console import Console

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.commands import status
from nemo_sspo.commands.plan import show_jobs, show_steps
from nemo_sspo.commands.report import gathered, show_findings, show_warnings
from nemo_sspo.commands.terminal import table_of
from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.slurm.jobs import jobs
from nemo_sspo.launch.stale import freshness_of
from nemo_sspo.launch.step_status import StepStatus
from tests.report.made_run import half_finished_run

PRESETS = ["quickstart", "quickstart-gpu", "llama3-8b", "mistral-7b", "llama3-70b"]


def terminal(width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def lines(console: Console) -> list[str]:
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("preset", PRESETS)
def test_a_plan_fits_with_whole_names(preset):
    console, steps = terminal(), plan(load_experiment([f"experiment={preset}", "prompts=p.jsonl"]))
    show_steps(steps, console)
    shown = lines(console)
    assert max(map(len, shown)) <= 80
    for name in ("prepare_prompts", "iter_1.train", "iter_2.rollout_held_out"):
        assert any(line.split()[0] == name for line in shown), name
    (train,) = [n for n, line in enumerate(shown) if line.startswith("iter_1.train ")]
    assert "reference_logps" in " ".join(shown[train : train + 3]).replace(",", "").split()


@pytest.mark.parametrize("cluster", ["slurm_cpu", "slurm_modules", "slurm_pyxis"])
@pytest.mark.parametrize("preset", PRESETS[2:])
def test_jobs_fit_with_whole_names(preset, cluster):
    nodes = [] if cluster == "slurm_cpu" else ["cluster.gpus_per_node=8"]
    experiment = load_experiment([f"experiment={preset}", "prompts=p.jsonl", f"cluster={cluster}", *nodes])
    console, graph = terminal(), jobs(experiment)
    show_jobs(graph, freshness_of(experiment), console)
    shown = lines(console)
    assert max(map(len, shown)) <= 80
    assert {job.name for job in graph} <= {line.split()[0] for line in shown}
    for job in graph:
        place = job.environment.image or job.environment.python
        assert place in "".join(line.strip() for line in shown) or place in " ".join(shown)


def test_status_fits_and_tells_below_what_is_longer_than_a_column():
    said = "a remark " * 20 + "[with] brackets"
    rows = [
        StepStatus(
            f"iter_2.rollout_selection.0000{n}", "running", f"123456_{n}", 1, 60, 100, "comparisons", 2.0, 5000.0, said
        )
        for n in range(2)
    ]
    rows.append(StepStatus("iter_2.train", "left out", detail="stopped"))
    console = terminal()
    status.show_steps(rows, console)
    shown = lines(console)
    assert max(map(len, shown)) <= 80
    assert shown[1].startswith("iter_2.rollout_selection.00000  running")
    told = " ".join(line.strip() for line in shown)
    assert "iter_2.rollout_selection.00000 and 1 more: 2 comparisons a second; a remark a remark" in told
    assert "[with] brackets" in told
    assert shown[-1] == "iter_2.train: stopped"


def test_empty_columns_are_left_out():
    assert [column.header for column in table_of(("a", "b", "c"), [("x", "", 0), ("y", "", 1)]).columns] == ["a", "c"]


def test_warnings_are_those_of_the_page(tmp_path):
    layout = RunLayout(half_finished_run(tmp_path).run_dir)
    found = [finding for finding in gathered(layout, prompts=0).findings if finding.state != "good"]
    assert found
    console = terminal()
    show_warnings(console, layout)
    shown = lines(console)
    assert max(map(len, shown)) <= 80
    told = " ".join(line.strip() for line in shown)
    for finding in found:
        word = {"warn": "warning", "bad": "failed"}[finding.state]
        assert f"{word}: {finding.text} Rule: {finding.rule}." in told
    assert sum(line.startswith(("warning: ", "failed: ")) for line in shown) == len(found)


def test_no_warnings_are_told_too(tmp_path):
    layout = RunLayout(half_finished_run(tmp_path).run_dir)
    good = [finding for finding in gathered(layout, prompts=0).findings if finding.state == "good"]
    console = terminal()
    show_findings(console, good[:1])
    assert lines(console) == ["no warnings: 1 rule looked at"]
