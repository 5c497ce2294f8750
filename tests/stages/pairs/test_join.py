"""Vectors are read by blocks of prompts, wherever they are stored."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("zarr")

from nemo_sspo.artifacts import vectors as stored
from nemo_sspo.config.stages import Judging
from nemo_sspo.stages.pairs.join import JoinedShard, join_shard, similarities
from tests.stages import runs

PROMPTS, K, D = 11, 3, 6


# Two of a prompt's three responses are equal, and share a vector.
ROWS = runs.rollout_rows([[f"text {n}.{k % 2}" for k in range(K)] for n in range(PROMPTS)])
IDS = list(dict.fromkeys(response["response_id"] for row in ROWS for response in row["responses"]))


def joined(folder: Path, vectors: dict[str, np.ndarray]) -> JoinedShard:
    settings = runs.experiment(folder)
    runs.publish_rollout(settings, ROWS)
    runs.publish_scores(settings, runs.score_rows(ROWS, np.zeros((PROMPTS, K, K))))
    runs.publish_vectors(settings, vectors)
    stages = [settings.run_dir / "iter_1" / stage / "shard_00000" for stage in ("rollout", "score", "embed")]
    return join_shard(*map(runs.open_artifact, stages), Judging())


@pytest.mark.parametrize("shuffled", [False, True])
@pytest.mark.parametrize("block", [1, 4, 100])
def test_similarities_do_not_depend_on_blocks_chunks_or_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, shuffled: bool
) -> None:
    monkeypatch.setattr(stored, "ROWS_PER_CHUNK", 5)  # blocks begin and end inside chunks
    draw = np.random.default_rng(3)
    ids = [IDS[place] for place in draw.permutation(len(IDS))] if shuffled else IDS
    vectors = {
        name: vector / np.linalg.norm(vector) for name, vector in zip(ids, draw.normal(size=(len(ids), D)), strict=True)
    }
    of_responses = np.array([[vectors[response["response_id"]] for response in row["responses"]] for row in ROWS])
    expected = np.einsum("nid,njd->nij", of_responses, of_responses).clip(min=0)
    np.testing.assert_allclose(similarities(joined(tmp_path, vectors), block), expected, atol=1e-6, rtol=0)


def test_a_block_reads_its_own_vectors_alone(tmp_path: Path) -> None:
    """Stored in the order of the responses, as the embed stage does."""
    shard = joined(tmp_path, dict.fromkeys(IDS, np.eye(D)[0]))
    read: list[slice] = []

    class Watched:
        def __getitem__(self, part: slice) -> np.ndarray:
            read.append(part)
            return np.asarray(shard.vectors.stored[part])

    similarities(replace(shard, vectors=replace(shard.vectors, stored=Watched())), block=4)
    assert read == [slice(0, 8), slice(8, 16), slice(16, 22)]
