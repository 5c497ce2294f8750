"""Score a rollout shard: the raw K x K oracle logits of every prompt, both orders, diagonal 0.

Legend: N prompts of a window, K responses. Prompts go through in windows, so memory does not grow with the shard, and
all rows of a window are pooled, so the oracle can pack them by length.
"""

import itertools
import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from nemo_sspo.artifacts.facts.sampling import ScoreFacts
from nemo_sspo.artifacts.tables import ROLLOUTS, SCORES
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.protocol import PreferenceOracle, Row
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.sampling.judged_text import reader
from nemo_sspo.stages.sampling.judging import oracle_of, refuse_all_ties, turns
from nemo_sspo.words import counted

_WINDOW_PROMPTS = 1024
_RESPONSE_ID = "responses.list.element.response_id"


def run(context: StageContext) -> None:
    """Publish scores.parquet, one row per prompt of the rollout shard, in its order."""
    rollouts = ROLLOUTS.open(context.input("rollout").path)
    total = rollouts.metadata.num_rows
    context.progress.update(0, total, unit="prompts", note="loading the oracle")
    oracle = oracle_of(context, rows=_rows(rollouts.metadata))

    sums, read = ScoreSums(), reader(context.experiment.judging, context.input("rollout"))
    started = time.monotonic()
    columns = ["prompt_id", "prompt", "messages", _RESPONSE_ID, "responses.list.element.text"]
    with SCORES.writer(context.output.path) as writer:
        for batch in rollouts.iter_batches(batch_size=_WINDOW_PROMPTS, columns=columns):
            scored = context.output.rows

            def report(done: int, scored: int = scored) -> None:
                context.progress.update(min(scored + done, total), total, unit="prompts")

            writer.write_table(score_window(_judged(batch.to_pylist(), read), oracle, sums, report))
            refuse_all_ties(context, sums.judge)
            context.output.rows += batch.num_rows
    seconds = time.monotonic() - started
    context.output.facts = sums.facts(prompts=total)
    context.output.timings |= {"scoring_seconds": seconds, "pairs_per_second": sums.rows / seconds}


def _judged(prompts: list[dict], read: Callable[[str], str]) -> list[dict]:
    """Rows of a rollouts table with what is judged of each response as its text."""
    return [
        prompt | {"responses": [response | {"text": read(response["text"])} for response in prompt["responses"]]}
        for prompt in prompts
    ]


def _rows(metadata: pq.FileMetaData) -> int:
    """Ordered pairs of responses in a rollouts file, from its footer."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    responses = sum(column.num_values for column in columns if column.path_in_schema == _RESPONSE_ID)
    return responses * (responses - metadata.num_rows) // max(1, metadata.num_rows)


class ScoreSums:
    """Sums over the windows of a shard."""

    def __init__(self) -> None:
        self.rows = self.unique_rows = self.truncated_rows = 0
        self.order_gap = 0.0
        self.judge: Counter[str] = Counter()

    def facts(self, *, prompts: int) -> ScoreFacts:
        """All of them, of so many prompts."""
        return ScoreFacts(
            prompts=prompts,
            rows=self.rows,
            unique_rows=self.unique_rows,
            truncated_rows=self.truncated_rows,
            order_bias=self.order_gap / self.rows,
            judge=dict(self.judge),
        )


def score_window(
    prompts: Sequence[dict],
    oracle: PreferenceOracle,
    sums: ScoreSums,
    report: Callable[[int], None] = lambda done: None,
) -> pa.Table:
    """Score prompts (rows of a rollouts table) in one call of the oracle.

    Raises:
        UserError: the oracle returned a logit that is not finite; its prompt is named.
    """
    k = len(prompts[0]["responses"])
    orders = list(itertools.permutations(range(k), 2))
    rows = [
        Row(prompt["prompt"], prompt["responses"][i]["text"], prompt["responses"][j]["text"], conversation)
        for prompt in prompts
        for conversation in (turns(prompt["messages"]),)
        for i, j in orders
    ]
    preferences = oracle.compare(rows, lambda done: report(done // len(orders)))
    logits = preferences.logits_R.reshape(len(prompts), len(orders))
    refuse_not_finite(logits, [prompt["prompt_id"] for prompt in prompts])

    first, second = (np.array(side) for side in zip(*orders, strict=True))
    logits_NKK = np.zeros((len(prompts), k, k), dtype=np.float32)
    logits_NKK[:, first, second] = logits
    truncated_N = preferences.truncated_R.reshape(logits.shape).sum(axis=1, dtype=np.int32)
    sums.rows += len(rows)
    sums.unique_rows += preferences.unique_rows
    sums.judge.update(preferences.facts)
    sums.truncated_rows += int(truncated_N.sum())
    sums.order_gap += float(np.abs(logits_NKK + logits_NKK.swapaxes(1, 2))[:, first, second].sum(dtype=np.float64))
    return SCORES.of(
        {
            "prompt_id": [prompt["prompt_id"] for prompt in prompts],
            "response_ids": [[response["response_id"] for response in prompt["responses"]] for prompt in prompts],
            "logits": logits_NKK.tolist(),
            "truncated_rows": truncated_N,
        }
    )


def refuse_not_finite(logits_NX: np.ndarray, prompt_ids: Sequence[str]) -> None:
    """Raise a UserError that names the first prompt with a NaN or infinite logit."""
    broken = ~np.isfinite(logits_NX).all(axis=tuple(range(1, logits_NX.ndim)))
    if broken.any():
        raise UserError(
            f"prompt {prompt_ids[int(broken.argmax())]}: the oracle's logits are not finite "
            f"({counted(int(broken.sum()), 'prompt')} in all); check the oracle's checkpoint and precision"
        )
