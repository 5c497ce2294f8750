"""What belongs to a shard's prompts is found by id, of all or of some prompts; for refusals see tests/stages/pairs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("zarr")

from nemo_sspo.artifacts.shard import Shard, join_pairs, join_scores, read_shard
from nemo_sspo.errors import UserError
from tests.stages import runs

K = 3
# The last prompt's first two responses are equal, and share an id.
ROWS = runs.rollout_rows([["a", "b", "c"], ["d", "e", "f"], ["g", "h", "i"], ["j", "j", "k"]])
IDS = [row["prompt_id"] for row in ROWS]
LOGITS = np.arange(len(ROWS) * K * K, dtype=np.float64).reshape(-1, K, K)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A rollout, and its scores in another order."""
    settings = runs.experiment(tmp_path)
    runs.publish_rollout(settings, ROWS)
    runs.publish_scores(settings, runs.score_rows(ROWS, LOGITS)[::-1])
    rollout, score = (settings.run_dir / "iter_1" / stage / "shard_00000" for stage in ("rollout", "score"))
    return rollout, score


def read(rollout: Path, wanted: list[str] | None = None) -> Shard:
    ids = None if wanted is None else pa.array(wanted, pa.string())
    return read_shard(rollout, ("prompt_id", "prompt"), ("response_id", "text"), ids)


def response(prompt: int, place: int) -> str:
    return ROWS[prompt]["responses"][place]["response_id"]


def pair(prompt: int, chosen: int, rejected: int) -> dict[str, object]:
    ids = {"chosen_id": response(prompt, chosen), "rejected_id": response(prompt, rejected)}
    return {"prompt_id": IDS[prompt], **ids, "similarity": prompt / 10}


def test_scores_come_in_the_order_of_the_prompts(folders: tuple[Path, Path]) -> None:
    rollout, score = folders
    shard = read(rollout)
    assert (shard.prompts, shard.k, shard.prompt_ids.to_pylist()) == (4, K, IDS)
    np.testing.assert_array_equal(join_scores(shard, score), LOGITS)


def test_some_prompts_have_what_they_have_in_the_whole_shard(folders: tuple[Path, Path]) -> None:
    rollout, score = folders
    part = read(rollout, [IDS[3], IDS[1], "of another shard"])
    assert [(prompt["prompt"], [r["text"] for r in responses]) for prompt, responses in part.listed()] == [
        ("1", ["d", "e", "f"]),
        ("3", ["j", "j", "k"]),
    ]
    np.testing.assert_array_equal(join_scores(part, score), LOGITS[[1, 3]])
    nothing = read(rollout, ["of another shard"])
    assert (nothing.prompts, nothing.k) == (0, 0)


def test_pairs_are_found_with_the_places_of_their_responses(folders: tuple[Path, Path]) -> None:
    """The pairs table is that of all shards, in no order; a response that occurs twice is the first of the two."""
    stranger = pair(1, 0, 1) | {"prompt_id": "of another shard"}
    pairs = pa.Table.from_pylist([pair(3, 2, 1), stranger, pair(0, 1, 2)])
    found = join_pairs(read(folders[0]), pairs)
    assert found.places_N2.tolist() == [[1, 2], [-1, -1], [-1, -1], [2, 0]]
    assert found.rows == [pair(0, 1, 2), None, None, pair(3, 2, 1)]


def test_a_pair_of_other_responses_is_refused(folders: tuple[Path, Path]) -> None:
    other = pair(2, 0, 1) | {"rejected_id": response(1, 1)}
    with pytest.raises(UserError, match=f"shard_00000: the pair of prompt {IDS[2]} is of other responses"):
        join_pairs(read(folders[0]), pa.Table.from_pylist([pair(0, 0, 1), other]))
