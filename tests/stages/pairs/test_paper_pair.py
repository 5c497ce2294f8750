"""The pair that the papers' presets build, against their equations written out by hand."""

from math import exp
from pathlib import Path

import pytest

pytest.importorskip("zarr")

import numpy as np

from nemo_sspo.artifacts.tables import PAIRS
from nemo_sspo.config.load import load_experiment
from tests.stages import runs

LOGITS = [[0.0, 1.5, -0.25], [0.5, 0.0, 2.0], [1.0, -3.0, 0.0]]
"""l_ij with i shown first; the two orders of a pair disagree, as PairRM's do."""


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def test_win_rates_over_all_others_of_logits_as_they_are(tmp_path: Path) -> None:
    paper = load_experiment(["experiment=llama3-8b-paper", "prompts=[a,b,c]"])
    settings = runs.experiment(tmp_path, pairs=paper.pairs, gate=paper.gate)
    rows = runs.rollout_rows([["one", "two!", "three"]])
    ids = [response["response_id"] for response in rows[0]["responses"]]
    vectors = {ids[0]: [1.0, 0.0], ids[1]: [0.6, 0.8], ids[2]: [0.8, 0.6]}
    runs.publish_rollout(settings, rows)
    runs.publish_scores(settings, runs.score_rows(rows, np.array([LOGITS])))
    runs.publish_vectors(settings, {name: np.array(vector) for name, vector in vectors.items()})
    (pair,) = PAIRS.read(runs.run_stage(settings, "build_pairs").path).to_pylist()

    # B.3: the scores are 1.25 / 3, 2.5 / 3 and -2 / 3, so the second wins and the third loses.
    assert (pair["chosen_id"], pair["rejected_id"]) == (ids[1], ids[2])
    # B.1 and B.2: the mean of sigma(l_ik) over the two others; the two rates need not add up to 1.
    p_chosen, p_rejected = (sigmoid(0.5) + sigmoid(2.0)) / 2, (sigmoid(1.0) + sigmoid(-3.0)) / 2
    assert (pair["p_chosen"], pair["p_rejected"]) == pytest.approx((p_chosen, p_rejected), abs=1e-12)
    # The practical form of eq. 3.1 with the pair's own similarity, 0.6 x 0.8 + 0.8 x 0.6.
    targets = [0.5 + (1 - 0.96) * (p - 0.5) for p in (p_chosen, p_rejected)]
    assert [pair["target_chosen"], pair["target_rejected"]] == pytest.approx(targets, abs=1e-6)
