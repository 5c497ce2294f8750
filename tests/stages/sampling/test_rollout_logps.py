from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import Artifact, open_artifact
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.stages.sampling.rollout_logps import rollout_logps
from tests.stages import runs


@pytest.fixture
def settings(tmp_path: Path) -> Experiment:
    return runs.experiment(tmp_path)


def shard(settings: Experiment, rows: list[dict], number: int = 0) -> Artifact:
    runs.publish_rollout(settings, rows, shard=number)
    return open_artifact(RunLayout(settings.run_dir).artifact("rollout", 1, number))


def with_logprobs(rows: list[dict], logprobs: list[list[float] | None]) -> list[dict]:
    responses = [response for row in rows for response in row["responses"]]
    for response, own in zip(responses, logprobs, strict=True):
        response["logprobs"] = own
    return rows


def ids(rows: list[dict]) -> list[str]:
    return [response["response_id"] for row in rows for response in row["responses"]]


def test_sums_are_found_by_id_in_any_order_and_shard(settings: Experiment) -> None:
    # A token a character and one at the end.
    first = with_logprobs(runs.rollout_rows([["a", "bc"]], name="x"), [[-1.0, -0.5], [-2.0, -0.25, -4.0]])
    second = with_logprobs(runs.rollout_rows([["", "d"]], name="y"), [[-8.0], [-3.0, -3.0]])
    shards = [shard(settings, rows, number) for number, rows in enumerate((first, second))]
    a, bc, end, d = ids([*first, *second])
    found = rollout_logps([pa.array([d, bc]), pa.array([end, a])], shards)
    assert found.tolist() == [[-6.0, -8.0], [-6.25, -1.5]]


def test_what_was_not_kept_is_not_a_number(settings: Experiment) -> None:
    """Responses made elsewhere have none, and a list that is short would pass for a likelier response."""
    rows = with_logprobs(runs.rollout_rows([["a", "b", "c"]]), [None, [-1.0], [-1.0, -1.0]])
    found = rollout_logps([pa.array(ids(rows))], [shard(settings, rows)])
    assert np.isnan(found[:2]).all()
    assert found[2] == -2.0


def test_a_response_of_other_rollouts_is_named(settings: Experiment) -> None:
    with pytest.raises(UserError, match="response elsewhere of a pair"):
        rollout_logps([pa.array(["elsewhere"])], [shard(settings, runs.rollout_rows([["a", "b"]]))])
