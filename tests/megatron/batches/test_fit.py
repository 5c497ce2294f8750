"""Pairs that the policy cannot read are refused by name before any rank starts."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

pytest.importorskip("nemo.collections.llm")

from nemo_sspo.artifacts.tables import PAIRS
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.fit import require_fit
from nemo_sspo.megatron.batches.pairs import PairTable


def table(*pairs: tuple[list[int], list[int], list[int]]) -> PairTable:
    rows = []
    for number, (prompt, chosen, rejected) in enumerate(pairs):
        ids = {"prompt_token_ids": prompt, "chosen_token_ids": chosen, "rejected_token_ids": rejected}
        zeros = {name: 0.0 for name in PAIRS.schema.names if PAIRS.schema.field(name).type == pa.float64()}
        names = {name: f"p{number}" for name in PAIRS.schema.names if PAIRS.schema.field(name).type == pa.string()}
        rows.append(names | zeros | ids)
    return PairTable(PAIRS.of(rows), None)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    config = {"model_type": "llama", "vocab_size": 100, "max_position_embeddings": 6}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_every_token_has_a_row_and_every_sequence_a_position(policy: Path) -> None:
    require_fit(table(([1, 99], [2, 3, 4, 5], [7]), ([], [98], [])), policy)


@pytest.mark.parametrize("place", range(3))
def test_a_token_without_a_row_is_refused_wherever_it_stands(policy: Path, place: int) -> None:
    """Megatron's parallel embedding would make a zero vector of it."""
    parts = [[1], [2], [3]]
    parts[place] = [4, 100]
    with pytest.raises(UserError, match="pair p1: token id 100 is beyond the 100 rows"):
        require_fit(table(([1], [2], [3]), tuple(parts)), policy)


@pytest.mark.parametrize("sides", [([1] * 4, [1]), ([1], [1] * 4)])
def test_a_sequence_beyond_the_positions_is_refused(policy: Path, sides: tuple[list[int], list[int]]) -> None:
    with pytest.raises(UserError, match="pair p0: 7 tokens, over the 6 positions"):
        require_fit(table(([1] * 3, *sides)), policy)
