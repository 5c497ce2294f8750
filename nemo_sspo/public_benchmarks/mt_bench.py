"""MT-Bench: 80 questions of two turns in eight categories, graded by GPT-4, in the files of FastChat's llm_judge."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.public_benchmarks.files import as_jsonl, read_row, read_rows, refuse_repeated
from nemo_sspo.public_benchmarks.formats import MtBenchAnswer, MtBenchChoice, MtBenchQuestion
from nemo_sspo.public_benchmarks.protocol import Answer, Judge, Question, Writing

_PARALLEL = "4"


class MtBench:
    """Reads question.jsonl, writes model_answer/<model>.jsonl."""

    tokenizer: str | None = None

    def questions(self, path: Path) -> list[Question]:
        """See `Benchmark.questions`."""
        records = [read_row(path, row, value, MtBenchQuestion) for row, value in enumerate(read_rows(path), start=1)]
        refuse_repeated(path, [record.question_id for record in records])
        return [Question(row, record.turns, record.category, record) for row, record in enumerate(records, start=1)]

    def answers_file(self, model_name: str) -> str:
        """See `Benchmark.answers_file`."""
        return f"{model_name}.jsonl"

    def write(self, questions: Sequence[Question], answers: Sequence[Sequence[Answer]], writing: Writing) -> str:
        """See `Benchmark.write`. Texts are stripped, as FastChat does, and lines sorted by question id."""
        lines: list[MtBenchAnswer] = []
        for question, turns in zip(questions, answers, strict=True):
            asked, texts = cast(MtBenchQuestion, question.record), [answer.text.strip() for answer in turns]
            line = MtBenchAnswer(
                question_id=asked.question_id,
                answer_id=content_id(writing.model_name, str(asked.question_id), *texts),
                model_id=writing.model_name,
                choices=[MtBenchChoice(index=0, turns=texts)],
                tstamp=writing.time,
            )
            lines.append(line)
        lines.sort(key=lambda line: line.question_id)
        return as_jsonl(lines)

    def judge(self, questions: Sequence[Question], answers: Path, model_name: str, tool: Path | None) -> Judge:
        """See `Benchmark.judge`. `tool` is the folder fastchat/llm_judge of a checkout."""
        return Judge(
            tool="fastchat/llm_judge of a FastChat checkout (--tool; pip install -e '.[eval]' there)",
            model=model_name,
            key="OPENAI_API_KEY",
            commands=(
                ("python", "gen_judgment.py", "--model-list", model_name, "--parallel", _PARALLEL),
                ("python", "show_result.py", "--model-list", model_name),
            ),
            directory=str(tool or "FastChat/fastchat/llm_judge"),
            answers=(str(answers), f"data/mt_bench/model_answer/{answers.name}"),
            installed=tool is not None and (tool / "gen_judgment.py").is_file(),
        )
