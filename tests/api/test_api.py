"""What `from nemo_sspo import ...` gives: light to import, typed, and the same as the command line does."""

import subprocess
import sys

import pytest

import nemo_sspo
from nemo_sspo import UserError, cli, load_experiment, open_run, plan, run
from nemo_sspo.api import __all__ as public
from nemo_sspo.artifacts.layout import HF_MODEL, RunLayout
from nemo_sspo.artifacts.tables import PAIRS
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.local.step_failed import StepFailed
from tests.launch.ready import arguments as arguments
from tests.report.made_run import LOSSES, PROMPTS, half_finished_run, put


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One whole iteration of two, with an exported policy."""
    settings = half_finished_run(tmp_path_factory.mktemp("runs"))
    put(RunLayout(settings.run_dir), "export", 1, files={f"{HF_MODEL}/config.json": "{}"})
    return settings


@pytest.fixture
def opened(made):
    return open_run(made.run_dir)


def test_the_package_alone_imports_nothing():
    script = (
        "import sys; before = set(sys.modules); import nemo_sspo; "
        "print(sorted(m for m in set(sys.modules) - before if m.startswith(('nemo_sspo.', 'pydantic', 'rich')))); "
        "nemo_sspo.run; print(sorted({'torch', 'transformers', 'vllm', 'megatron', 'plotly'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["[]", "[]"]


def test_the_public_names_are_those_of_the_api_and_there_are_no_others():
    assert {*public, "__version__"} == set(nemo_sspo.__all__)
    assert set(public) <= set(dir(nemo_sspo))
    with pytest.raises(AttributeError, match="no attribute 'no_such_name'"):
        _ = nemo_sspo.no_such_name


def test_win_rates_by_iteration_and_opponent(opened):
    assert opened.iterations == [1, 2]
    assert {t: str(win) for t, win in opened.win_rates().items()} == {1: "0.700 [0.650, 0.750]"}
    assert opened.win_rates("previous")[1].mean == 0.7
    assert opened.win_rates("iter_7") == {}
    assert opened.evaluations()[1].tokens["new"] == 30.0


def test_step_logs_and_what_has_none(opened):
    curve = opened.steps(1)
    assert curve.steps == [1, 2, 3, 4]
    assert curve.metrics["loss"] == list(LOSSES)
    with pytest.raises(UserError, match="train of iteration 2 is not published"):
        opened.steps(2)


def test_pairs_diagnostics_and_figure_2(opened):
    pairs = opened.pairs(1)
    assert pairs.schema.equals(PAIRS.schema)
    assert pairs.num_rows == PROMPTS - 1  # one is a tie
    found = opened.diagnostics(1)
    assert found.response_pairs == 3 * PROMPTS
    view = opened.margins(1)
    assert (view.what, view.pairs) == ("response pairs", 3 * PROMPTS)
    # The ungated table is the figure: its bins hold all pairs, and the gate only lowers a margin.
    assert sum(view.before.counts) == sum(each.count for each in found.similarity_margin[0].bins) == 3 * PROMPTS
    assert all(after <= before for before, after in zip(view.margin_before, view.margin_after, strict=True))
    for what in (opened.pairs, opened.diagnostics, opened.margins):
        with pytest.raises(UserError, match="of iteration 2 is not published"):
            what(2)


def test_settings_policies_and_what_is_left(opened, made):
    assert opened.settings == made
    assert opened.policies == {1: RunLayout(made.run_dir).artifact("export", 1) / HF_MODEL}
    assert opened.result == 1
    assert "iter_2.train" in opened.pending
    assert "iter_1.train" not in opened.pending
    assert opened.report().name == "report.html"


def test_a_damaged_artifact_is_an_error_where_the_page_would_remark(tmp_path):
    settings = half_finished_run(tmp_path)
    (RunLayout(settings.run_dir).artifact("diagnose", 1) / "diagnostics.json").write_text("{")
    with pytest.raises(UserError, match=r"diagnostics\.json"):
        open_run(settings.run_dir).diagnostics(1)


def test_no_run(tmp_path):
    with pytest.raises(UserError, match="no run lies there"):
        open_run(tmp_path)


def test_a_run_from_python_is_the_command_lines(arguments, capsys):
    experiment = load_experiment(arguments)
    assert isinstance(experiment, Experiment)
    finished = run(experiment, quiet=True)
    assert capsys.readouterr().out == ""
    assert finished.pending == []
    assert {step.output for step in plan(experiment)} == {
        experiment.run_dir / path.parent.relative_to(experiment.run_dir)
        for path in experiment.run_dir.glob("**/manifest.json")
    }
    before = {path: path.stat().st_mtime_ns for path in experiment.run_dir.glob("**/manifest.json")}
    assert cli.main(["run", *arguments]) == 0  # it finds everything done
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_what_is_wrong_is_refused_as_by_the_command_line(arguments, capsys):
    arguments = [*arguments, "policy=absent", "prompts=absent.jsonl"]
    with pytest.raises(UserError) as error:
        run(load_experiment(arguments))
    assert cli.main(["run", *arguments]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"error: {error.value}"


def test_a_step_that_fails_is_raised(arguments, monkeypatch):
    from nemo_sspo.launch.local import runner

    monkeypatch.setattr(runner, "stage_command", lambda *_, **__: [sys.executable, "-c", "raise SystemExit(7)"])
    with pytest.raises(StepFailed, match=r"prepare_prompts|import_policy"):
        run(load_experiment(arguments), quiet=True)
