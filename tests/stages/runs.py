"""Runs for the tests of stages: an experiment on disk, and artifacts with chosen content in their places."""

import sys
from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np

from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import Artifact, is_published, open_artifact, publish
from nemo_sspo.artifacts.tables import EMBEDDING_INDEX, ROLLOUTS, SCORES
from nemo_sspo.artifacts.vectors import write_vectors
from nemo_sspo.config.cluster import LocalCluster
from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.config.engines import VllmEngine
from nemo_sspo.config.environments import Environment
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.gates import LinearGate
from nemo_sspo.config.losses import SppoLoss
from nemo_sspo.config.oracles import PairRMOracle
from nemo_sspo.config.precisions import Fp32Precision
from nemo_sspo.stages import __main__ as step_runner
from nemo_sspo.stages.runner.registry import STAGES, stage_inputs
from nemo_sspo.stages.runner.settings import stage_settings


def experiment(root: Path, **changes: object) -> Experiment:
    """An experiment below `root`; `changes` replace whole parts."""
    here = Environment(python=sys.executable)
    parts = {
        "name": "run",
        "runs_dir": str(root),
        "policy": "no/policy",
        "prompts": "prompts.jsonl",
        "iterations": 1,
        "engine": VllmEngine(),
        "oracle": PairRMOracle(path="no/oracle"),
        "encoder": SentenceEncoder(path="no/encoder"),
        "gate": LinearGate(),
        "loss": SppoLoss(),
        "precision": Fp32Precision(),
        "cluster": LocalCluster(train=here, rollout=here),
    }
    return Experiment(**(parts | changes))


def run_stage(settings: Experiment, stage: str, iteration: int = 1, shard: int = 0) -> Artifact:
    """Run one step of an experiment and open what it published. Of inputs made by hand, what they stand on may be
    missing (`store` and `step_runner.run_step` refuse that)."""
    layout = store(settings)
    with patch.object(step_runner, "refuse_stale_inputs", lambda *_: None):
        step_runner.run_step(layout.root, stage, iteration, shard, attempt="test")
    return open_artifact(layout.artifact(stage, iteration, shard if STAGES[stage].sharded else None))


def store(settings: Experiment) -> RunLayout:
    """Write an experiment where its steps read it."""
    layout = RunLayout(settings.run_dir)
    layout.root.mkdir(parents=True, exist_ok=True)
    layout.experiment.write_text(settings.model_dump_json())
    return layout


def publish_prompts(settings: Experiment, content: str = "") -> None:
    """Put a prepare_prompts artifact without prompts in its place, for rollouts made by hand to stand on."""
    with _publish(settings, "prepare_prompts", 0, None) as draft:
        (draft.path / "content.txt").write_text(content)


def rollout_rows(
    texts: Sequence[Sequence[str]], *, name: str = "", finish_reason: str = "stop", prompt_tokens: int = 2
) -> list[dict]:
    """Rows of a rollouts table: prompt n has responses `texts[n]`, a token per character and an end token."""
    rows = []
    for number, responses in enumerate(texts):
        prompt_id = content_id(f"{name}{number}")
        token_ids = [[*map(ord, text), 0] for text in responses]
        rows.append(
            {
                "prompt_id": prompt_id,
                "prompt": f"{name}{number}",
                "messages": [{"role": "user", "content": f"{name}{number}"}],
                "prompt_token_ids": [1] * prompt_tokens,
                "responses": [
                    {
                        "response_id": content_id(prompt_id, ids),
                        "text": text,
                        "token_ids": ids,
                        "logprobs": [-1.0] * len(ids),
                        "finish_reason": finish_reason,
                    }
                    for text, ids in zip(responses, token_ids, strict=True)
                ],
            }
        )
    return rows


def publish_rollout(
    settings: Experiment, rows: list[dict], stage: str = "rollout", iteration: int = 1, shard: int = 0
) -> None:
    """Put rows in the place of a rollout artifact."""
    with _publish(settings, stage, iteration, shard) as draft:
        ROLLOUTS.write(draft.path, rows)


def score_rows(rows: list[dict], logits_NKK: np.ndarray) -> list[dict]:
    """Rows of the scores table that belong to rollout rows."""
    return [
        {
            "prompt_id": row["prompt_id"],
            "response_ids": [response["response_id"] for response in row["responses"]],
            "logits": logits.tolist(),
            "truncated_rows": 0,
        }
        for row, logits in zip(rows, logits_NKK, strict=True)
    ]


def publish_scores(settings: Experiment, rows: list[dict], shard: int = 0) -> None:
    """Put rows in the place of a score artifact."""
    with _publish(settings, "score", 1, shard) as draft:
        SCORES.write(draft.path, rows)


def publish_vectors(settings: Experiment, vectors: dict[str, np.ndarray], shard: int = 0) -> None:
    """Put vectors by response id in the place of an embed artifact."""
    with _publish(settings, "embed", 1, shard) as draft:
        write_vectors(draft.path, np.stack(list(vectors.values())).astype(np.float32))
        index = {"response_id": list(vectors), "row": np.arange(len(vectors), dtype=np.int32)}
        EMBEDDING_INDEX.write(draft.path, index)


def _publish(settings: Experiment, stage: str, iteration: int, shard: int | None):
    """Publish with today's settings, and with those of its inputs that are published."""
    layout = RunLayout(settings.run_dir)
    final = layout.artifact(stage, iteration, shard)
    final.parent.mkdir(parents=True, exist_ok=True)
    paths = stage_inputs(stage, settings, layout, iteration, shard or 0)
    inputs = {name: [open_artifact(path) for path in group if is_published(path)] for name, group in paths.items()}
    config = stage_settings(settings, stage)
    return publish(final, stage=stage, iteration=iteration, shard=shard or 0, config=config, inputs=inputs)
