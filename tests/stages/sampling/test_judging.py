"""Judges in the stages: what a killed step asks again, which policy judges, and what a change invalidates."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.tables import SCORES
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.oracles import LlmJudgeOracle, Oracle, PolicyJudgeOracle
from nemo_sspo.config.stages import Rollout
from nemo_sspo.oracle.protocol import OracleResources, Turn
from nemo_sspo.stages.__main__ import main
from nemo_sspo.stages.runner.registry import stage_inputs
from nemo_sspo.stages.runner.settings import stage_settings
from nemo_sspo.stages.sampling import judging
from tests.oracle.judge_server import TEMPLATE, JudgeServer, with_logprobs
from tests.stages import runs
from tests.stages.fake_oracle import FormulaOracle
from tests.waiting import wait_until

REPOSITORY = Path(__file__).parents[3]
TEXTS = [["a", "bb", "cccccc"], ["dddd", "e", "e"], ["f", "gg", "hhh"]]


@pytest.fixture
def server() -> Iterator[JudgeServer]:
    with JudgeServer(lambda prompt, first, second: with_logprobs(A=-1.0 / len(first), B=-1.0 / len(second))) as running:
        yield running


def judged_by(server: JudgeServer, root: Path) -> Experiment:
    (root / "template.txt").write_text(TEMPLATE)
    oracle = LlmJudgeOracle(
        endpoint=server.url, model="m", api_key_variable="JUDGE_KEY", concurrency=1, template=str(root / "template.txt")
    )
    settings = runs.experiment(root, oracle=oracle)
    runs.publish_prompts(settings)
    runs.publish_rollout(settings, runs.rollout_rows(TEXTS))
    return settings


def test_a_killed_step_asks_nothing_twice(server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openai")
    for name, value in {"JUDGE_KEY": "sk-secret", "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(REPOSITORY)}.items():
        monkeypatch.setenv(name, value)
    settings = judged_by(server, tmp_path)
    run = runs.store(settings).root
    server.answers_left = 5
    command = [sys.executable, "-m", "nemo_sspo.stages", "score", f"--run={run}", "--iteration=1"]
    step = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ)
    wait_until(lambda: len(server.bodies) == 6 or step.poll() is not None, 60, "the sixth question")
    assert step.poll() is None  # five questions are answered, one in silence
    step.send_signal(signal.SIGKILL)
    step.wait()

    server.answers_left = None
    artifact = runs.run_stage(settings, "score")
    # of the second prompt (d, e) and (e, d): its two equal responses are no question
    assert len(server.asked) == len(set(server.asked)) == 6 + 2 + 6
    logits = SCORES.read(artifact.path).column("logits").to_pylist()
    assert logits[0][0][1] == pytest.approx(-1 + 1 / 2)
    assert logits[1][1][2] == logits[1][2][1] == 0
    assert artifact.manifest.counts["judge_answers"] == 14
    assert "sk-secret" not in "".join(path.read_text(errors="replace") for path in run.rglob("*") if path.is_file())


def test_the_oracle_is_shown_every_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle = FormulaOracle(lambda row: 0.0)
    monkeypatch.setattr(judging, "load_oracle", lambda *_: oracle)
    settings, rows = runs.experiment(tmp_path), runs.rollout_rows(TEXTS)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    rows[1]["messages"] = turns
    runs.publish_rollout(settings, rows)
    runs.run_stage(settings, "score")
    conversations = {row.prompt: row.conversation for row in oracle.asked}
    assert conversations["0"] == (Turn("user", "0"),), "a prompt of unknown messages is one of the user's"
    assert conversations["1"] == (Turn("system", "Be brief."), Turn("user", "Hi"))


def test_the_policy_that_an_iteration_starts_from_judges_it(tmp_path: Path) -> None:
    settings = runs.experiment(tmp_path, iterations=2, oracle=PolicyJudgeOracle())
    layout = RunLayout(settings.run_dir)
    for stage in ("score", "evaluate"):
        assert "policy" not in stage_inputs(stage, settings, layout, 1, 0), "the experiment's own policy is no artifact"
        assert stage_inputs(stage, settings, layout, 2, 0)["policy"] == [layout.artifact("export", 1)]
        assert stage_settings(settings, stage)["policy"] == "no/policy"
        assert "engine.dtype" in stage_settings(settings, stage)
    base = settings.model_copy(update={"oracle": PolicyJudgeOracle(judge="base")})
    assert "policy" not in stage_inputs("score", base, layout, 2, 0)
    assert "policy" not in stage_settings(runs.experiment(tmp_path), "score")


@pytest.mark.parametrize(("oracle", "loads"), [(PolicyJudgeOracle(), 1), (LlmJudgeOracle(model="m"), 2)])
def test_shards_of_one_process_share_a_model_and_no_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, oracle: Oracle, loads: int
) -> None:
    """What an endpoint answered belongs to the step that paid for it, also when the next step has the same process."""
    journals, planned = [], []

    def load(_: object, resources: OracleResources) -> FormulaOracle:
        journals.append(resources.journal)
        planned.append(resources.rows)
        return FormulaOracle(lambda row: 0.0)

    monkeypatch.setattr(judging, "load_oracle", load)
    settings = runs.experiment(tmp_path, oracle=oracle, rollout=Rollout(shards=2))
    layout = runs.store(settings)
    runs.publish_prompts(settings)
    for shard in range(2):
        runs.publish_rollout(settings, runs.rollout_rows(TEXTS, name=str(shard)), shard=shard)
    assert main(["score", "--run", str(layout.root), "--iteration", "1", "--shard", "0-1"]) == 0
    assert journals == [layout.judgements(f"iter_1.score.0000{shard}") for shard in range(loads)]
    k = len(TEXTS[0])
    if loads == 2:
        assert planned == [len(TEXTS) * k * (k - 1)] * 2  # a judge that is paid weighs its whole shard before it asks


def test_an_edited_question_is_another_question(tmp_path: Path) -> None:
    template = tmp_path / "question.txt"
    template.write_text("{prompt} {first} {second}")
    settings = runs.experiment(tmp_path, oracle=PolicyJudgeOracle(template=str(template)))
    before = stage_settings(settings, "score")
    template.write_text("{prompt} {second} {first}")
    assert stage_settings(settings, "score") != before


def test_a_cap_may_be_raised_in_the_middle_of_a_run_and_nothing_else(tmp_path: Path) -> None:
    """Every field of the judge either determines an answer or has a change here that leaves the artifacts valid."""
    unchanged = {
        "api_key_variable": None,
        "concurrency": 1,
        "retries": 0,
        "timeout_seconds": 1.0,
        "max_requests": 99_999,
        "max_tokens": 7,
        "max_dollars": 2.0,
        "dollars_per_million_input_tokens": 1.0,
        "dollars_per_million_output_tokens": 1.0,
    }
    changed = {
        "endpoint": "http://other/v1",
        "model": "other",
        "template": "other.txt",
        "logprobs": False,
        "verdict_logit": 1.0,
        "unparsable": "error",
        "text_max_characters": 5,
        "max_answer_tokens": 5,
        "extra": {"seed": 1},
    }
    prices = {"dollars_per_million_input_tokens": 2.0, "dollars_per_million_output_tokens": 2.0}
    oracle = LlmJudgeOracle(model="m", **prices)
    assert {*unchanged, *changed, "kind"} == set(LlmJudgeOracle.model_fields)
    before = stage_settings(runs.experiment(tmp_path, oracle=oracle), "score")
    for name, value in {**unchanged, **changed}.items():
        other = runs.experiment(tmp_path, oracle=oracle.model_copy(update={name: value}))
        assert (stage_settings(other, "score") == before) is (name in unchanged), name
