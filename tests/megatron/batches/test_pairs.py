from __future__ import annotations

import pytest

pytest.importorskip("megatron.core")

import pyarrow as pa
import torch

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.pairs import PairTable
from tests.megatron.worlds import make_reference


def test_a_stored_reference_or_target_that_is_no_number_is_refused_by_its_pair(pairs: pa.Table) -> None:
    logps_P2 = torch.zeros(20, 2)
    logps_P2[13, 1] = -torch.inf
    with pytest.raises(UserError, match="pair pair13: rejected_logp is not finite"):
        PairTable(pairs, make_reference(logps_P2))
    column = pairs.schema.get_field_index("target_pair")
    targets = pairs["target_pair"].to_pylist()
    targets[4] = float("nan")
    broken = pairs.set_column(column, pairs.schema.field(column), pa.array(targets, pairs.schema.field(column).type))
    with pytest.raises(UserError, match="pair pair4: target_pair is not finite"):
        PairTable(broken, None)


def test_reference_of_other_pairs_is_refused(pairs: pa.Table) -> None:
    with pytest.raises(UserError, match="reference log-probs are of other pairs"):
        PairTable(pairs, make_reference(torch.zeros(2, 2)))
