"""Prompts, a file of them, and which of them a stage has put where."""

from __future__ import annotations

import json
from pathlib import Path

from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.artifacts.tables import Table

QUESTIONS = [f"question {n}" for n in range(47)]


def write(path: Path, prompts: list[str]) -> str:
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts))
    return str(path)


def texts(artifact: Artifact, table: Table) -> set[str]:
    return {row["messages"][0]["content"] for row in table.read(artifact.path).to_pylist()}
