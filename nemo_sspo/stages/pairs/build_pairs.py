"""One calibrated training pair per prompt, stored with what it was computed from. NumPy and Arrow only.

Shards are joined and written one after the other, so memory does not grow with their number.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from nemo_sspo.artifacts.changes import CONTENT
from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.artifacts.facts.pairs import PairFacts
from nemo_sspo.artifacts.facts.sampling import ScoreFacts
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.artifacts.tables import DROPPED, PAIRS
from nemo_sspo.config.binding import bind
from nemo_sspo.config.gates import Gate
from nemo_sspo.config.stages import Pairs
from nemo_sspo.errors import UserError
from nemo_sspo.objective.gates import GATE_WEIGHTS
from nemo_sspo.objective.targets import PairSupervision, build_targets
from nemo_sspo.oracle.judge.ties import all_tie
from nemo_sspo.stages.pairs.join import JoinedShard, join_shard, similarities
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.words import counted

REASONS = ("tie", "identical_texts", "empty", "control_tokens", "unfinished", "too_long")
"""Why a prompt has no pair; the first that applies is recorded."""

MOVED = 0.1
"""A pair counts as moved by the gate when one of its targets differs from its win rate by more than this."""

_UNIT = 2.0**-40


@dataclass
class PairSums:
    """Facts of the pairs over all shards, as sums: they take no memory of a run's size."""

    prompts: int = 0
    pairs: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    totals: Counter[str] = field(default_factory=Counter)
    """Sums over the pairs of the values reported as means, in units of `_UNIT`: integer sums ignore order."""

    def add(self, supervision: PairSupervision, reasons: NDArray[np.str_]) -> None:
        """Count a shard."""
        keep = reasons == ""
        self.prompts += len(reasons)
        self.pairs += int(keep.sum())
        self.dropped.update(reasons[~keep].tolist())
        moved = np.maximum(
            np.abs(supervision.target_chosen - supervision.p_chosen),
            np.abs(supervision.target_rejected - supervision.p_rejected),
        )
        facts = {
            "margin_before": supervision.margin_before,
            "margin_after": supervision.margin_after,
            "similarity_mean": supervision.similarity,
            "gate_moved_share": moved > MOVED,
        }
        for name, values in facts.items():
            self.totals[name] += int(np.rint(values[keep] / _UNIT).astype(np.int64).sum())

    def facts(self, made_with: dict[str, str]) -> PairFacts:
        """All of them; means are None without pairs."""
        return PairFacts(
            prompts=self.prompts,
            pairs=self.pairs,
            dropped={reason: self.dropped[reason] for reason in REASONS},
            margin_before=self._mean("margin_before"),
            margin_after=self._mean("margin_after"),
            similarity_mean=self._mean("similarity_mean"),
            gate_moved_share=self._mean("gate_moved_share"),
            made_with=made_with,
        )

    def _mean(self, name: str) -> float | None:
        return self.totals[name] * _UNIT / self.pairs if self.pairs else None


def run(context: StageContext) -> None:
    """Publish pairs.parquet and dropped.parquet of all shards."""
    shards = list(zip(context.inputs["rollout"], context.inputs["score"], context.inputs["embed"], strict=True))
    sums, path, prompt_ids = PairSums(), context.output.path, []
    with (
        PAIRS.writer(path) as pairs,
        DROPPED.writer(path) as dropped,
    ):
        for done, shard in enumerate(shards):
            context.progress.update(done, len(shards), unit="shards")
            prompt_ids.append(_write_shard(context, shard, pairs, dropped, sums))
    _refuse_repeated(prompt_ids)
    context.progress.update(len(shards), len(shards), unit="shards")
    context.output.rows = sums.pairs
    context.output.facts = sums.facts(_made_with(context))
    if not sums.pairs:
        problem = all_tie(context.experiment.oracle, _judge(context), least=1)
        raise UserError(
            problem or f"build_pairs: no pair is left of {counted(sums.prompts, 'prompt')} ({dict(sums.dropped)})"
        )


def _judge(context: StageContext) -> Counter[str]:
    """What the judge of all shards counted."""
    counted: Counter[str] = Counter()
    for artifact in context.inputs["score"]:
        counted.update(artifact.facts(ScoreFacts).judge)
    return counted


def _made_with(context: StageContext) -> dict[str, str]:
    """The fingerprints of oracle and encoder that scores and vectors were made with, for the model card."""
    config = context.inputs["score"][0].manifest.config | context.inputs["embed"][0].manifest.config
    return {key.removeprefix(CONTENT): str(value) for key, value in config.items() if key.startswith(CONTENT)}


def _write_shard(
    context: StageContext,
    artifacts: tuple[Artifact, Artifact, Artifact],
    pairs: pq.ParquetWriter,
    dropped: pq.ParquetWriter,
    sums: PairSums,
) -> NDArray[np.bytes_]:
    """Append a shard's pairs and dropped prompts, and return its prompt ids.

    A separate function, so that its data is freed before the next shard is read.
    """
    settings, gate = context.experiment.pairs, context.experiment.gate
    shard = join_shard(*artifacts, context.experiment.judging)
    supervision = supervise(shard, settings, gate, bind(gate, GATE_WEIGHTS))
    reasons = drop_reasons(shard, supervision, settings)
    sums.add(supervision, reasons)
    pairs.write_table(pair_table(shard, supervision, np.flatnonzero(reasons == "")))
    dropped.write_table(dropped_table(shard, reasons))
    return shard.prompt_ids.to_numpy(zero_copy_only=False).astype(np.bytes_)


def supervise(
    shard: JoinedShard, settings: Pairs, gate: Gate, weight: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> PairSupervision:
    """Select and calibrate the pair of every prompt of a shard."""
    return build_targets(
        shard.logits_NKK,
        similarities(shard),
        symmetrization=settings.symmetrize,
        estimator=settings.estimator,
        include_self=settings.include_self,
        estimated_from=settings.estimated_from,
        gate_form=gate.form,
        gate_weight=weight,
    )


def drop_reasons(shard: JoinedShard, supervision: PairSupervision, settings: Pairs) -> NDArray[np.str_]:
    """Why each prompt's pair is dropped, [N]; empty for those that stay."""
    responses, sides = shard.responses, _sides(shard, supervision)
    texts = [responses.field("text").take(side) for side in sides]
    reasons = np.full(shard.prompts, "", dtype=f"U{max(map(len, REASONS))}")
    applies = {
        "tie": supervision.tied,
        "identical_texts": _mask(pc.equal(*texts)),
        "empty": _either(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(text)), 0) for text in texts),
        "control_tokens": _either(_spelled(shard, side) for side in sides),
        "unfinished": np.zeros(shard.prompts, dtype=bool),
        "too_long": np.zeros(shard.prompts, dtype=bool),
    }
    if settings.unfinished == "drop":
        applies["unfinished"] = _either(
            pc.equal(responses.field("finish_reason").take(side), "length") for side in sides
        )
    if settings.max_tokens is not None:
        prompt_lengths = _lengths(shard.column("prompt_token_ids"))
        longest = np.maximum(*(_lengths(responses.field("token_ids").take(side)) for side in sides))
        applies["too_long"] = prompt_lengths + longest > settings.max_tokens
    for reason in reversed(REASONS):
        reasons[applies[reason]] = reason
    return reasons


def pair_table(shard: JoinedShard, supervision: PairSupervision, kept: NDArray[np.intp]) -> pa.Table:
    """Training pairs of the prompts at positions `kept`."""
    chosen, rejected = (side.take(kept) for side in _sides(shard, supervision))
    ids, tokens = shard.responses.field("response_id"), shard.responses.field("token_ids")
    prompt_ids, chosen_ids, rejected_ids = shard.prompt_ids.take(kept), ids.take(chosen), ids.take(rejected)
    triples = zip(prompt_ids.to_pylist(), chosen_ids.to_pylist(), rejected_ids.to_pylist(), strict=True)
    numbers = {
        name: getattr(supervision, name)[kept]
        for name in PAIRS.schema.names
        if PAIRS.schema.field(name).type == pa.float64()
    }
    columns = {
        "pair_id": [content_id(*triple) for triple in triples],
        "prompt_id": prompt_ids,
        "prompt_token_ids": shard.column("prompt_token_ids").take(kept),
        "chosen_id": chosen_ids,
        "rejected_id": rejected_ids,
        "chosen_token_ids": tokens.take(chosen),
        "rejected_token_ids": tokens.take(rejected),
        **numbers,
    }
    return PAIRS.of(columns)


def dropped_table(shard: JoinedShard, reasons: NDArray[np.str_]) -> pa.Table:
    """Prompts without a pair."""
    positions = np.flatnonzero(reasons != "")
    return DROPPED.of({"prompt_id": shard.prompt_ids.take(positions), "reason": reasons[positions]})


def _sides(shard: JoinedShard, supervision: PairSupervision) -> tuple[pa.Array, pa.Array]:
    """Positions of the chosen and of the rejected responses among the shard's, [N] each."""
    first = np.arange(shard.prompts) * shard.k
    return pa.array(first + supervision.chosen), pa.array(first + supervision.rejected)


def _spelled(shard: JoinedShard, side: pa.Array) -> pa.Array:
    """Whether the responses of a side spell a control token, which text that is tokenized again would turn into one."""
    return pc.is_in(shard.responses.field("response_id").take(side), value_set=pa.array(shard.spelled, pa.string()))


def _mask(values: pa.Array) -> NDArray[np.bool_]:
    return values.to_numpy(zero_copy_only=False).astype(bool)


def _either(masks: Iterable[pa.Array]) -> NDArray[np.bool_]:
    first, second = map(_mask, masks)
    return first | second


def _lengths(lists: pa.Array) -> NDArray[np.int64]:
    return lists.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)


def _refuse_repeated(prompt_ids: list[NDArray[np.bytes_]]) -> None:
    """Sorted in place: only the ids of every shard stay in memory, and an index of them would set the peak."""
    ids = np.concatenate(prompt_ids)
    ids.sort()
    if (repeated := ids[1:][ids[1:] == ids[:-1]]).size:
        raise UserError(
            f"build_pairs: prompt {repeated[0].decode()} is in more than one shard; make the rollouts again"
        )
