"""A process of the rollout environment: encode the answers, and print what was found as JSON on the last line.

python -m nemo_sspo.lab.text.study DATA PROMPTS SEED ENCODER_JSON      (PROMPTS 0: all)
"""

import json
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.encoder.protocol import Embeddings
from nemo_sspo.encoder.registry import load_encoder
from nemo_sspo.errors import UserError
from nemo_sspo.lab.results import Finding, row_data
from nemo_sspo.lab.text.answers import MODELS, prompts_with_answers
from nemo_sspo.lab.text.measure import CorrelationRow, MarginRow, PairTable, SimilarityRow
from nemo_sspo.lab.text.oracles import VADER, load_oracles
from nemo_sspo.lab.text.pairs import BEGINNING, COPY, ENDING, TWO_MODELS, text_pairs

LONG_TEXT = ("chunk_mean", "truncate")
_SAMPLES = 1000
LIBRARIES = ("sentence-transformers", "transformers", "torch", "numpy", VADER)


def study(data: Path, count: int | None, seed: int, settings: SentenceEncoder) -> dict[str, Any]:
    """Everything, as JSON takes it."""
    oracles = load_oracles()
    prompts = prompts_with_answers(data, count)
    pairs = text_pairs(prompts, seed)
    texts = list(dict.fromkeys(text for pair in pairs for text in (pair.first, pair.second)))
    place = {text: number for number, text in enumerate(texts)}
    first, second = (
        np.array([place[text] for text in side]) for side in zip(*(pair[2:] for pair in pairs), strict=True)
    )
    encoded = {
        how: load_encoder(settings.model_copy(update={"long_text": how})).encode(texts, _telling(how, len(texts)))
        for how in LONG_TEXT
    }
    similarity = {how: _similarity(found.vectors_ND, first, second) for how, found in encoded.items()}
    table = PairTable(pairs, similarity, _SAMPLES, seed)
    similarities, margin, correlation = table.similarity_rows(), [], []
    for name, score in oracles.items():
        scores_N = np.array([score(text) for text in texts])
        margin += table.margin_rows(name, scores_N[first] - scores_N[second])
        correlation += table.correlation_rows(name, scores_N[first] - scores_N[second])
    long = _longer_than_the_window(encoded["truncate"], place, [answers for _, answers in prompts])
    return {
        "prompts": len(prompts),
        "texts": len(texts),
        "seed": seed,
        "encoder": settings.path,
        "versions": {name: version(name) for name in LIBRARIES},
        "longer_than_window": long,
        "findings": [finding.as_data() for finding in findings(long, similarities, margin, correlation)],
        "similarities": [row_data(row) for row in similarities],
        "margins": [row_data(row) for row in margin],
        "correlations": [row_data(row) for row in correlation],
    }


def _similarity(
    vectors_ND: NDArray[np.float32], first: NDArray[np.intp], second: NDArray[np.intp]
) -> NDArray[np.float64]:
    both = vectors_ND[first].astype(np.float64) * vectors_ND[second]
    return both.sum(axis=1).clip(0.0, 1.0)


def _longer_than_the_window(
    encoded: Embeddings, place: dict[str, int], answers: Sequence[Sequence[str]]
) -> dict[str, float]:
    return {
        model: float(np.mean([encoded.long_N[place[texts[number]]] for texts in answers]))
        for number, model in enumerate(MODELS)
    }


def _telling(how: str, count: int) -> Any:
    def told(done: int) -> None:
        print(f"{how}: {done} of {count} texts", file=sys.stderr, flush=True)

    return told


def findings(
    long: dict[str, float],
    similarities: Sequence[SimilarityRow],
    margin: Sequence[MarginRow],
    correlation: Sequence[CorrelationRow],
) -> Iterator[Finding]:
    """Hypotheses on real text with their verdicts."""
    alike = {(row.kind, row.long_text): row for row in similarities}
    yield Finding(
        "the window is short",
        "more than three quarters of GPT-4's answers are longer than the encoder's window",
        "ours",
        {f"share, {model}": share for model, share in long.items()},
        long[MODELS[0]] > 0.75,
    )
    shown = {
        f"{kind}, {how}": alike[kind, how].similarity.mean
        for kind in (BEGINNING, ENDING, COPY, TWO_MODELS)
        for how in LONG_TEXT
    }
    yield Finding(
        "truncation takes the beginning for the whole",
        "answers that share their first half alone: similarity above 0.95 truncated, below 0.7 as a mean of chunks",
        "ours",
        shown,
        shown[f"{BEGINNING}, truncate"] > 0.95 and shown[f"{BEGINNING}, chunk_mean"] < 0.7,
    )
    yield Finding(
        "chunks know no order",
        "as a mean of chunks, answers that share their last half are as alike as those that share the first, +- 0.05",
        "ours",
        {kind: alike[kind, "chunk_mean"].similarity.mean for kind in (BEGINNING, ENDING)},
        abs(alike[BEGINNING, "chunk_mean"].similarity.mean - alike[ENDING, "chunk_mean"].similarity.mean) <= 0.05,
    )
    for oracle in dict.fromkeys(row.oracle for row in correlation):
        yield from _of_oracle(oracle, margin, {row.long_text: row for row in correlation if row.oracle == oracle})


def _of_oracle(oracle: str, margin: Sequence[MarginRow], correlation: dict[str, CorrelationRow]) -> Iterator[Finding]:
    rows = {(row.long_text, row.kind, row.close, row.gate): row for row in margin if row.oracle == oracle}
    if not all((how, TWO_MODELS, close, "none") in rows for how in LONG_TEXT for close in (True, False)):
        return  # too few prompts to tell
    ungated = {how: rows[how, TWO_MODELS, True, "none"] for how in LONG_TEXT}
    yield Finding(
        f"close pairs get large margins from {oracle}",
        "at least a quarter of the close pairs of real answers have a margin above the median of all such pairs, "
        "whichever way long texts are read",
        "S-SPPO sec. 2.2",
        {f"share, {how}": row.large.mean for how, row in ungated.items()}
        | {f"pairs, {how}": row.pairs for how, row in ungated.items()},
        all(row.large.mean >= 0.25 for row in ungated.values()),
    )
    yield Finding(
        f"the margin of {oracle} does not follow similarity",
        "the correlation of similarity and margin over pairs of real answers is above -0.2, by the whole 95 % interval",
        "S-SPPO Fig. 2",
        {f"correlation, {how}": row.correlation.mean for how, row in correlation.items()}
        | {f"low, {how}": row.correlation.low for how, row in correlation.items()},
        all(row.correlation.low > -0.2 for row in correlation.values()),
    )
    kept = {
        f"{gate}, {how}": rows[how, TWO_MODELS, False, gate].margin.mean
        / rows[how, TWO_MODELS, False, "none"].margin.mean
        for how in LONG_TEXT
        for gate in dict.fromkeys(row.gate for row in margin)
    }
    yield Finding(
        f"the gate spares pairs that are not close, {oracle}",
        "S-SPPO's gate leaves at least half of the mean margin of pairs of real answers that are not close",
        "S-SPPO appendix D.2",
        kept,
        all(kept[f"linear, {how}"] >= 0.5 for how in LONG_TEXT),
    )


def main(arguments: Sequence[str]) -> None:
    data, count, seed, settings = arguments
    encoder = SentenceEncoder.model_validate_json(settings)
    print(json.dumps(study(Path(data), int(count) or None, int(seed), encoder)))


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(str(error))
