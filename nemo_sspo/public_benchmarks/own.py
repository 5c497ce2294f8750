"""Questions of one's own: one answer to each, in alpaca_eval's format, to be judged against the base policy's answers.

The published references answer other questions: judged against them, these answers would get a meaningless number.
"""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from nemo_sspo.public_benchmarks.files import as_data, read_row, read_rows
from nemo_sspo.public_benchmarks.formats import AlpacaEvalOutput, OwnQuestion
from nemo_sspo.public_benchmarks.protocol import Answer, Judge, Question, Writing

_FILE = "model_outputs.json"
_DATASET = "own"


class OwnQuestions:
    """Reads a file of prompts, writes model_outputs.json."""

    tokenizer: str | None = None

    def questions(self, path: Path) -> list[Question]:
        """See `Benchmark.questions`."""
        return [
            Question(row, (record.prompt,), record.category, record)
            for row, value in enumerate(read_rows(path), start=1)
            for record in (read_row(path, row, value, OwnQuestion),)
        ]

    def answers_file(self, model_name: str) -> str:
        """See `Benchmark.answers_file`."""
        return _FILE

    def write(self, questions: Sequence[Question], answers: Sequence[Sequence[Answer]], writing: Writing) -> str:
        """See `Benchmark.write`. A category is the data set that alpaca_eval lists results by."""
        outputs = []
        for question, (answer,) in zip(questions, answers, strict=True):
            asked = cast(OwnQuestion, question.record)
            fields = {"dataset": asked.category or _DATASET, "instruction": asked.prompt}
            outputs.append(AlpacaEvalOutput(**fields, output=answer.text.strip(), generator=writing.model_name))
        return json.dumps([as_data(output) for output in outputs], ensure_ascii=False, indent=1) + "\n"

    def judge(self, questions: Sequence[Question], answers: Path, model_name: str, tool: Path | None) -> Judge:
        """See `Benchmark.judge`. The reference is what iteration 0, the base, answered to the same file."""
        base = answers.parents[2] / "iter_0" / answers.parent.name / _FILE
        if base == answers:
            return Judge("another policy's answers: these are the base's, which others are judged against", "", "", ())
        files = ("--model_outputs", str(answers), "--reference_outputs", str(base))
        results = answers.parent.with_name(f"{answers.parent.name}.judged")
        rest = ("--annotators_config", "weighted_alpaca_eval_gpt4_turbo", "--output_path", str(results))
        return Judge(
            tool=f"alpaca_eval and the base's answers to the same questions, {base} (--iteration 0)",
            model=model_name,
            key="OPENAI_API_KEY",
            commands=(("alpaca_eval", *files, *rest),),
            installed=shutil.which("alpaca_eval") is not None and _asked(base) == _asked(answers),
        )


def _asked(outputs: Path) -> list[str] | None:
    """The instructions of a file of outputs; None where there is none."""
    if not outputs.is_file():
        return None
    return [output["instruction"] for output in json.loads(outputs.read_text(encoding="utf-8"))]
