"""The training pairs of an iteration as a preference data set for other trainers."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.shard import join_pairs, join_scores, read_shard
from nemo_sspo.artifacts.store import is_published, open_artifact
from nemo_sspo.artifacts.tables import MESSAGES, PAIRS
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

_COLUMNS = ("prompt_id", "prompt", "messages")
_RESPONSE_FIELDS = ("response_id", "text", "finish_reason")
_PAIR_COLUMNS = [
    "prompt_id",
    "chosen_id",
    "rejected_id",
    "target_chosen",
    "target_rejected",
    "target_pair",
    "similarity",
]


@dataclass(frozen=True)
class Paired:
    """A prompt with a pair."""

    prompt: dict[str, Any]
    responses: list[dict[str, Any]]
    scores: list[float]
    """Mean symmetrized logit of each response."""
    pair: dict[str, Any]
    places: dict[str, int]
    """Where the chosen and the rejected response are among the K."""

    @property
    def is_cut(self) -> bool:
        """Whether a response of the pair was cut at the longest length."""
        return "length" in map(self.finish_reason, SIDES)

    def finish_reason(self, side: str) -> str:
        """Why the chosen or the rejected response ended."""
        return self.responses[self.places[side]]["finish_reason"]


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
            for shard in _paired(layout, iteration):
                kept = [paired for paired in shard if unfinished == "keep" or not paired.is_cut]
                writer.write_table(pa.Table.from_pylist([_row(paired, form) for paired in kept], schema=SCHEMAS[form]))
                exported.pairs += len(kept)
                exported.unfinished += sum(paired.is_cut for paired in shard)
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


def _paired(layout: RunLayout, iteration: int) -> Iterator[list[Paired]]:
    """The prompts with a pair, shard by shard."""
    built = open_artifact(layout.artifact("build_pairs", iteration))
    how, pairs = str(built.manifest.config["pairs.symmetrize"]), PAIRS.read(built.path, _PAIR_COLUMNS)
    for number in range(len(built.manifest.inputs["rollout"])):
        rollout, score = (open_artifact(layout.artifact(stage, iteration, number)) for stage in ("rollout", "score"))
        shard = read_shard(rollout.path, _COLUMNS, _RESPONSE_FIELDS)
        scores_NK = mean_scores(symmetrize(join_scores(shard, score.path), how)).tolist()
        found = join_pairs(shard, pairs)
        joined = zip(shard.listed(), scores_NK, found.rows, found.places_N2.tolist(), strict=True)
        yield [
            Paired(prompt, responses, scores_K, pair, dict(zip(SIDES, places_2, strict=True)))
            for (prompt, responses), scores_K, pair, places_2 in joined
            if pair is not None
        ]


def _row(paired: Paired, form: Format) -> dict[str, Any]:
    texts = [response["text"] for response in paired.responses]
    messages, pair = paired.prompt["messages"], paired.pair
    before = [] if form == "trl" else messages
    answers = {side: [*before, {"role": "assistant", "content": texts[place]}] for side, place in paired.places.items()}
    ends = {f"finish_reason_{side}": paired.finish_reason(side) for side in SIDES}
    if form == "sppo":
        names = {"chosen_probs": "pair", "chosen_probs_win": "chosen", "chosen_probs_lose": "rejected"}
        return answers | ends | {name: pair[f"target_{target}"] for name, target in names.items()}
    return {
        "prompt": messages if form == "trl" else paired.prompt["prompt"],
        **answers,
        **ends,
        **{name: pair[name] for name in ("target_chosen", "target_rejected", "similarity", "prompt_id")},
        "scores": paired.scores,
        "responses": texts,
        "finish_reasons": [response["finish_reason"] for response in paired.responses],
        **{f"score_{side}": paired.scores[place] for side, place in paired.places.items()},
    }
