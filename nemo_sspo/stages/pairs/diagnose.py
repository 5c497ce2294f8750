"""Calibration diagnostics of an iteration as data: diagnostics.json and comparisons.parquet. NumPy and Arrow only.

Legend: N prompts, K responses, M response pairs i < j of a block, D embedding size. Shards are read one after the
other and each in blocks of prompts; only sums are kept, so memory does not grow with the run.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from nemo_sspo.artifacts.diagnostics import (
    Collapse,
    Diagnostics,
    Duplicates,
    GateTable,
    OracleBias,
    SimilarityBin,
    TargetHistograms,
)
from nemo_sspo.artifacts.facts.pairs import DiagnosisFacts
from nemo_sspo.artifacts.layout import DIAGNOSTICS
from nemo_sspo.artifacts.tables import COMPARISONS, LABELLED, PAIRS
from nemo_sspo.config.binding import bind
from nemo_sspo.config.gates import GATES, Gate
from nemo_sspo.objective.diversity import effective_rank, singular_values_of_gram
from nemo_sspo.objective.gates import GATE_WEIGHTS
from nemo_sspo.objective.oracle_bias import Intransitivity, LengthBias, OrderBias
from nemo_sspo.objective.similarity_margin import SimilarityMargin, margins
from nemo_sspo.objective.win_rates import win_probabilities
from nemo_sspo.stages.pairs.build_pairs import MOVED, drop_reasons, supervise
from nemo_sspo.stages.pairs.join import JoinedShard, join_shard, similarities
from nemo_sspo.stages.pairs.sample import SmallestKeys, prompt_keys
from nemo_sspo.stages.pairs.score_labelled import calibration_of
from nemo_sspo.stages.pairs.text_diversity import LengthCounts, TextDiversity
from nemo_sspo.stages.runner.context import StageContext

NEAR_DUPLICATE = 0.95
_SIMILARITY_BINS, _TARGET_BINS = 20, 20
SAMPLED_PAIRS = 5000
"""Response pairs that comparisons.parquet holds at most."""
BLOCK_PROMPTS = 2048
"""Prompts whose response pairs are held in memory at once."""

Array = NDArray[np.float64]
Weight = Callable[[Array], Array]


def run(context: StageContext) -> None:
    """Publish diagnostics.json and comparisons.parquet."""
    experiment = context.experiment
    shards = list(zip(context.inputs["rollout"], context.inputs["score"], context.inputs["embed"], strict=True))
    prompts = sum(score.manifest.rows for _, score, _ in shards)
    sums = DiagnosticSums(experiment.gate, experiment.seed, prompts)
    for done, (rollout, score, embed) in enumerate(shards):
        context.progress.update(done, len(shards), unit="shards")
        sums.add(join_shard(rollout, score, embed, experiment.judging), context)
    context.progress.update(len(shards), len(shards), unit="shards")

    labelled = context.inputs.get("score_labelled")
    found = Diagnostics(
        iteration=context.iteration,
        prompts=sums.prompts,
        responses_per_prompt=sums.k,
        response_pairs=sums.pairs,
        similarity_margin=sums.gate_tables(),
        oracle=sums.oracle_bias(),
        duplicates=sums.duplicates(),
        targets=target_histograms(context.input("build_pairs").path),
        calibration=calibration_of(LABELLED.read(labelled[0].path)) if labelled else None,
        collapse=sums.collapse(),
    )
    (context.output.path / DIAGNOSTICS).write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    COMPARISONS.write(context.output.path, sums.sample.columns)
    context.output.rows = sums.prompts
    context.output.facts = DiagnosisFacts(
        response_pairs=sums.pairs,
        order_flip_share=found.oracle.order_flip_share,
        intransitive_share=found.oracle.intransitive_share,
        near_duplicate_share=found.collapse.near_duplicate_share,
        self_bleu=found.collapse.self_bleu,
        effective_rank=found.collapse.effective_rank,
    )


@dataclass
class _GateSums:
    """One gate's table in the making."""

    gate: Gate
    label: str
    weight: Weight
    table: SimilarityMargin = field(default_factory=lambda: SimilarityMargin(_SIMILARITY_BINS))
    moved: int = 0

    def add(self, similarity_M: Array, margin_M: Array) -> Array:
        """Add pairs with their ungated margins; returns the gated ones."""
        gated_M = margin_M * self.weight(similarity_M)
        self.table.add(similarity_M, gated_M)
        self.moved += int((margin_M - gated_M > 2 * MOVED).sum())  # a margin is twice |P - 1/2|
        return gated_M

    def facts(self) -> GateTable:
        """The finished table."""
        table, edges = self.table, np.linspace(0.0, 1.0, _SIMILARITY_BINS + 1)
        bins = [
            SimilarityBin(
                low=edges[index],
                high=edges[index + 1],
                count=int(count),
                mean_similarity=table.similarity_I[index] / count if count else None,
                mean_margin=table.margin_I[index] / count if count else None,
                confident_share=table.confident_I[index] / count if count else None,
            )
            for index, count in enumerate(table.count_I)
        ]
        return GateTable(
            gate=self.label,
            parameters=self.gate.model_dump(exclude={"form"}),
            correlation=table.correlation(),
            mean_margin=float(table.margin_I.sum()) / table.pairs,
            confident_share=int(table.confident_I.sum()) / table.pairs,
            moved_share=self.moved / table.pairs,
            bins=bins,
        )


class DiagnosticSums:
    """Sums over the shards of an iteration."""

    def __init__(self, gate: Gate, seed: int, prompts: int) -> None:
        """`prompts` is how many will be added: what is measured on a sample depends on it."""
        named = [(kind, kind.kind) for kind in GATES]
        self.gates = [
            _GateSums(variant, label, bind(variant, GATE_WEIGHTS)) for variant, label in (*named, (gate, "configured"))
        ]
        self.seed, self.prompts, self.k, self.pairs = seed, 0, 0, 0
        self.order, self.cycles, self.length_bias = OrderBias(), Intransitivity(), LengthBias()
        self.exact = self.near = self.repeating_prompts = 0
        self.gram_DD: Array | float = 0.0
        self.prompt_rank = 0.0
        self.lengths, self.text = LengthCounts(), TextDiversity(seed, prompts)
        self.sample = SmallestKeys(SAMPLED_PAIRS)

    def add(self, shard: JoinedShard, context: StageContext) -> None:
        """Add one shard."""
        settings, gate = context.experiment.pairs, context.experiment.gate
        supervision = supervise(shard, settings, gate, self.gates[-1].weight)
        kept_N = drop_reasons(shard, supervision, settings) == ""
        selected_N2 = np.sort(np.stack([supervision.chosen, supervision.rejected], axis=1), axis=1)
        selected_N2[~kept_N] = -1
        p_NKK = win_probabilities(shard.logits_NKK, symmetrization=settings.symmetrize, estimator=settings.estimator)
        similarity_NKK = similarities(shard)
        lengths_NK, codes_NK = _token_lengths(shard), _text_codes(shard)
        self.k = shard.k
        self.prompts += shard.prompts
        self.lengths.add(shard.responses, lengths_NK)
        self.text.add(shard)
        for rows in _blocks(shard.prompts):
            self.order.add(shard.logits_NKK[rows])
            self.cycles.add(shard.logits_NKK[rows])
            self.length_bias.add(p_NKK[rows], lengths_NK[rows])
            self._add_embeddings(shard.vectors.of(rows).astype(np.float64))
            self._add_pairs(
                shard.prompt_ids[rows], p_NKK[rows], similarity_NKK[rows], codes_NK[rows], selected_N2[rows]
            )

    def _add_embeddings(self, vectors_NKD: Array) -> None:
        flat = vectors_NKD.reshape(-1, vectors_NKD.shape[-1])
        self.gram_DD = self.gram_DD + flat.T @ flat
        singular_NK = singular_values_of_gram(vectors_NKD @ vectors_NKD.swapaxes(-1, -2))
        self.prompt_rank += float(effective_rank(singular_NK).sum())

    def _add_pairs(
        self,
        prompt_ids: pa.Array,
        p_NKK: Array,
        similarity_NKK: Array,
        codes_NK: NDArray[np.int64],
        selected_N2: NDArray[np.intp],
    ) -> None:
        i, j = np.triu_indices(self.k, k=1)
        similarity_M, p_M = similarity_NKK[:, i, j].ravel(), p_NKK[:, i, j].ravel()
        margin_M = margins(p_M)
        gated = [gate.add(similarity_M, margin_M) for gate in self.gates]
        same_NM = codes_NK[:, i] == codes_NK[:, j]
        self.pairs += len(p_M)
        self.exact += int(same_NM.sum())
        self.near += int(((similarity_M >= NEAR_DUPLICATE) | same_NM.ravel()).sum())
        self.repeating_prompts += int(same_NM.any(axis=1).sum())

        keys = prompt_keys(prompt_ids, self.seed, np.arange(len(i)) + 1).ravel()
        columns: Mapping[str, NDArray] = {
            "prompt_id": np.repeat(prompt_ids.to_numpy(zero_copy_only=False), len(i)),
            "first": np.tile(i, len(prompt_ids)),
            "second": np.tile(j, len(prompt_ids)),
            "similarity": similarity_M,
            "p_before": p_M,
            "margin_before": margin_M,
            "margin_after": gated[-1],
            "is_selected_pair": ((selected_N2[:, :1] == i) & (selected_N2[:, 1:] == j)).ravel(),
        }
        self.sample.add(keys, columns)

    def gate_tables(self) -> list[GateTable]:
        """One table per gate."""
        return [gate.facts() for gate in self.gates]

    def oracle_bias(self) -> OracleBias:
        """Order, cycles and length."""
        order, length = self.order, self.length_bias
        return OracleBias(
            order_gap=order.gap / order.pairs,
            order_lean=order.lean / order.pairs,
            order_flip_share=order.flips / order.pairs,
            intransitive_share=self.cycles.cycles / self.cycles.triples if self.cycles.triples else None,
            length_correlation=length.correlation(),
            longer_wins_share=length.longer_wins / length.decided if length.decided else None,
        )

    def duplicates(self) -> Duplicates:
        """Responses that say the same."""
        return Duplicates(
            exact_share=self.exact / self.pairs,
            near_share=self.near / self.pairs,
            prompts_share=self.repeating_prompts / self.prompts,
        )

    def collapse(self) -> Collapse:
        """Diversity of the responses."""
        ungated = self.gates[0].table
        return Collapse(
            **self.text.means(),
            mean_similarity=float(ungated.similarity_I.sum()) / ungated.pairs,
            near_duplicate_share=self.near / self.pairs,
            effective_rank=float(effective_rank(singular_values_of_gram(np.asarray(self.gram_DD)))),
            prompt_effective_rank=self.prompt_rank / self.prompts,
            **self.lengths.facts(),
        )


def target_histograms(built: Path) -> TargetHistograms:
    """Histograms of the training targets, read in parts."""
    edges = np.linspace(0.0, 1.0, _TARGET_BINS + 1)
    names = ("p_chosen", "target_chosen", "p_rejected", "target_rejected")
    counts, moved, pairs = dict.fromkeys(names, np.zeros(_TARGET_BINS, dtype=np.int64)), 0, 0
    for part in PAIRS.batches(built, names):
        values = {name: part[name].to_numpy() for name in names}
        counts = {name: counts[name] + np.histogram(values[name], edges)[0] for name in names}
        moves = [np.abs(values[f"target_{side}"] - values[f"p_{side}"]) > MOVED for side in ("chosen", "rejected")]
        moved += int((moves[0] | moves[1]).sum())
        pairs += part.num_rows
    return TargetHistograms(
        edges=edges.tolist(),
        chosen_before=counts["p_chosen"].tolist(),
        chosen_after=counts["target_chosen"].tolist(),
        rejected_before=counts["p_rejected"].tolist(),
        rejected_after=counts["target_rejected"].tolist(),
        moved_share=moved / pairs if pairs else None,
    )


def _blocks(prompts: int) -> Iterator[slice]:
    for start in range(0, prompts, BLOCK_PROMPTS):
        yield slice(start, start + BLOCK_PROMPTS)


def _token_lengths(shard: JoinedShard) -> NDArray[np.int64]:
    lengths = pc.list_value_length(shard.responses.field("token_ids")).to_numpy(zero_copy_only=False)
    return lengths.astype(np.int64).reshape(shard.prompts, shard.k)


def _text_codes(shard: JoinedShard) -> NDArray[np.int64]:
    """Equal texts of the shard have equal numbers, [N, K]."""
    codes = shard.responses.field("text").dictionary_encode().indices.to_numpy(zero_copy_only=False)
    return codes.astype(np.int64).reshape(shard.prompts, shard.k)
