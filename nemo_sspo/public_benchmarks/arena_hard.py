"""Arena-Hard: 500 hard prompts (v0.1), or 750 (v2.0), judged pairwise against a baseline.

The format of the answers follows that of the questions: ``question_id`` and ``turns`` as v0.1 was first released,
``uid`` and ``prompt`` as v2.0 and today's v0.1 have it.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.public_benchmarks.files import as_jsonl, read_row, read_rows, refuse_repeated
from nemo_sspo.public_benchmarks.formats import (
    ArenaHardMessage,
    ArenaHardMetadata,
    ArenaHardText,
    ArenaHardV01Answer,
    ArenaHardV01Choice,
    ArenaHardV01Content,
    ArenaHardV01Question,
    ArenaHardV2Answer,
    ArenaHardV2Question,
)
from nemo_sspo.public_benchmarks.protocol import Answer, Judge, Question, Writing

_V01, _V2 = "arena-hard-v0.1", "arena-hard-v2.0"
_CODE = re.compile("```([^`]*)```")
_BOLD = {"**": re.compile(r"\*\*[^*\n]+\*\*"), "__": re.compile(r"__[^_\n]+__")}
_LISTS = {
    "ordered": re.compile(r"^\s*\d+\.\s", re.MULTILINE),
    "unordered": re.compile(r"^\s*[-*+]\s", re.MULTILINE),
}


class ArenaHard:
    """Reads question.jsonl, writes model_answer/<model>.jsonl."""

    tokenizer: str | None = "o200k_base"

    def questions(self, path: Path) -> list[Question]:
        """See `Benchmark.questions`. The first row determines the format of all."""
        rows = read_rows(path)
        released_first = isinstance(rows[0], dict) and "question_id" in rows[0]
        read = _first_format if released_first else _present_format
        found = [read(path, row, value) for row, value in enumerate(rows, start=1)]
        refuse_repeated(path, [_id(question) for question in found])
        return found

    def answers_file(self, model_name: str) -> str:
        """See `Benchmark.answers_file`."""
        return f"{model_name}.jsonl"

    def write(self, questions: Sequence[Question], answers: Sequence[Sequence[Answer]], writing: Writing) -> str:
        """See `Benchmark.write`."""
        return as_jsonl([_line(question, turns, writing) for question, turns in zip(questions, answers, strict=True)])

    def judge(self, questions: Sequence[Question], answers: Path, model_name: str, tool: Path | None) -> Judge:
        """See `Benchmark.judge`. `tool` is a checkout, of the release that the questions are of."""
        first = isinstance(questions[0].record, ArenaHardV01Question)
        bench = _V01 if first or questions[0].category == _V01 else _V2
        settings = "config/judge_config.yaml" if first else f"config/{bench}.yaml"
        changed = answers.parent.with_name(f"{answers.parent.name}.judge.yaml").absolute()
        show = () if first else ("--benchmark", bench)
        return Judge(
            tool=f"a checkout of arena-hard-auto with the questions and baseline answers of {bench} (--tool)",
            model=model_name,
            key="OPENAI_API_KEY",
            commands=(
                ("python", "gen_judgment.py", "--setting-file", str(changed)),
                ("python", "show_result.py", *show),
            ),
            directory=str(tool or "arena-hard-auto"),
            answers=(str(answers), f"data/{bench}/model_answer/{answers.name}"),
            settings=(settings, str(changed)),
            installed=tool is not None and (tool / "gen_judgment.py").is_file() and (tool / settings).is_file(),
        )


def markdown_metadata(text: str, tokens: int) -> ArenaHardMetadata:
    """Length and Markdown elements of an answer outside of its code blocks, counted as the benchmark does."""
    for block in _CODE.findall(text):
        text = text.replace(block, "")
    headers = {f"h{level}": len(re.findall(rf"^#{{{level}}}\s", text, re.MULTILINE)) for level in range(1, 7)}
    return ArenaHardMetadata.model_validate(
        {
            "token_len": tokens,
            "header_count": headers,
            "list_count": {name: len(pattern.findall(text)) for name, pattern in _LISTS.items()},
            "bold_count": {name: len(pattern.findall(text)) for name, pattern in _BOLD.items()},
        }
    )


def _first_format(path: Path, row: int, value: object) -> Question:
    record = read_row(path, row, value, ArenaHardV01Question)
    return Question(row, tuple(turn.content for turn in record.turns), record.category, record)


def _present_format(path: Path, row: int, value: object) -> Question:
    record = read_row(path, row, value, ArenaHardV2Question)
    return Question(row, (record.prompt,), record.category, record)


def _id(question: Question) -> str:
    record = question.record
    if isinstance(record, ArenaHardV01Question):
        return record.question_id
    assert isinstance(record, ArenaHardV2Question)
    return record.uid


def _line(question: Question, answers: Sequence[Answer], writing: Writing) -> BaseModel:
    id_ = _id(question)
    answer_id = content_id(writing.model_name, id_, *[answer.text for answer in answers])
    if isinstance(question.record, ArenaHardV01Question):
        turns = [
            ArenaHardV01Content(content=answer.text, token_len=writing.count_tokens(answer.text)) for answer in answers
        ]
        choices = [ArenaHardV01Choice(index=0, turns=turns)]
        return ArenaHardV01Answer(
            question_id=id_, answer_id=answer_id, model_id=writing.model_name, choices=choices, tstamp=writing.time
        )
    (prompt,), (answer,) = question.turns, answers
    messages = [
        ArenaHardMessage(role="user", content=prompt),
        ArenaHardMessage(role="assistant", content=ArenaHardText(answer=answer.text)),
    ]
    return ArenaHardV2Answer(
        uid=id_,
        ans_id=answer_id,
        model=writing.model_name,
        messages=messages,
        tstamp=writing.time,
        metadata=markdown_metadata(answer.text, writing.count_tokens(answer.text)),
    )
