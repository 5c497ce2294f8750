"""A small run with chosen numbers, made of real artifacts through the store."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nemo_sspo.artifacts.layout import METRICS, VOLATILE, RunLayout
from nemo_sspo.artifacts.store import publish
from nemo_sspo.artifacts.table import Table
from nemo_sspo.artifacts.tables import EVALUATION, REFERENCE, ROLLOUTS
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.plan import plan
from nemo_sspo.report.blocks import Page, Plot, PlotGrid
from nemo_sspo.report.facts.record import RunRecord, read_run
from nemo_sspo.stages.runner.settings import stage_settings
from tests.some_facts import some_facts
from tests.stages.runs import (
    experiment,
    publish_rollout,
    publish_scores,
    publish_vectors,
    rollout_rows,
    run_stage,
    score_rows,
)

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"
PROMPTS = 12
WINS = (0.6, 0.7, 0.7, 0.8)
LOSSES = (40.0, 30.0, 20.0, 10.0)
EVALUATED = {
    "win_vs_base": 0.7,
    "win_vs_base_low": 0.65,
    "win_vs_base_high": 0.75,
    "win_vs_previous": 0.7,
    "win_vs_previous_low": 0.65,
    "win_vs_previous_high": 0.75,
    "length_controlled_win_vs_base": 0.6,
    "length_controlled_win_vs_base_low": 0.45,
    "length_controlled_win_vs_base_high": 0.7,
    "best_of_n": 16,
    "best_of_n_win_vs_base": 0.9,
    "best_of_n_win_vs_base_low": 0.85,
    "best_of_n_win_vs_base_high": 0.95,
    "best_of_n_mean_tokens": 40.0,
    "new_mean_tokens": 30.0,
    "previous_mean_tokens": 20.0,
    "base_mean_tokens": 20.0,
    "new_distinct": 0.9,
    "base_distinct": 1.0,
    "new_unfinished": 0,
    "prompts": 4,
}


def put(
    layout: RunLayout,
    stage: str,
    iteration: int,
    shard: int | None = None,
    *,
    files: Mapping[str, str] | None = None,
    tables: Mapping[Table, Any] | None = None,
    timings: Mapping[str, float] | None = None,
    config: Mapping[str, Any] | None = None,
    **counts: Any,
) -> None:
    """Publish an artifact with these facts and files."""
    final = layout.artifact(stage, iteration, shard)
    final.parent.mkdir(parents=True, exist_ok=True)
    place = {"stage": stage, "iteration": iteration, "shard": shard or 0}
    with publish(final, **place, config=config or {}, inputs={}) as draft:
        for name, content in (files or {}).items():
            (draft.path / name).parent.mkdir(exist_ok=True)
            (draft.path / name).write_text(content)
        for table, rows in (tables or {}).items():
            table.write(draft.path, rows)
        draft.facts = some_facts(**counts)
        draft.timings |= timings or {"seconds": 1.0}


def metric_lines(losses: tuple[float, ...] = LOSSES) -> str:
    """metrics.jsonl of one iteration."""
    lines = [
        {
            "step": step,
            "loss": loss,
            "preference_loss": loss + 0.5,
            "repulsion": -0.5,
            "d_chosen": 0.25 * step,
            "d_rejected": -0.5 * step,
            "margin": 0.75 * step,
            "accuracy": 0.5,
            "pair_cosine": 0.5 / step,
            "pairs": 4.0 if step < len(losses) else 2.0,
            "gradient_ratio": 0.01 * step,
            "effective_rank": 6.0 if step < len(losses) else 3.0,
            "grad_norm": 100.0 / step,
            "lr": 1e-3 / step,
            "tokens": 100,
        }
        for step, loss in enumerate(losses, start=1)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines)


def half_finished_run(
    runs: Path, name: str = "demo", *, diagnosed: bool = True, wins: Sequence[float] = WINS, **changes: Any
) -> Experiment:
    """One whole iteration of two, and the next one's responses: pairs and diagnostics from the real stages."""
    settings = experiment(runs, name=name, iterations=2, **changes)
    layout = RunLayout(settings.run_dir)
    put(layout, "prepare_prompts", 0, prompts=24, held_out=4)
    rows = rollout_rows([[f"good answer {n}", f"bad answer {n} {HOSTILE}", f"answer {n}"] for n in range(PROMPTS)])
    publish_rollout(settings, rows)
    publish_scores(settings, score_rows(rows, logits()))
    vectors = {}
    for number, row in enumerate(rows):
        angle = number / PROMPTS * np.pi / 2
        states = ((1.0, 0.0), (np.cos(angle), np.sin(angle)), (0.0, 1.0))
        vectors |= {r["response_id"]: np.array(v) for r, v in zip(row["responses"], states, strict=True)}
    publish_vectors(settings, vectors)
    run_stage(settings, "build_pairs")
    if diagnosed:
        run_stage(settings, "diagnose")
    _train(layout, 1, kept=PROMPTS - 1)
    prompts = {"prompt_id": list("abcd"), "win_vs_previous": wins, "win_vs_base": wins}
    put(layout, "evaluate", 1, tables={EVALUATION: prompts}, config=stage_settings(settings, "evaluate"), **EVALUATED)
    later = rollout_rows([["one", "two", "three"]] * 12, name="later")
    responses = {"prompts": 12, "responses": 36, "tokens": 900, "unfinished": 6, "empty": 0, "duplicates": 3}
    put(layout, "rollout", 2, 0, tables={ROLLOUTS: later}, **responses)
    return settings


def logits() -> np.ndarray:
    """Response 0 beats 1 by 4 logits in both orders, with an order bias of 1; the last prompt is a tie."""
    made = np.zeros((PROMPTS, 3, 3))
    made[:, 0, 1], made[:, 1, 0] = 4.5, -3.5
    made[:, 0, 2], made[:, 2, 0] = 2.0, -2.0
    made[:, 2, 1], made[:, 1, 2] = 2.0, -2.0
    made[-1] = 0.0
    return made


def _train(layout: RunLayout, iteration: int, kept: int) -> None:
    reference = {
        "pair_id": [str(n) for n in range(kept)],
        "chosen_logp": [-1.0] * kept,
        "rejected_logp": [-1.0] * kept,
        "chosen_tokens": [10] * kept,
        "rejected_tokens": [20] * kept,
    }
    put(layout, "reference_logps", iteration, tables={REFERENCE: reference})
    steps = [{"step": s, "seconds": 1.0, "tokens_per_second": 100.0 * s, "peak_memory_gib": 1.0 + s} for s in (1, 2, 3)]
    put(
        layout,
        "train",
        iteration,
        files={METRICS: metric_lines(), f"{VOLATILE}/steps.jsonl": "".join(json.dumps(s) + "\n" for s in steps)},
        timings={"seconds": 7200.0},
        steps=4,
        step1_loss=40.5,
        step1_closed_form=40.5,
    )


def record(settings: Experiment) -> RunRecord:
    """As the command line reads it."""
    return read_run(RunLayout(settings.run_dir), plan(settings))


def plots_of(page: Page) -> list[Plot]:
    """Every figure of a page."""
    blocks = [block for section in page.sections for block in section.blocks]
    return [p for b in blocks for p in ([b] if isinstance(b, Plot) else b.plots if isinstance(b, PlotGrid) else [])]
