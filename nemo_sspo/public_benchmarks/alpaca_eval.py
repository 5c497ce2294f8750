"""AlpacaEval 2.0: one answer to each of 805 instructions, judged against GPT-4-Turbo's with control for length."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from nemo_sspo.public_benchmarks.files import as_data, read_row, read_rows
from nemo_sspo.public_benchmarks.formats import AlpacaEvalOutput, AlpacaEvalQuestion
from nemo_sspo.public_benchmarks.protocol import Answer, Judge, Question, Writing

ANNOTATOR = "weighted_alpaca_eval_gpt4_turbo"
"""AlpacaEval 2.0's own judge."""


class AlpacaEval:
    """Reads alpaca_eval.json, writes model_outputs.json."""

    tokenizer: str | None = None

    def __init__(self, annotator: str = ANNOTATOR) -> None:
        """`annotator`: alpaca_eval's name of its judge's settings."""
        self._annotator = annotator

    def questions(self, path: Path) -> list[Question]:
        """See `Benchmark.questions`."""
        return [
            Question(row, (record.instruction,), record.dataset, record)
            for row, value in enumerate(read_rows(path), start=1)
            for record in (read_row(path, row, value, AlpacaEvalQuestion),)
        ]

    def answers_file(self, model_name: str) -> str:
        """See `Benchmark.answers_file`."""
        return "model_outputs.json"

    def write(self, questions: Sequence[Question], answers: Sequence[Sequence[Answer]], writing: Writing) -> str:
        """See `Benchmark.write`. Texts are stripped, as alpaca_eval does with its own: length counts."""
        outputs = []
        for question, (answer,) in zip(questions, answers, strict=True):
            asked = cast(AlpacaEvalQuestion, question.record)
            fields = {"dataset": asked.dataset, "instruction": asked.instruction, "output": answer.text.strip()}
            split = {"datasplit": asked.datasplit} if asked.datasplit is not None else {}
            outputs.append(AlpacaEvalOutput(**fields, generator=writing.model_name, **split))
        return json.dumps([as_data(output) for output in outputs], ensure_ascii=False, indent=1) + "\n"

    def judge(self, questions: Sequence[Question], answers: Path, model_name: str, tool: Path | None) -> Judge:
        """See `Benchmark.judge`. The tool is a package with a command; a checkout is not needed."""
        results = judged_by(answers.parent, self._annotator)
        arguments = ("--model_outputs", str(answers), "--annotators_config", self._annotator)
        return Judge(
            tool="alpaca_eval (pip install alpaca-eval 'pandas<2.3', in an environment of its own)",
            model=model_name,
            key="OPENAI_API_KEY",
            commands=(("alpaca_eval", *arguments, "--output_path", str(results)),),
            installed=shutil.which("alpaca_eval") is not None,
        )


def judged_by(answers: Path, annotator: str) -> Path:
    """Where the results of a judge lie, beside the folder of the answers."""
    return answers.with_name(f"{answers.name}.judged") / annotator
