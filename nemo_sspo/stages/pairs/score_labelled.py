"""The oracle on comparisons with known outcomes, once per run, to measure the oracle's calibration."""

import numpy as np
import pyarrow as pa

from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.artifacts.diagnostics import Calibration, ReliabilityBin
from nemo_sspo.artifacts.facts.sampling import LabelledFacts
from nemo_sspo.artifacts.sources.labelled import read_labelled
from nemo_sspo.artifacts.tables import LABELLED
from nemo_sspo.objective.oracle_bias import reliability
from nemo_sspo.objective.win_rates import win_of_first
from nemo_sspo.oracle.registry import load_oracle
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.sampling.judging import both_orders, refuse_all_ties, resources
from nemo_sspo.stages.sampling.rollout_table import conversation_text
from nemo_sspo.stages.sampling.score import refuse_not_finite

_BINS = 10


def run(context: StageContext) -> None:
    """Publish labelled.parquet: P(a is better) of every comparison, both orders combined, beside its label."""
    source = context.experiment.evaluation.labelled_pairs
    assert source is not None, "planned only with labelled pairs"
    pairs = read_labelled(source, context.experiment.data.columns.names)
    prompts = [pair.conversation.messages for pair in pairs]
    texts = [{"prompt": conversation_text(messages), "messages": list(messages)} for messages in prompts]
    rows = [
        row for pair, prompt in zip(pairs, texts, strict=True) for row in both_orders(prompt, pair.first, pair.second)
    ]
    context.progress.update(0, len(rows), unit="comparisons", note="loading the oracle")
    oracle = load_oracle(context.experiment.oracle, resources(context))
    judged = oracle.compare(rows, lambda done: context.progress.update(done, len(rows), unit="comparisons"))
    refuse_all_ties(context, judged.facts)

    logits_N2 = judged.logits_R.astype(np.float64).reshape(-1, 2)
    refuse_not_finite(logits_N2, [content_id(list(messages)) for messages in prompts])
    columns = {
        "p_first": win_of_first(logits_N2),
        "label": [pair.label for pair in pairs],
        "truncated": judged.truncated_R.reshape(-1, 2).any(axis=1),
    }
    LABELLED.write(context.output.path, columns)
    context.output.rows = len(pairs)
    context.output.facts = LabelledFacts(pairs=len(pairs), judge=dict(judged.facts))


def calibration_of(labelled: pa.Table) -> Calibration:
    """Expected calibration error and reliability bins of labelled comparisons."""
    p, label = (labelled.column(name).to_numpy() for name in ("p_first", "label"))
    found, edges = reliability(p, label, _BINS), np.linspace(0.5, 1.0, _BINS + 1)
    counts = found.count_I
    bins = [
        ReliabilityBin(
            low=edges[index],
            high=edges[index + 1],
            count=int(count),
            mean_confidence=float(found.confidence_I[index]) if count else None,
            accuracy=float(found.accuracy_I[index]) if count else None,
        )
        for index, count in enumerate(counts)
    ]
    return Calibration(
        pairs=len(p),
        expected_calibration_error=found.expected_error,
        accuracy=float(np.nansum(found.accuracy_I * counts) / counts.sum()),
        brier_score=float(np.mean((p - label) ** 2)),
        bins=bins,
    )
