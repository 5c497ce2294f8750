"""Similarity against margin on real answers, and what every gate does to it, by the stages of a run."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.arena_hard import DATA, prompts_with_answers, with_noisy_copies
from benchmarks.table import Benchmark, Cell
from nemo_sspo.artifacts.diagnostics import Diagnostics, GateTable, read_diagnostics
from nemo_sspo.artifacts.layout import DIAGNOSTICS, RunLayout
from nemo_sspo.config.load import load_experiment

_STAGES = ("prepare_prompts", "rollout", "score", "embed", "build_pairs", "diagnose")
_BINS_IN_A_ROW = 4


def diagnose(data: Path, count: int, overrides: Sequence[str], folder: Path) -> Diagnostics:
    """Import the answers as rollouts and run the stages up to the diagnostics."""
    source = folder / "answers.jsonl"
    records = [
        {"prompt": prompt, "responses": with_noisy_copies(answers, seed)}
        for seed, (prompt, answers) in enumerate(prompts_with_answers(data, count))
    ]
    source.write_text("\n".join(map(json.dumps, records)), encoding="utf-8")
    held_out = folder / "held_out.jsonl"
    held_out.write_text(json.dumps({"prompt": "never asked"}))
    experiment = load_experiment(
        [
            "experiment=quickstart",
            "iterations=1",
            f"runs_dir={folder}",
            f"prompts={source}",
            f"rollout.source={source}",
            f"data.held_out_prompts={held_out}",
            "data.max_prompt_tokens=100000",
            "data.duplicate_prompts=drop",
            "rollout.max_response_tokens=100000",
            *overrides,
        ]
    )
    layout = RunLayout(experiment.run_dir)
    layout.root.mkdir(parents=True)
    layout.experiment.write_text(experiment.model_dump_json())
    for stage in _STAGES:
        _run(layout.root, stage, iteration=0 if stage == "prepare_prompts" else 1)
    return read_diagnostics(layout.artifact("diagnose", 1) / DIAGNOSTICS)


def _run(root: Path, stage: str, iteration: int) -> None:
    """A stage in a process of its own, as a run has it: what libraries leave behind ends with it."""
    arguments = [stage, f"--run={root}", f"--iteration={iteration}"]
    subprocess.run([sys.executable, "-m", "nemo_sspo.stages", *arguments], check=True)


def rows(tables: Sequence[GateTable]) -> list[tuple[Cell, ...]]:
    """Fifths of similarity as rows, gates as columns; the overall row last."""
    found: list[tuple[Cell, ...]] = []
    for start in range(0, len(tables[0].bins), _BINS_IN_A_ROW):
        groups = [table.bins[start : start + _BINS_IN_A_ROW] for table in tables]
        count = sum(part.count for part in groups[0])
        cells = [
            sum(part.count * (part.mean_margin or 0.0) for part in group) / count if count else None for group in groups
        ]
        found.append((f"{groups[0][0].low:.1f}-{groups[0][-1].high:.1f}", count, *cells))
    found.append(("all", sum(part.count for part in tables[0].bins), *[table.mean_margin for table in tables]))
    found.append(("confident (> 0.8)", None, *[table.confident_share for table in tables]))
    found.append(("moved by > 0.1", None, *[table.moved_share for table in tables]))
    found.append(("correlation", None, *[table.correlation for table in tables]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="directory with the Arena-Hard files")
    parser.add_argument("--prompts", type=int, default=60, help="prompts, spread evenly over the 500")
    parser.add_argument("overrides", nargs="*", help="oracle.path=... encoder.path=... for other models")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        facts = diagnose(options.data, options.prompts, options.overrides, Path(folder))
    tables = [table for table in facts.similarity_margin if table.gate != "configured"]
    Benchmark(
        name="similarity_margin",
        claim="Mean margin by similarity under every gate, on real answers",
        setting=(
            f"{facts.prompts} prompts of Arena-Hard v0.1, two real answers and three copies without a tenth of their "
            f"words: {facts.response_pairs} response pairs. Similarity from all-MiniLM-L6-v2, the mean over a text's "
            "chunks; gates at their defaults; margin = |2 P - 1|."
        ),
        columns=("similarity", "pairs", *[table.gate for table in tables]),
        rows=rows(tables),
        notes=[
            "The oracle is the quickstart's toy PairRM, trained on other text: similarities and what a gate makes of a "
            "margin are real, the margins themselves mean nothing.",
        ],
    ).publish()


if __name__ == "__main__":
    main()
