"""The training pairs of an iteration as a preference data set for other trainers."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import is_published, open_artifact
from nemo_sspo.artifacts.tables import MESSAGES, PAIRS, ROLLOUTS, SCORES
from nemo_sspo.errors import UserError
from nemo_sspo.objective.win_rates import mean_scores, symmetrize

Format = Literal["trl", "hf", "sppo"]
Unfinished = Literal["keep", "drop"]
TRAIN = "train.parquet"
SIDES = ("chosen", "rejected")

_ENDS = [(f"finish_reason_{side}", pa.string()) for side in SIDES]

_FACTS = [
    ("score_chosen", pa.float64()),
    ("score_rejected", pa.float64()),
    ("target_chosen", pa.float64()),
    ("target_rejected", pa.float64()),
    ("similarity", pa.float64()),
    ("responses", pa.list_(pa.string())),
    ("finish_reasons", pa.list_(pa.string())),
    ("scores", pa.list_(pa.float64())),
    ("prompt_id", pa.string()),
]
SCHEMAS: dict[Format, pa.Schema] = {
    "trl": pa.schema([("prompt", MESSAGES), ("chosen", MESSAGES), ("rejected", MESSAGES), *_ENDS, *_FACTS]),
    "hf": pa.schema([("prompt", pa.string()), ("chosen", MESSAGES), ("rejected", MESSAGES), *_ENDS, *_FACTS]),
    "sppo": pa.schema(
        [
            ("chosen", MESSAGES),
            ("rejected", MESSAGES),
            ("chosen_probs", pa.float64()),
            ("chosen_probs_win", pa.float64()),
            ("chosen_probs_lose", pa.float64()),
            *_ENDS,
        ]
    ),
}
"""``trl``: the prompt's messages, and answers of one message each. ``hf``: the prompt as text, and whole conversations,
as in UltraFeedback. Both hold the mean symmetrized logit of the pair and of all K responses, and the training targets.
``sppo``: the official SPPO trainer's columns with this run's targets; they equal its own numbers under ``gate=none
pairs.estimator=bt_mean_score``. ``finish_reason_*`` is ``length`` where a response was cut at the longest length:
trainers put an end of turn behind every response, and read no column that would keep them from it."""

_PAIR_COLUMNS = [
    "prompt_id",
    "chosen_id",
    "rejected_id",
    "target_chosen",
    "target_rejected",
    "target_pair",
    "similarity",
]


@dataclass
class Exported:
    """How many pairs were written, and of how many a response is unfinished: written or left out."""

    pairs: int = 0
    unfinished: int = 0


def export_pairs(
    layout: RunLayout, iteration: int | None, form: Format, output: Path, unfinished: Unfinished = "keep"
) -> Exported:
    """Write OUTPUT/train.parquet, whole or not at all.

    Args:
        iteration: whose pairs; None takes the last that has any.
        unfinished: whether pairs with a response that was cut are written.

    Raises:
        UserError: there are no pairs, or `output` exists.
    """
    iteration = _last_with_pairs(layout) if iteration is None else iteration
    if not is_published(layout.artifact("build_pairs", iteration)):
        raise UserError(f"{layout.root}: iteration {iteration} has no pairs yet; run it first")
    if output.exists():
        raise UserError(f"{output}: exists already; give another --output")
    draft, exported = output.with_name(f".{output.name}.{os.getpid()}.tmp"), Exported()
    draft.mkdir(parents=True)
    try:
        with pq.ParquetWriter(draft / TRAIN, SCHEMAS[form], compression="zstd") as writer:
            for block in _joined(layout, iteration):
                cut = [row for row in block if "length" in _finish_reasons(row)]
                kept = block if unfinished == "keep" else [row for row in block if row not in cut]
                writer.write_table(pa.Table.from_pylist([_row(row, form) for row in kept], schema=SCHEMAS[form]))
                exported.pairs += len(kept)
                exported.unfinished += len(cut)
        if not exported.pairs:
            raise UserError(f"{layout.root}: all {exported.unfinished} pairs have an unfinished response; keep them")
        os.rename(draft, output)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return exported


def _last_with_pairs(layout: RunLayout) -> int:
    numbers = [int(path.parent.name.removeprefix("iter_")) for path in layout.root.glob("iter_*/build_pairs")]
    published = [number for number in numbers if is_published(layout.artifact("build_pairs", number))]
    if not published:
        raise UserError(f"{layout.root}: no iteration of a run with pairs lies there; give a run, as in runs/<name>")
    return max(published)


def _joined(layout: RunLayout, iteration: int) -> Iterator[list[dict[str, Any]]]:
    """Rows of each shard in turn: the prompt, its responses, their scores and its pair."""
    built = open_artifact(layout.artifact("build_pairs", iteration))
    how = str(built.manifest.config["pairs.symmetrize"])
    pairs = {row["prompt_id"]: row for row in pq.read_table(built.file(PAIRS.file), columns=_PAIR_COLUMNS).to_pylist()}
    for shard in range(len(built.manifest.inputs["rollout"])):
        rollout, score = (open_artifact(layout.artifact(stage, iteration, shard)) for stage in ("rollout", "score"))
        columns = ["prompt_id", "prompt", "messages", "responses.list.element.response_id"]
        columns += ["responses.list.element.text", "responses.list.element.finish_reason"]
        prompts = pq.ParquetFile(rollout.file(ROLLOUTS.file)).read(columns=columns).to_pylist()
        logits = pq.read_table(score.file(SCORES.file), columns=["prompt_id", "logits"]).to_pylist()
        scores = {
            row["prompt_id"]: mean_scores(symmetrize(np.array(row["logits"], dtype=np.float64), how)).tolist()
            for row in logits
        }
        kept = (row for row in prompts if row["prompt_id"] in pairs)
        yield [row | pairs[row["prompt_id"]] | {"scores": scores[row["prompt_id"]]} for row in kept]


def _places(row: dict[str, Any]) -> dict[str, int]:
    """Where the chosen and the rejected response are among the K."""
    ids = [response["response_id"] for response in row["responses"]]
    return {side: ids.index(row[f"{side}_id"]) for side in SIDES}


def _finish_reasons(row: dict[str, Any]) -> list[str]:
    return [row["responses"][place]["finish_reason"] for place in _places(row).values()]


def _row(row: dict[str, Any], form: Format) -> dict[str, Any]:
    texts = [response["text"] for response in row["responses"]]
    sides = _places(row)
    ends = dict(zip((name for name, _ in _ENDS), _finish_reasons(row), strict=True))
    messages = row["messages"]
    before = [] if form == "trl" else messages
    answers = {side: [*before, {"role": "assistant", "content": texts[place]}] for side, place in sides.items()}
    if form == "sppo":
        names = {"chosen_probs": "pair", "chosen_probs_win": "chosen", "chosen_probs_lose": "rejected"}
        return answers | ends | {name: row[f"target_{target}"] for name, target in names.items()}
    facts = {name: row.get(name) for name in ("target_chosen", "target_rejected", "similarity", "scores", "prompt_id")}
    return {
        "prompt": messages if form == "trl" else row["prompt"],
        **answers,
        **ends,
        **facts,
        "responses": texts,
        "finish_reasons": [response["finish_reason"] for response in row["responses"]],
        **{f"score_{side}": row["scores"][place] for side, place in sides.items()},
    }
