"""``nemo-sspo benchmark``: what it starts, what it prints, what it refuses; vLLM and the judges are stand-ins here."""

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import HF_MODEL, RunLayout
from nemo_sspo.artifacts.store import publish
from nemo_sspo.config.cluster import LocalCluster
from nemo_sspo.config.environments import Environment
from nemo_sspo.launch import benchmark as launch_benchmark
from nemo_sspo.public_benchmarks.registry import BENCHMARKS
from nemo_sspo.stages.evaluation.benchmark import answerer
from tests.json_edit import edit
from tests.launch.tiny_models import write_tokenizer
from tests.some_facts import some_facts
from tests.stages import runs

REPOSITORY = Path(__file__).parents[2]
QUESTION = {"question_id": 7, "category": "math", "turns": ["1 + 1?", "And 2?"]}
LM_EVAL = """
import json, pathlib, sys
words = sys.argv[1:]
given = dict(zip(words, words[1:]))
if given["--tasks"] == "broken":
    sys.exit(3)
output = pathlib.Path(given["--output_path"]) / "model"
output.mkdir(parents=True)
row = {"acc,none": 0.25, "acc_stderr,none": 0.1, "exact_match,strict-match": 0.5, "words": 1}
(output / "results_2026.json").write_text(json.dumps({"results": {given["--tasks"]: row}, "argv": words}))
"""
SCRIPT = """#!/bin/sh
echo "$(basename "$0") $* in $(pwd)" >> {log}
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLayout:
    """A run with two exported policies; its rollout environment is this one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    here = Environment(python=sys.executable, variables={"PYTHONPATH": f"{REPOSITORY}:{tmp_path / 'site'}"})
    settings = runs.experiment(Path("runs"), iterations=3, cluster=LocalCluster(train=here, rollout=here))
    layout = RunLayout(settings.run_dir)
    layout.root.mkdir(parents=True)
    layout.experiment.write_text(settings.model_dump_json())
    for stage, iteration in (("prepare_prompts", 0), ("export", 1), ("export", 2)):
        final = layout.artifact(stage, iteration)
        final.parent.mkdir(exist_ok=True)
        with publish(final, stage=stage, iteration=iteration, config={}, inputs={}) as draft:
            (draft.path / HF_MODEL).mkdir()
            (draft.path / HF_MODEL / "config.json").write_text('{"model_type": "llama"}')
            write_tokenizer(draft.path / HF_MODEL, end="<|end|>")
            edit(draft.path / HF_MODEL / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    Path("asked.jsonl").write_text(json.dumps(QUESTION) + "\n")
    return layout


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list:
    """Requests, answered at once by a stand-in for the process."""
    asked = []

    def generate(request, cluster, python, on_progress) -> None:
        asked.append(request)
        layout = RunLayout(Path(request.run))
        final = Path(request.output)
        final.parent.mkdir(parents=True, exist_ok=True)
        config = launch_benchmark.settings(request, answerer(request))
        inputs = launch_benchmark.policy_artifact(request, layout)
        with publish(final, stage="benchmark", config=config, inputs=inputs) as draft:
            (draft.path / BENCHMARKS[request.benchmark].answers_file(request.model_name)).write_text("answers\n")
            draft.facts = some_facts(questions=1)

    monkeypatch.setattr(launch_benchmark, "generate", generate)
    return asked


def call(*arguments: str) -> int:
    return cli.main(["benchmark", *arguments])


def test_the_last_policy_is_asked_once_and_the_judges_commands_are_printed(run, answers, capsys) -> None:
    for _ in range(2):
        assert call("mt-bench", "runs/run", "--questions", "asked.jsonl") == 0
    (request,) = answers
    assert (request.iteration, request.model_name) == (2, "run-iter2")
    assert request.output == "runs/run/benchmarks/iter_2/mt-bench"
    assert request.sampling.temperature_for("math") == 0.0
    assert request.sampling.temperature_for("none of FastChat's") == 0.7
    out = capsys.readouterr().out
    file = Path("runs/run/benchmarks/iter_2/mt-bench/run-iter2.jsonl").absolute()
    assert f"cp {file} FastChat/fastchat/llm_judge/data/mt_bench/model_answer/run-iter2.jsonl" in out
    assert "python gen_judgment.py --model-list run-iter2 --parallel 4" in out
    assert "OPENAI_API_KEY" in out


def test_own_questions_name_the_bases_answers_as_what_they_are_judged_against(run, answers, capsys) -> None:
    Path("mine.jsonl").write_text('{"prompt": "Why?"}\n')
    assert call("own", "runs/run", "--questions", "mine.jsonl") == 0
    (request,) = answers
    assert (request.benchmark, request.sampling.temperature, request.iteration) == ("own", 0.0, 2)
    base = Path("runs/run/benchmarks/iter_0/own/model_outputs.json").absolute()
    assert f"--reference_outputs {base}" in (out := capsys.readouterr().out)
    assert "(--iteration 0)" in out
    assert call("own", "runs/run", "--questions", "mine.jsonl", "--iteration", "0") == 0
    assert "these are the base's, which others are judged against" in capsys.readouterr().out


def test_what_is_given_wins(run, answers) -> None:
    given = ["--iteration", "0", "--temperature", "0.3", "--max-tokens", "9", "--model-name", "mine", "--output", "out"]
    assert call("mt-bench", "runs/run", "--questions", "asked.jsonl", *given) == 0
    (request,) = answers
    assert (request.iteration, request.model_name, request.output) == (0, "mine", "out")
    assert (request.sampling.temperature_for("math"), request.sampling.max_tokens) == (0.3, 9)


@pytest.mark.parametrize(("last", "result"), [(1, 0), (2, 1)])
def test_of_a_run_that_has_stopped_the_result_is_asked(run, answers, last, result) -> None:
    for iteration in range(1, last + 1):
        with publish(run.artifact("select_model", iteration), stage="select_model", config={}, inputs={}) as draft:
            draft.facts = some_facts(stop="nobody wins" if iteration == last else None)
    for given in ([], ["--iteration", "2"]):
        assert call("mt-bench", "runs/run", "--questions", "asked.jsonl", *given) == 0
    assert [request.iteration for request in answers] == [result, 2]


def test_published_answers_of_other_questions_are_refused(run, answers, capsys) -> None:
    assert call("mt-bench", "runs/run", "--questions", "asked.jsonl") == 0
    Path("asked.jsonl").write_text(json.dumps(QUESTION | {"question_id": 8}) + "\n")
    assert call("mt-bench", "runs/run", "--questions", "asked.jsonl") == 2
    assert "content of questions" in capsys.readouterr().err
    assert len(answers) == 1


def test_published_answers_are_kept_under_other_knobs_of_the_engine_and_refused_under_other_settings(
    run, answers, capsys
) -> None:
    def ask(**engine) -> int:
        tree = json.loads(run.experiment.read_text())
        tree["engine"] |= engine
        run.experiment.write_text(json.dumps(tree))
        return call("mt-bench", "runs/run", "--questions", "asked.jsonl")

    assert ask() == 0
    assert ask(gpu_memory_utilization=0.5, max_num_seqs=8, enforce_eager=True) == 0
    assert len(answers) == 1
    assert ask(dtype="float16") == 2
    assert "settings or inputs: engine.dtype: 'auto' -> 'float16'. " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["runs/none"], "runs/none: no run lies there"),
        (["runs/run", "--iteration", "3"], "runs/run holds the policies of iterations 0, 1, 2"),
        (["runs/run", "--temperature", "-1"], "--temperature -1.0: input should be greater than or equal to 0"),
        (["runs/run", "--model-name", "a/b"], "--model-name a/b: string should match"),
        (["runs/run", "--output", "taken"], "--output taken: something else lies there"),
        (["runs/run", "seed=1"], "takes one run directory, and got 'seed=1' besides"),
    ],
)
def test_mistakes_are_one_line(run, answers, capsys, arguments: list[str], message: str) -> None:
    Path("taken").mkdir()
    Path("taken/file").write_text("")
    assert call("mt-bench", *arguments, "--questions", "asked.jsonl") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line
    assert not answers


def test_a_failed_process_is_told_with_its_last_error(run, capsys) -> None:
    """A real process, which finds the policy damaged."""
    (run.artifact("export", 2) / HF_MODEL / "config.json").write_text("[]")
    assert call("mt-bench", "runs/run", "--questions", "asked.jsonl") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: runs/run/iter_2/export/hf/config.json: differs from its manifest")
    assert not Path("runs/run/benchmarks/iter_2/mt-bench").exists()
    assert not list(Path("runs/run/benchmarks").rglob("*.tmp"))


def test_a_model_that_no_run_made_is_asked_with_the_settings_that_are_given(run, answers, capsys) -> None:
    model = run.artifact("export", 2) / HF_MODEL
    Path("snorkel").symlink_to(model)
    Path("models.jsonl").write_text('{"instruction": "Why?", "dataset": "d"}\n')
    given = ["alpaca-eval", "snorkel", "--questions", "models.jsonl", "--annotator", "alpaca_eval_gpt4_turbo_fn"]
    for _ in range(2):
        assert call(*given, "engine.dtype=bfloat16", "model=qwen3-8b", "seed=3") == 0
    (request,) = answers
    assert (request.iteration, request.model_name, request.model.policy) == (0, "snorkel", "snorkel")
    assert (request.model.engine.dtype, request.model.seed) == ("bfloat16", 3)
    assert request.model.template_arguments == {"enable_thinking": False}
    assert request.output == "runs/models/snorkel/benchmarks/iter_0/alpaca-eval"
    out = capsys.readouterr().out
    assert "--annotators_config alpaca_eval_gpt4_turbo_fn" in out
    assert f"--output_path {Path(request.output).absolute()}.judged/alpaca_eval_gpt4_turbo_fn" in out
    assert call(*given, "engine.dtype=float16", "model=qwen3-8b", "seed=3") == 2
    assert "engine.dtype" in capsys.readouterr().err
    assert call(*given[:1], "snorkel", "--iteration", "1", *given[2:]) == 2
    assert "snorkel is a model, not a run" in capsys.readouterr().err


def executable(path: Path, log: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(SCRIPT.format(log=log))
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_the_judge_runs_where_its_tool_and_its_key_are_there(run, answers, monkeypatch, tmp_path, capsys) -> None:
    log, tool = tmp_path / "log", tmp_path / "arena"
    executable(tmp_path / "bin" / "python", log)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tool / "config").mkdir(parents=True)
    (tool / "gen_judgment.py").write_text("")
    (tool / "config" / "arena-hard-v2.0.yaml").write_text("judge_model: gpt-4.1\nmodel_list:\n  - other\n")
    Path("asked.jsonl").write_text(json.dumps({"uid": "u", "category": "hard_prompt", "prompt": "Prove it."}) + "\n")
    arguments = ["arena-hard", "runs/run", "--questions", "asked.jsonl", "--tool", str(tool)]
    assert call(*arguments) == 0
    assert "OPENAI_API_KEY is not set" in capsys.readouterr().out
    assert not log.exists(), "nothing is paid for without a key"

    monkeypatch.setenv("OPENAI_API_KEY", "k-secret")
    assert call(*arguments) == 0
    settings = Path("runs/run/benchmarks/iter_2/arena-hard.judge.yaml").absolute()
    assert settings.read_text() == "judge_model: gpt-4.1\nmodel_list:\n- run-iter2\n"
    assert log.read_text().splitlines() == [
        f"python gen_judgment.py --setting-file {settings} in {tool}",
        f"python show_result.py --benchmark arena-hard-v2.0 in {tool}",
    ]
    assert (tool / "data/arena-hard-v2.0/model_answer/run-iter2.jsonl").read_text() == "answers\n"
    assert "k-secret" not in capsys.readouterr().out
    assert not any("k-secret" in file.read_text() for file in Path("runs").rglob("*") if file.is_file())


def test_lm_eval_prints_the_papers_commands_where_it_is_not_installed(run, capsys, tmp_path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\nexit 1\n")  # the answer of an interpreter that has no such package
    python.chmod(0o755)
    assert call("lm-eval", "runs/run", "--python", str(python)) == 0
    commands = [line for line in capsys.readouterr().out.splitlines() if "-m lm_eval run" in line]
    shots = {line.split("--tasks ")[1].split()[0]: line.split("--num_fewshot ")[1].split()[0] for line in commands}
    assert shots == {
        "arc_challenge": "25",
        "hellaswag": "10",
        "mmlu": "5",
        "truthfulqa_mc2": "0",
        "winogrande": "5",
        "gsm8k": "5",
    }
    assert all(f"pretrained=runs/run/iter_2/export/{HF_MODEL}," in line for line in commands)


def test_lm_eval_runs_and_its_scores_are_published(run, capsys, tmp_path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "lm_eval.py").write_text(LM_EVAL)
    mine = f"mine_{'x' * 80}"
    tasks = ["--tasks", "gsm8k", mine, "--backend", "hf", "--device", "cpu"]
    assert call("lm-eval", "runs/run", *tasks) == 0
    folder = Path("runs/run/benchmarks/iter_2/lm-eval")
    scores = {(row["task"], row["metric"]): row["value"] for row in json.loads((folder / "scores.json").read_text())}
    assert scores == {  # the leaderboard's metric of a task it knows, every metric of another
        ("gsm8k", "exact_match,strict-match"): 0.5,
        (mine, "acc,none"): 0.25,
        (mine, "exact_match,strict-match"): 0.5,
    }
    argv = json.loads(next((folder / mine).rglob("results_*")).read_text())["argv"]
    assert "--num_fewshot" not in argv
    assert argv[argv.index("--device") + 1] == "cpu"
    (tmp_path / "site" / "lm_eval.py").write_text("raise SystemExit(9)")
    assert call("lm-eval", "runs/run", *tasks) == 0, "published scores are shown again"
    assert f"{mine}  acc,none                  0.2500" in capsys.readouterr().out, "a pipe gets whole names"
    assert call("lm-eval", "runs/run", "--tasks", mine) == 2
    assert "tasks" in capsys.readouterr().err


def test_no_score_is_no_result(run, capsys, tmp_path, monkeypatch) -> None:
    """Neither a new one nor what an earlier version published."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "lm_eval.py").write_text(LM_EVAL.replace("row = {", "row = {'alias': 'toy_group'} or {"))
    assert call("lm-eval", "runs/run", "--tasks", "toy_group") == 2
    assert "toy_group has no score at all" in capsys.readouterr().err
    folder = Path("runs/run/benchmarks/iter_2/lm-eval")
    assert not folder.exists()
    monkeypatch.setattr("nemo_sspo.public_benchmarks.lm_eval.read_scores", lambda *_: [])
    assert call("lm-eval", "runs/run", "--tasks", "toy_group") == 0
    capsys.readouterr()
    assert call("lm-eval", "runs/run", "--tasks", "toy_group") == 2
    assert "without any score; remove it and run this again" in capsys.readouterr().err


def test_a_failing_task_publishes_nothing(run, capsys, tmp_path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "lm_eval.py").write_text(LM_EVAL)
    assert call("lm-eval", "runs/run", "--tasks", "mine", "broken") == 2
    assert "lm_eval ended with exit code 3 on broken" in capsys.readouterr().err
    assert not Path("runs/run/benchmarks/iter_2/lm-eval").exists()
