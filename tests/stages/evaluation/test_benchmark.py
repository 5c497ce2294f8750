"""The answering process with real vLLM: MT-Bench and Arena-Hard from one policy, deterministic, published whole."""

import json
import re
import shutil
from pathlib import Path

import pytest

pytest.importorskip("vllm")

from nemo_sspo.artifacts.layout import HF_MODEL, TOKENS, RunLayout
from nemo_sspo.artifacts.store import open_artifact, publish
from nemo_sspo.config.benchmarks import SAMPLING, Answerer, AnswerSampling, BenchmarkRequest, of_run
from nemo_sspo.config.engines import VllmEngine
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.public_benchmarks.formats import ArenaHardV2Answer, MtBenchAnswer
from nemo_sspo.rollout import vllm_engine
from nemo_sspo.rollout.tokenizer import load_policy_tokenizer, token_record
from nemo_sspo.stages.evaluation import benchmark
from tests.stages import runs

MT_BENCH = [
    {"question_id": 2, "category": "writing", "turns": ["How do I sort a list?", "Tell me about the old town."]},
    {"question_id": 1, "category": "math", "turns": ["Tell me about the town.", "How do I sort it?"]},
]
ARENA_HARD = [{"uid": f"u{n}", "category": "hard_prompt", "prompt": f"Tell me about town {n}."} for n in range(2)]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, policy: Path) -> RunLayout:
    settings = runs.experiment(tmp_path_factory.mktemp("runs"), policy=str(policy), engine=VllmEngine(max_num_seqs=16))
    layout = RunLayout(settings.run_dir)
    layout.root.mkdir()
    layout.experiment.write_text(settings.model_dump_json())
    with publish(layout.artifact("prepare_prompts"), stage="prepare_prompts", config={}, inputs={}) as draft:
        record = token_record(load_policy_tokenizer(str(policy)), {}, [])
        (draft.path / TOKENS).write_text(record.model_dump_json())
    export = layout.artifact("export", 1)
    export.parent.mkdir()
    with publish(export, stage="export", iteration=1, config={}, inputs={}) as draft:
        shutil.copytree(policy, draft.path / HF_MODEL)
    return layout


def request(layout: RunLayout, name: str, rows: list[dict], **changes: object) -> BenchmarkRequest:
    questions = layout.root.parent / f"{name}.jsonl"
    questions.write_text("".join(json.dumps(row) + "\n" for row in rows))
    usual = {
        "run": str(layout.root),
        "iteration": 1,
        "benchmark": name,
        "questions": str(questions),
        "output": str(layout.benchmark(name, 1)),
        "model_name": "tiny",
        "sampling": SAMPLING[name].model_copy(update={"max_tokens": 12}),
    }
    return BenchmarkRequest(**(usual | changes))


@pytest.fixture(scope="module")
def answered(layout: RunLayout) -> dict[str, list[dict]]:
    """Lines of each file, and of MT-Bench a second time elsewhere."""
    asked = {
        "mt": request(layout, "mt-bench", MT_BENCH),
        "arena": request(layout, "arena-hard", ARENA_HARD),
        "again": request(layout, "mt-bench", MT_BENCH, output=str(layout.root / "again")),
        "base": request(layout, "mt-bench", MT_BENCH, iteration=0, output=str(layout.root / "base")),
    }
    for one in asked.values():
        assert benchmark.main([one.model_dump_json()]) == 0
    files = {name: Path(one.output) / "tiny.jsonl" for name, one in asked.items()}
    return {name: [json.loads(line) for line in file.read_text().splitlines()] for name, file in files.items()}


@pytest.mark.timeout(300)
def test_two_benchmarks_from_one_policy(layout: RunLayout, answered: dict[str, list[dict]]) -> None:
    mt_bench = [MtBenchAnswer.model_validate(row) for row in answered["mt"]]
    assert [row.question_id for row in mt_bench] == [1, 2]
    assert all(len(row.choices[0].turns) == 2 for row in mt_bench)
    assert all(any(row.choices[0].turns) for row in mt_bench), "a random policy still says something"
    arena = [ArenaHardV2Answer.model_validate(row) for row in answered["arena"]]
    assert [row.messages[0].content for row in arena] == [row["prompt"] for row in ARENA_HARD]
    assert answered["again"] == answered["mt"], "equal seeds, equal files"


@pytest.mark.timeout(300)
def test_a_model_that_no_run_made_answers_as_a_base_of_the_same_weights(
    layout: RunLayout, answered: dict[str, list[dict]], policy: Path, tmp_path: Path
) -> None:
    seed = of_run(Experiment.model_validate_json(layout.experiment.read_bytes())).seed
    model = Answerer(policy=str(policy), engine=VllmEngine(max_num_seqs=16), seed=seed)
    asked = request(
        layout, "mt-bench", MT_BENCH, iteration=0, model=model, run=str(tmp_path), output=str(tmp_path / "a")
    )
    assert benchmark.main([asked.model_dump_json()]) == 0
    lines = [json.loads(line) for line in (tmp_path / "a" / "tiny.jsonl").read_text().splitlines()]
    assert [line["choices"] for line in lines] == [line["choices"] for line in answered["base"]]


@pytest.mark.timeout(300)
def test_what_they_were_made_with_lies_beside_them(layout: RunLayout, answered: dict[str, list[dict]]) -> None:
    artifact = open_artifact(layout.benchmark("mt-bench", 1))
    record = json.loads(artifact.file(benchmark.GENERATION).read_text())
    assert record["export_digest"] == open_artifact(layout.artifact("export", 1)).manifest.digest
    assert record["sampling"]["temperature_of_category"]["math"] == 0.0
    assert artifact.manifest.counts["turns"] == 4
    assert not list(layout.root.rglob("*.tmp"))


@pytest.mark.timeout(300)
def test_published_answers_are_kept_and_other_settings_refused(
    layout: RunLayout, answered: dict[str, list[dict]], monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(vllm_engine, "VllmEngine", None)  # nothing is generated
    assert benchmark.main([request(layout, "mt-bench", MT_BENCH).model_dump_json()]) == 0
    hotter = request(layout, "mt-bench", MT_BENCH, sampling=AnswerSampling(temperature=2.0, max_tokens=12))
    assert benchmark.main([hotter.model_dump_json()]) == 2
    assert "sampling" in capsys.readouterr().err
    assert benchmark.main([request(layout, "mt-bench", MT_BENCH[:1]).model_dump_json()]) == 2
    assert "content of questions" in capsys.readouterr().err


def test_a_question_longer_than_the_context_is_refused_before_vllm_starts(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(vllm_engine, "VllmEngine", None)
    asked = request(
        layout, "arena-hard", [*ARENA_HARD, ARENA_HARD[0] | {"uid": "v", "prompt": "x" * 2600}], iteration=0
    )
    asked = asked.model_copy(update={"output": str(layout.root / "long")})
    assert benchmark.main([asked.model_dump_json()]) == 2
    assert re.search(r"row 3: 26\d\d tokens do not fit the policy's context of 2560", capsys.readouterr().err)
    assert not (layout.root / "long").exists()
