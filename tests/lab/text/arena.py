"""Files laid out as Arena-Hard's, with texts of one's own."""

import json
from collections.abc import Sequence
from pathlib import Path

from nemo_sspo.lab.text.answers import MODELS


def write(folder: Path, answers: Sequence[tuple[str, str]]) -> Path:
    """A question and two answers for each pair of texts."""
    questions = [{"uid": f"q{number}", "prompt": f"Question {number}?"} for number in range(len(answers))]
    (folder / "arena_hard_v0.1_questions.jsonl").write_text("\n".join(map(json.dumps, questions)))
    for model, texts in zip(MODELS, zip(*answers, strict=True), strict=True):
        rows = [
            {"uid": question["uid"], "messages": [{"content": "Q"}, {"content": {"answer": text}}]}
            for question, text in zip(questions, texts, strict=True)
        ]
        (folder / f"arena_hard_v0.1_answers_{model}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder
