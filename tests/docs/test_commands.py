"""The manual's commands do what they say; what needs a GPU, a cluster or models is resolved and planned.

Whatever reads a run reads one that is made here; whatever begins one is given prompts, and no model.
"""

import shlex
import shutil

import pytest

from nemo_sspo import cli
from nemo_sspo.config.load import load_experiment
from nemo_sspo.estimate.speeds import PUBLISHED
from nemo_sspo.launch.plan import plan
from nemo_sspo.launch.slurm.jobs import jobs
from tests.docs.pages import ROOT, blocks, commands
from tests.notebook import run_source
from tests.report.made_run import half_finished_run

BEGINS = ("run", "submit", "doctor", "profile")
"""Commands that start something, or look at the machine: their settings are resolved and planned."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A run of one iteration and a half."""
    runs = tmp_path_factory.mktemp("made")
    half_finished_run(runs, "quickstart")
    half_finished_run(runs, "baseline")
    return runs


@pytest.fixture
def place(tmp_path, monkeypatch, made):
    """A directory as the pages take it for granted: prompts of one's own, and the quickstart's run."""
    monkeypatch.chdir(tmp_path)
    for name in ("my", "one", "two", "three"):
        lines = (f'{{"prompt": "{name} {n}"}}' for n in range(400))
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    shutil.copytree(ROOT / "scripts" / "toy" / "data", tmp_path / "scripts" / "toy" / "data")
    shutil.copytree(made, tmp_path / "runs")
    shutil.copyfile(PUBLISHED, tmp_path / "speeds.yaml")
    for stored in (tmp_path / "runs").glob("*/experiment.json"):
        stored.write_text(stored.read_text().replace(str(made), "runs"))
    return tmp_path


@pytest.mark.parametrize(("page", "line"), commands(), ids=lambda value: value)
def test_a_command(page, line, place, capsys):
    verb, *arguments = shlex.split(line, comments=True)[1:]
    settings = [word for word in arguments if "=" in word and not word.startswith("-")]
    if verb in BEGINS and "--run" not in arguments:
        experiment = load_experiment(settings)
        assert plan(experiment)
        if experiment.cluster.kind == "slurm":
            assert jobs(experiment)
    elif verb not in BEGINS:
        assert cli.main([verb, *arguments]) == 0, capsys.readouterr().err
        assert capsys.readouterr().out.strip()


def test_every_kind_of_command_is_there():
    """A rule above that no page meets would check nothing."""
    verbs = {line.split()[1] for _, line in commands()}
    assert {
        "run",
        "submit",
        "doctor",
        "config",
        "plan",
        "status",
        "summary",
        "report",
        "compare",
        "export-pairs",
    } <= verbs
    assert len(commands()) > 30


def test_the_site_of_the_page_is_one(place):
    (site,) = blocks(ROOT / "docs" / "cluster.md", "yaml")
    (place / "conf" / "cluster").mkdir(parents=True)
    (place / "conf" / "cluster" / "my_site.yaml").write_text(site)
    settings = ["policy=/models/llama", "prompts=my.jsonl", "oracle.path=/models/PairRM"]
    graph = jobs(load_experiment(["experiment=llama3-8b", "cluster=my_site", *settings]))
    assert {job.resources.time for job in graph if job.stage == "train"} == {"24:00:00"}
    assert {job.resources.partition for job in graph if job.stage == "import_policy"} == {"cpu"}


def test_the_lines_of_python(place):
    first, run, reads = blocks(ROOT / "docs" / "python.md", "python")
    assert run.strip() == "finished = run(experiment)"  # tests/api runs one
    namespace = run_source(first + reads, "python.md")
    assert namespace["found"].win_rates()[1].mean == 0.7
    assert (place / "runs" / "quickstart" / "report.html").exists()
