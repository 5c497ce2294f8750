"""``nemo-sspo reproduce``: whole tables over stand-ins for stages, generation and judges; what is listed and said."""

import json
import os
import sys
from pathlib import Path

import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import HF_MODEL, RunLayout
from nemo_sspo.artifacts.store import Draft, publish
from nemo_sspo.commands import driving
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch import benchmark as launch_benchmark
from nemo_sspo.launch.checks import environments
from nemo_sspo.launch.plan import Step
from nemo_sspo.stages.evaluation import win_rates_between
from nemo_sspo.stages.evaluation.benchmark import answerer
from tests.launch import ready_run
from tests.launch.published import publish_steps
from tests.some_facts import some_facts

LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct"
OFFICIAL = [f"UCLA-AGI/Llama-3-Instruct-8B-SPPO-Iter{n}" for n in (1, 2, 3)]
SMALL = (
    *("cluster=local_cpu", "precision=fp32", "parallel=single", "rollout.shards=2", "prompts=prompts.jsonl"),
    *("data.held_out_count=5", "selection.prompts=5", "train.global_batch_size=1", "train.loggers=[]"),
    *("encoder.path=package:tests.launch.tiny_encoder", "oracle.path=oracle"),
    *(override for override in ready_run.REST if override.startswith("cluster.")),
)
JUDGE = f"""#!{sys.executable}
import json, pathlib, sys
given = dict(zip(sys.argv[1:], sys.argv[2:]))
(name,) = {{row["generator"] for row in json.loads(pathlib.Path(given["--model_outputs"]).read_text())}}
output = pathlib.Path(given["--output_path"])
output.mkdir(parents=True, exist_ok=True)
number = 10 * len(name) + float(name[-1])
(output / "leaderboard.csv").write_text(f",length_controlled_winrate\\n{{name}},{{number}}\\n")
"""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Names of the steps and answers that were made, over stand-ins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environments, "STAGE_PACKAGES", {"train": ("json",), "rollout": ("json",)})
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    ready_run.write(tmp_path)
    Path("asked.json").write_text(json.dumps([{"instruction": "Why?", "dataset": "d"}]))
    found: dict[str, list[str]] = {"steps": [], "answers": []}

    def drive(experiment: Experiment, console: object, steps: list[Step]) -> int:
        def fill(step: Step, draft: Draft) -> None:
            found["steps"].append(f"{experiment.name.removeprefix('reproduce-llama3-8b-')}.{step.step_id}")
            (draft.path / HF_MODEL).mkdir()
            (draft.path / HF_MODEL / "config.json").write_text(f'"{experiment.name} {step.step_id}"')

        publish_steps(experiment, *(step.step_id for step in steps), fill=fill)
        return 0

    def generate(request, cluster, python, on_progress) -> None:
        found["answers"].append(request.model_name)
        config, final = launch_benchmark.settings(request, answerer(request)), Path(request.output)
        inputs = launch_benchmark.policy_artifact(request, RunLayout(Path(request.run)))
        final.parent.mkdir(parents=True, exist_ok=True)
        with publish(final, stage="benchmark", config=config, inputs=inputs) as draft:
            row = {"instruction": "Why?", "output": f"{request.model_name} says so.", "generator": request.model_name}
            (draft.path / "model_outputs.json").write_text(json.dumps([row]))
            draft.facts = some_facts(questions=1)

    monkeypatch.setattr(driving, "drive", drive)
    monkeypatch.setattr(launch_benchmark, "generate", generate)
    return found


def judge_with_a_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "alpaca_eval").write_text(JUDGE)
    (tmp_path / "bin" / "alpaca_eval").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("OPENAI_API_KEY", "k-secret")


def call(*given: str) -> int:
    weights = [f"--weights={hub}=policy" for hub in (LLAMA, *OFFICIAL)]
    return cli.main(["reproduce", "s-sppo", *given, *SMALL, *weights])


def test_a_dry_run_lists_runs_weights_judges_and_the_published_numbers(made, capsys) -> None:
    assert cli.main(["reproduce", "s-sppo", "table-5", "--dry-run", "cluster=slurm_pyxis"]) == 0
    out = capsys.readouterr().out
    assert "model=llama3-8b method=s-sppo-paper repulsion.weight=0" in out
    assert "29 of llama3-8b-gate" in out
    assert "GPU-hours by the time limits" in out
    assert all(hub in out for hub in OFFICIAL)
    assert f"gated: {LLAMA} wants an account" in out
    assert "alpaca_eval_gpt4_turbo_fn  OPENAI_API_KEY is not set" in out
    assert [line.split()[-7:] for line in out.splitlines() if line.startswith("both")] == [
        ["-", "/", "38.18", "-", "/", "44.77", "-", "/", "47.46"][-7:]
    ]
    assert not made["steps"]
    assert not Path("runs").exists()


def test_the_whole_table_is_made_once_shared_and_shown(made, capsys, monkeypatch, tmp_path) -> None:
    judge_with_a_key(monkeypatch, tmp_path)
    assert call("table-5", "--questions=alpaca-eval=asked.json") == 0
    out = capsys.readouterr().out
    lines = {line.partition("  ")[0]: line for line in out.splitlines()}
    name = "reproduce-llama3-8b-s-sppo-iter3"
    assert f"{10 * len(name) + 3:.2f} / 47.46" in lines["both (S-SPPO)"]
    assert f"{10 * len('llama3-8b-sppo-2') + 2:.2f} / 42.24" in lines["neither (SPPO)"]
    measured = ("neither (SPPO)", "supervision", "representation", "both (S-SPPO)")
    assert "- / " not in "".join(lines[row] for row in measured)
    assert sorted(made["answers"]) == sorted(
        [f"llama3-8b-sppo-{n}" for n in (1, 2, 3)]
        + [f"reproduce-llama3-8b-{run}-iter{n}" for run in ("gate", "repulsion", "s-sppo") for n in (1, 2, 3)]
    )
    assert [step for step in made["steps"] if "iter_1.rollout.00001" in step] == ["gate.iter_1.rollout.00001"]
    assert sum("iter_1.train" in step for step in made["steps"]) == 3
    assert "k-secret" not in out
    made["steps"].clear()
    made["answers"].clear()
    assert call("table-5", "--questions=alpaca-eval=asked.json") == 0
    assert (made["steps"], made["answers"]) == ([], []), "what is there is not made again, and no judge is paid twice"


def test_what_is_not_given_is_said_and_the_rest_is_made(made, capsys) -> None:
    assert call("table-5") == 1
    out = capsys.readouterr().out
    assert "alpaca-eval not asked: give --questions alpaca-eval=FILE" in out
    assert sum("iter_3.export" in step for step in made["steps"]) >= 3
    assert call("table-5", "--questions=alpaca-eval=asked.json") == 0
    out = capsys.readouterr().out
    assert "not judged here: it needs alpaca_eval" in out
    assert "- / 47.46" in out
    assert call("table-5", "--json", "--questions=alpaca-eval=asked.json") == 0
    data = json.loads(capsys.readouterr().out)
    assert len(data) == 12
    assert data[-1]["published"] == 47.46
    assert data[-1]["missing"] == "not judged by alpaca_eval_gpt4_turbo_fn"


def test_on_a_cluster_runs_are_to_be_submitted(made, capsys, monkeypatch) -> None:
    monkeypatch.setattr("nemo_sspo.launch.preflight.problems", lambda experiment: [])
    settings = [each for each in SMALL if not each.startswith("cluster")]
    weights = [f"--weights={hub}=policy" for hub in (LLAMA, *OFFICIAL)]
    given = ["s-sppo", "table-5", *settings, *weights, "cluster=slurm_cpu", "--questions=alpaca-eval=asked.json"]
    assert cli.main(["reproduce", *given]) == 1
    out = capsys.readouterr().out
    assert "nemo-sspo submit runs/reproduce-llama3-8b-gate; then run this command again" in out
    assert RunLayout(Path("runs/reproduce-llama3-8b-gate")).experiment.is_file()
    assert "llama3-8b-gate@1: not asked" in out
    assert not made["steps"]
    assert cli.main(["reproduce", *given, f"--python={sys.executable}"]) == 1
    assert made["answers"] == [f"llama3-8b-sppo-{n}" for n in (1, 2, 3)], "models of others answer here all the same"


def test_one_prompt_is_followed_over_the_iterations(made, capsys) -> None:
    weights = "--weights=mistralai/Mistral-7B-Instruct-v0.2=policy"
    Path("one.jsonl").write_text('{"prompt": "Who asks?"}\n')
    given = ["sppo", "table-4", *SMALL, "--questions=own=one.jsonl", weights]
    assert cli.main(["reproduce", *given]) == 0
    out = capsys.readouterr().out
    assert "reproduce-mistral-7b-sppo-iter3 says so." in out
    assert "mistral-7b-instruct says so." in out
    assert Path("runs/reproduce-mistral-7b-sppo/benchmarks/iter_3/own.sppo.table-4").is_dir()


def test_eleven_policies_of_three_runs_and_two_models_meet(made, capsys, monkeypatch) -> None:
    def compare(request, cluster, python, on_progress) -> None:
        win_rates_between.compare(request)

    monkeypatch.setattr(launch_benchmark, "compare", compare)
    hubs = ("mistralai/Mistral-7B-Instruct-v0.2", "snorkelai/Snorkel-Mistral-PairRM-DPO")
    Path("held_out.jsonl").write_text('{"prompt": "Why?"}\n')
    settings = [each for each in SMALL if not each.startswith("oracle")]
    oracle = ["oracle=function", "oracle.function=tests.oracle.function_oracle:prefers_length"]
    oracle += ["oracle.arguments={weight: 100}"]
    given = ["sppo", "figure 3", *settings, *oracle, "--questions=own=held_out.jsonl"]
    assert cli.main(["reproduce", *given, *(f"--weights={hub}=policy" for hub in hubs)]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("SPPO Iter3")]
    cells = line.removeprefix("SPPO Iter3").split()
    assert len(made["answers"]) == 11
    assert cells[:6] == ["0.731", "/", "0.448", "0.500", "/", "0.500"], "its answer, like its name, is a letter longer"
    assert float(cells[6]) > 0.9999, "Snorkel's is much shorter"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["s-spo"], "s-spo: no such paper; one of s-sppo, sppo"),
        (["s-sppo", "table-9"], "table-9: no such table or figure of s-sppo"),
        (["s-sppo", "table-5"], "prompts are missing: give prompts=[first.jsonl"),
        (["s-sppo", "table-5", "name=x", "prompts=p"], "a table's runs have their own names"),
        (["s-sppo", "table-5", "--weights", "x", "prompts=p"], "--weights x: write --weights NAME=PATH"),
        (["s-sppo", "table-5", "--weights", f"{LLAMA}=none", "prompts=p"], "--weights none: no such directory"),
        (["s-sppo", "table-5", "prompts=none.jsonl"], "none.jsonl"),
    ],
)
def test_mistakes_are_one_line(made, capsys, given: list[str], message: str) -> None:
    assert cli.main(["reproduce", *given]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
