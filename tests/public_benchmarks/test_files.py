"""What is read and written, against published files beside the checkout and made-up ones of their shape."""

import json
from pathlib import Path
from typing import get_args

import pytest

from nemo_sspo.config.benchmarks import LM_EVAL_TASKS, SAMPLING, AnsweredBenchmark, LmEvalTask
from nemo_sspo.config.engines import VllmEngine
from nemo_sspo.errors import UserError
from nemo_sspo.public_benchmarks.arena_hard import markdown_metadata
from nemo_sspo.public_benchmarks.files import as_data
from nemo_sspo.public_benchmarks.formats import AlpacaEvalOutput, ArenaHardV01Answer, ArenaHardV2Answer, MtBenchAnswer
from nemo_sspo.public_benchmarks.lm_eval import Score, command, read_scores
from nemo_sspo.public_benchmarks.protocol import Answer, Judge, Writing
from nemo_sspo.public_benchmarks.registry import BENCHMARKS

SHARED = Path(__file__).parents[3] / "shared" / "data"
WRITING = Writing("run-iter3", 1700000000.5, lambda text: len(text.split()))
ALPACA = [
    {
        "instruction": "Name a fruit.",
        "dataset": "helpful_base",
        "datasplit": "eval",
        "output": "A pear",
        "generator": "x",
    },
    {"instruction": "Name a tool.\nBe brief.", "dataset": "koala", "output": "", "generator": "x"},
]
MT_BENCH = [
    {"question_id": 82, "category": "math", "turns": ["1 + 1?", "Plus 2?"], "reference": ["2", "4"]},
    {"question_id": 81, "category": "writing", "turns": ["Write.", "Again."]},
]
ARENA_FIRST = [{"question_id": "a1", "category": "arena-hard-v0.1", "cluster": "c", "turns": [{"content": "Sort it."}]}]
ARENA_NOW = [
    {"uid": "b1", "category": "arena-hard-v0.1", "cluster": "c", "prompt": "Sort it."},
    {"uid": "b2", "category": "hard_prompt", "subcategory": "math", "prompt": "Prove it."},
]


def questions_file(path: Path, rows: list, *, as_list: bool = False) -> Path:
    path.write_text(json.dumps(rows, indent=1) if as_list else "".join(json.dumps(row) + "\n" for row in rows))
    return path


def written(tmp_path: Path, name: str, rows: list, answers: list[list[str]], *, as_list: bool = False) -> str:
    benchmark = BENCHMARKS[name]
    questions = benchmark.questions(questions_file(tmp_path / "questions", rows, as_list=as_list))
    return benchmark.write(questions, [[Answer(text, "stop") for text in turns] for turns in answers], WRITING)


def test_alpaca_eval_keeps_the_order_and_what_it_was_asked(tmp_path: Path) -> None:
    rows = json.loads(written(tmp_path, "alpaca-eval", ALPACA, [["\n\nPear ü\n"], ["Saw"]], as_list=True))
    assert rows == [
        {
            "dataset": "helpful_base",
            "instruction": "Name a fruit.",
            "output": "Pear ü",  # stripped
            "generator": "run-iter3",
            "datasplit": "eval",
        },
        {"dataset": "koala", "instruction": "Name a tool.\nBe brief.", "output": "Saw", "generator": "run-iter3"},
    ]


OWN = [{"prompt": "Name a fruit.", "note": "unread"}, {"prompt": "Name a tool.", "category": "tools"}]


def test_own_questions_are_written_as_alpaca_eval_reads_them(tmp_path: Path) -> None:
    rows = json.loads(written(tmp_path, "own", OWN, [["\nPear ü"], ["Saw"]], as_list=True))
    assert rows == [
        {"dataset": "own", "instruction": "Name a fruit.", "output": "Pear ü", "generator": "run-iter3"},
        {"dataset": "tools", "instruction": "Name a tool.", "output": "Saw", "generator": "run-iter3"},
    ]


def test_own_answers_are_judged_against_the_bases_to_the_same_questions_alone(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "alpaca_eval").touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    base, new = (tmp_path / "benchmarks" / f"iter_{t}" / "own" / "model_outputs.json" for t in (0, 2))
    benchmark = BENCHMARKS["own"]

    def judge() -> Judge:
        return benchmark.judge([], new, "m", None)

    for file in (base, new):
        file.parent.mkdir(parents=True)
    new.write_text(written(tmp_path, "own", OWN, [["a"], ["b"]]))
    assert not judge().installed
    base.write_text(written(tmp_path, "own", OWN[:1], [["c"]]))
    assert not judge().installed
    base.write_text(written(tmp_path, "own", OWN, [["c"], ["d"]]))
    assert judge().installed
    (command,) = judge().commands
    given = dict(zip(command[1::2], command[2::2], strict=True))
    assert (given["--model_outputs"], given["--reference_outputs"]) == (str(new), str(base))
    assert benchmark.judge([], base, "m", None).commands == ()


def test_mt_bench_lines_are_fastchats(tmp_path: Path) -> None:
    """Sorted by id, stripped, one choice with every turn."""
    first, second = map(json.loads, written(tmp_path, "mt-bench", MT_BENCH, [[" 2 ", "4"], ["W", "A"]]).splitlines())
    assert first == {
        "question_id": 81,
        "answer_id": first["answer_id"],
        "model_id": "run-iter3",
        "choices": [{"index": 0, "turns": ["W", "A"]}],
        "tstamp": 1700000000.5,
    }
    assert (second["question_id"], second["choices"][0]["turns"]) == (82, ["2", "4"])
    assert first["answer_id"] != second["answer_id"]


def test_arena_hard_answers_have_the_format_of_the_questions(tmp_path: Path) -> None:
    (line,) = map(json.loads, written(tmp_path, "arena-hard", ARENA_FIRST, [["two words"]]).splitlines())
    assert line == {
        "question_id": "a1",
        "answer_id": line["answer_id"],
        "model_id": "run-iter3",
        "choices": [{"index": 0, "turns": [{"content": "two words", "token_len": 2}]}],
        "tstamp": 1700000000.5,
    }
    line, other = map(json.loads, written(tmp_path, "arena-hard", ARENA_NOW, [["# A\n- **b**"], [""]]).splitlines())
    assert line == {
        "uid": "b1",
        "ans_id": line["ans_id"],
        "model": "run-iter3",
        "messages": [
            {"role": "user", "content": "Sort it."},
            {"role": "assistant", "content": {"answer": "# A\n- **b**"}},
        ],
        "tstamp": 1700000000.5,
        "metadata": {
            "token_len": 4,
            "header_count": {"h1": 1, "h2": 0, "h3": 0, "h4": 0, "h5": 0, "h6": 0},
            "list_count": {"ordered": 0, "unordered": 1},
            "bold_count": {"**": 1, "__": 0},
        },
    }
    assert (other["uid"], other["metadata"]["token_len"]) == ("b2", 0)


def test_markdown_inside_of_code_does_not_count() -> None:
    text = "## Title\n1. one\n2. two\n* star\n__under__ **a** **b**\n```\n# comment\n- item\n```\n"
    counted = as_data(markdown_metadata(text, 7))
    assert counted["header_count"] == {"h1": 0, "h2": 1, "h3": 0, "h4": 0, "h5": 0, "h6": 0}
    assert counted["list_count"] == {"ordered": 2, "unordered": 1}
    assert counted["bold_count"] == {"**": 2, "__": 1}


@pytest.mark.parametrize(
    ("model", "row", "broken"),
    [
        (AlpacaEvalOutput, {"dataset": "d", "instruction": "i", "output": "o", "generator": "g"}, {"output": None}),
        (
            MtBenchAnswer,
            {
                "question_id": 1,
                "answer_id": "a",
                "model_id": "m",
                "choices": [{"index": 0, "turns": ["t"]}],
                "tstamp": 1.0,
            },
            {"choices": [{"index": 0, "turns": [{"content": "t"}]}]},
        ),
        (
            ArenaHardV01Answer,
            {
                "question_id": "1",
                "answer_id": "a",
                "model_id": "m",
                "choices": [{"index": 0, "turns": []}],
                "tstamp": 1.0,
            },
            {"choices": [{"index": 0, "turns": ["t"]}]},
        ),
        (
            ArenaHardV2Answer,
            {"uid": "u", "ans_id": "a", "model": "m", "messages": [{"role": "user", "content": "q"}], "tstamp": 1.0},
            {"messages": [{"role": "assistant", "content": {"text": "t"}}]},
        ),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_schemas_refuse_what_a_judge_could_not_read(model, row: dict, broken: dict) -> None:
    assert as_data(model.model_validate(row)) == row
    for wrong in (
        row | broken,
        row | {"more": 1},
        {name: value for name, value in row.items() if name != list(row)[1]},
    ):
        with pytest.raises(ValueError, match=model.__name__):
            model.model_validate(wrong)


@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("mt-bench", [*MT_BENCH, {"question_id": 3, "category": "math"}], "row 3: `turns`: field required"),
        ("mt-bench", [MT_BENCH[0], MT_BENCH[0]], "row 2: the same id as row 1, 82"),
        ("mt-bench", [MT_BENCH[0] | {"turns": []}], "row 1: `turns`: tuple should have at least 1 item"),
        ("mt-bench", ARENA_NOW, "row 1: `question_id`: field required"),
        (
            "alpaca-eval",
            [ALPACA[0], {"dataset": "d", "instruction": 3}],
            "row 2: `instruction`: input should be a valid",
        ),
        ("alpaca-eval", ["text"], "row 1: `the row`: input should be"),
        ("arena-hard", [ARENA_NOW[0], ARENA_FIRST[0]], "row 2: `uid`: field required"),
        ("arena-hard", [ARENA_FIRST[0] | {"turns": [{"content": ["t", "image"]}]}], r"row 1: `turns\.0\.content`"),
        ("arena-hard", [], "holds no question"),
        ("own", [OWN[0], {"question": "Why?"}], "row 2: `prompt`: field required; expected prompt, category of a file"),
        ("own", [{"prompt": " "}], "row 1: `prompt`: string should match"),
    ],
)
def test_wrong_questions_are_named_by_file_row_and_field(tmp_path: Path, name: str, rows: list, message: str) -> None:
    path = questions_file(tmp_path / "asked.jsonl", rows)
    with pytest.raises(UserError, match=rf"asked\.jsonl:? {message}"):
        BENCHMARKS[name].questions(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    read = BENCHMARKS["mt-bench"].questions
    with pytest.raises(UserError, match=r"absent: no such file; .*--questions"):
        read(tmp_path / "absent")
    (tmp_path / "broken").write_text('{"question_id": 1}\n{"question_id"')
    with pytest.raises(UserError, match="broken line 2: not JSON"):
        read(tmp_path / "broken")
    (tmp_path / "latin").write_bytes(b'{"a": "\xe9"}')
    with pytest.raises(UserError, match=r"latin line 1: not UTF-8 \(byte 0xe9"):
        read(tmp_path / "latin")


def test_every_benchmark_has_its_settings_and_its_name() -> None:
    assert set(BENCHMARKS) == set(SAMPLING) == set(get_args(AnsweredBenchmark))


LARGE = VllmEngine(
    tensor_parallel=8, gpu_memory_utilization=0.8, extra={"max_model_len": 4096, "rope": {"a": 1}, "x": "a,b"}
)


def test_lm_eval_commands_spread_a_large_policy_and_refuse_a_comma() -> None:
    def words(policy: str, **more) -> list[str]:
        given = {"backend": "vllm", "engine": LARGE, "on_cpu": False, "device": None, "include": None}
        given["output"] = Path("o")
        return command(LM_EVAL_TASKS[0], python="py", policy=policy, **(given | more))

    assert words("a b")[:8] == ["py", "-m", "lm_eval", "run", "--model", "vllm", "--model_args", words("a b")[7]]
    assert words("a b")[7] == (
        "pretrained=a b,dtype=auto,tensor_parallel_size=8,gpu_memory_utilization=0.8,enforce_eager=False,"
        "max_model_len=4096"  # of engine.extra, what one line of text can say
    )
    assert words("p", backend="hf")[7] == "pretrained=p,dtype=auto,parallelize=True"
    assert words("p", backend="hf", engine=VllmEngine(dtype="bfloat16"))[7] == "pretrained=p,dtype=bfloat16"
    assert words("p", engine=VllmEngine(), on_cpu=True)[7] == (
        "pretrained=p,dtype=float32,tensor_parallel_size=1,enforce_eager=True"
    )
    with pytest.raises(UserError, match="commas"):
        words("a,b")


def test_scores_that_are_missing_are_told(tmp_path: Path) -> None:
    gsm8k = LM_EVAL_TASKS[-1]
    with pytest.raises(UserError, match="wrote no results file for gsm8k"):
        read_scores(gsm8k, tmp_path)
    (tmp_path / "results_1.json").write_text(json.dumps({"results": {"gsm8k": {"exact_match,flexible-extract": 1.0}}}))
    with pytest.raises(UserError, match=r"gsm8k has no exact_match,strict-match"):
        read_scores(gsm8k, tmp_path)
    row = {"exact_match,strict-match": 0.4, "exact_match_stderr,strict-match": "N/A"}
    (tmp_path / "results_2.json").write_text(json.dumps({"results": {"gsm8k": row}}))
    assert read_scores(gsm8k, tmp_path) == [Score("gsm8k", "exact_match,strict-match", 0.4, None)]


def test_a_group_that_aggregates_nothing_gives_its_subtasks_scores(tmp_path: Path) -> None:
    """As lm_eval 0.4.13 writes it: the group's row has names and no number."""
    rows = {
        name: {"name": name, "alias": name, "sample_len": 4, "acc,none": value, "acc_stderr,none": 0.25}
        for name, value in (("toy_a", 0.5), ("toy_b", 0.75))
    }
    group = {"toy_group": {"alias": "toy_group", "name": "toy_group"}, "outer": {"alias": "outer"}}
    subtasks = {"outer": ["toy_group"], "toy_group": ["toy_a", "toy_b"]}
    expected = [Score("toy_a", "acc,none", 0.5, 0.25), Score("toy_b", "acc,none", 0.75, 0.25)]

    def read(name: str, results: dict, metric: str = "", **more) -> list[Score]:
        (tmp_path / "results_1.json").write_text(json.dumps({"results": results, **more}))
        return read_scores(LmEvalTask(name, None, metric), tmp_path)

    assert read("toy_group", rows | group, group_subtasks=subtasks) == expected
    assert read("outer", rows | group, group_subtasks=subtasks) == expected
    assert read("toy_group", rows | group, group_subtasks=subtasks, metric="acc,none") == expected
    assert read("toy_tag", rows) == expected, "a tag has no row"
    mean = {"acc,none": 0.625, "acc_stderr,none": 0.1}
    aggregated = rows | {"toy_group": group["toy_group"] | mean}
    assert read("toy_group", aggregated, group_subtasks=subtasks) == [Score("toy_group", "acc,none", 0.625, 0.1)]

    with pytest.raises(UserError, match="toy_b has no score at all"):
        read("toy_group", rows | group | {"toy_b": {"alias": "toy_b"}}, group_subtasks=subtasks)
    with pytest.raises(UserError, match="toy_a has no score at all"):
        read("toy_a", {"toy_a": {"alias": "toy_a"}}, group_subtasks={"toy_a": []})
    with pytest.raises(UserError, match="no results of toy_group"):
        read("toy_group", {})
    for value in (float("nan"), "N/A", None):
        with pytest.raises(UserError, match=r"acc,none of toy_a is .*, which is no score"):
            read("toy_a", {"toy_a": {"acc,none": value}})


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published files do not lie beside this checkout")
def test_published_questions_and_answers_are_understood() -> None:
    """Every line of two published answer files passes the schema and comes out of it as it went in."""
    questions = BENCHMARKS["mt-bench"].questions(SHARED / "mt_bench_questions.jsonl")
    assert (len(questions), {len(question.turns) for question in questions}) == (80, {2})
    arena = BENCHMARKS["arena-hard"].questions(SHARED / "arena_hard_v0.1_questions.jsonl")
    asked = {question.record.uid: question.turns[0] for question in arena}
    assert len(asked) == 500
    for file in sorted(SHARED.glob("arena_hard_v0.1_answers_*.jsonl")):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert len(rows) == 500
        for row in rows:
            answer = ArenaHardV2Answer.model_validate(row)
            assert as_data(answer) == row
            assert answer.messages[0].content == asked[answer.uid]
