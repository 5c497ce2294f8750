"""Pairs from logits and embeddings: pairs a minute, and memory as shards are added."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pyarrow as pa

import nemo_sspo.stages.pairs.build_pairs  # noqa: F401 - loaded before memory is counted
from benchmarks.resident import Usage, in_fresh_process, measured
from benchmarks.table import Benchmark, Cell, Goal
from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import Draft, open_artifact, publish
from nemo_sspo.artifacts.tables import EMBEDDING_INDEX, ROLLOUTS, SCORES
from nemo_sspo.artifacts.vectors import write_vectors
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.load import load_experiment
from nemo_sspo.stages.__main__ import run_step
from nemo_sspo.stages.runner.registry import stage_inputs
from nemo_sspo.stages.runner.settings import stage_settings

K, D, TOKENS = 5, 384, 64
WANTED = 1_000_000


def publish_shard(experiment: Experiment, shard: int, prompts: int) -> None:
    """A shard of random responses, logits and unit vectors."""
    draw = np.random.default_rng(shard)
    ids = [content_id(f"{shard}/{prompt}") for prompt in range(prompts)]
    response_ids = [f"{prompt_id}{k}" for prompt_id in ids for k in range(K)]
    tokens = pa.array(
        draw.integers(0, 30_000, size=(prompts * K, TOKENS), dtype=np.int32).tolist(), pa.list_(pa.int32())
    )
    offsets = pa.array(np.arange(0, prompts * K + 1, K, dtype=np.int32))
    fields = ROLLOUTS.schema.field("responses").type.value_type
    nulls = pa.nulls(prompts * K, pa.list_(pa.float32()))
    texts, reasons = pa.array([f"text {r}" for r in response_ids]), pa.array(["stop"] * len(response_ids))
    struct = pa.StructArray.from_arrays([pa.array(response_ids), texts, tokens, nulls, reasons], fields=list(fields))
    rollouts = {
        "prompt_id": ids,
        "prompt": ids,
        "messages": [[{"role": "user", "content": prompt_id}] for prompt_id in ids],
        "prompt_token_ids": [[1] * TOKENS] * prompts,
        "responses": pa.ListArray.from_arrays(offsets, struct),
    }
    logits = (draw.normal(size=(prompts, K, K)) * (1 - np.eye(K))).tolist()
    grouped = [response_ids[start : start + K] for start in range(0, len(response_ids), K)]
    scores = {"prompt_id": ids, "response_ids": grouped, "logits": logits, "truncated_rows": [0] * prompts}
    vectors = draw.normal(size=(len(response_ids), D)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with _artifact(experiment, "rollout", shard) as draft:
        ROLLOUTS.write(draft.path, rollouts)
    with _artifact(experiment, "score", shard) as draft:
        SCORES.write(draft.path, scores)
    with _artifact(experiment, "embed", shard) as draft:
        write_vectors(draft.path, vectors)
        index = {"response_id": response_ids, "row": np.arange(len(response_ids), dtype=np.int32)}
        EMBEDDING_INDEX.write(draft.path, index)


def _artifact(experiment: Experiment, stage: str, shard: int | None = None) -> AbstractContextManager[Draft]:
    """The place of an artifact that is up to date."""
    layout, iteration = RunLayout(experiment.run_dir), 0 if stage == "prepare_prompts" else 1
    final = layout.artifact(stage, iteration, shard)
    final.parent.mkdir(parents=True, exist_ok=True)
    paths = stage_inputs(stage, experiment, layout, iteration, shard or 0)
    inputs = {name: [open_artifact(path) for path in group] for name, group in paths.items()}
    config = stage_settings(experiment, stage)
    return publish(final, stage=stage, iteration=iteration, shard=shard or 0, config=config, inputs=inputs)


def _experiment(folder: Path, shards: int) -> Experiment:
    overrides = ["experiment=quickstart", f"runs_dir={folder}", f"name=shards-{shards}", f"rollout.shards={shards}"]
    return load_experiment(overrides)


def build(root: Path) -> Usage:
    """What the build_pairs stage of a prepared run takes."""
    return measured(lambda: run_step(root, "build_pairs", 1, 0, attempt="1"))[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=2_000, help="prompts of a shard")
    parser.add_argument("--shards", type=int, nargs=2, default=(5, 50), help="shards of the two measurements")
    options = parser.parse_args()
    rows: list[tuple[Cell, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for shards in options.shards:
            experiment = _experiment(Path(folder), shards)
            layout = RunLayout(experiment.run_dir)
            layout.root.mkdir(parents=True)
            layout.experiment.write_text(experiment.model_dump_json())
            with _artifact(experiment, "prepare_prompts") as draft:
                (draft.path / "content.txt").write_text("")
            for shard in range(shards):
                publish_shard(experiment, shard, options.prompts)
            usage = in_fresh_process(build, layout.root)
            pairs = options.prompts * shards
            rows.append((shards, pairs, *usage[:2], pairs / usage.cpu_seconds * 60, usage.peak_mib))
    rate, peaks = float(rows[-1][4]), [float(row[5]) for row in rows]  # type: ignore[arg-type]
    Benchmark(
        name="pair_construction",
        claim="Pair construction",
        setting=(
            f"The build_pairs stage, verified inputs to published artifact: K = {K}, embeddings of {D}, responses "
            f"of {TOKENS} tokens, shards of {options.prompts:,} prompts. Seconds of the processor, and by the clock; "
            "memory is the growth of the resident peak, in a process of its own."
        ),
        columns=("shards", "pairs", "CPU s", "seconds", "pairs/min of CPU", "peak MiB"),
        rows=rows,
        goals=[
            Goal("pairs a minute", f">= {WANTED:,}", f"{rate:,.0f}", rate >= WANTED),
            Goal(
                "peak memory as shards are added",
                "flat (< 1.2 x)",
                f"{peaks[1] / peaks[0]:.2f} x",
                peaks[1] < 1.2 * peaks[0],
            ),
        ],
    ).publish()


if __name__ == "__main__":
    main()
