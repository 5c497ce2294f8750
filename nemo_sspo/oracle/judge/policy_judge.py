"""The policy itself as the oracle (Self-Rewarding Language Models, arXiv 2401.10020), through the rollout engine.

The question of question.py is asked once for each order; the logit is log p(A) - log p(B) of the first token of
the answer, exact and without sampling. A question over the context is shortened: its longest text first, from the end.
"""

from collections.abc import Sequence

import numpy as np

from nemo_sspo.config.oracles import PolicyJudgeOracle
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.deduplicated import Deduplicated
from nemo_sspo.oracle.judge.question import ANSWERS, cut_row, question, read_template, refuse_over_context
from nemo_sspo.oracle.judge.ties import count_ties
from nemo_sspo.oracle.protocol import OnProgress, OracleResources, Preferences, Row, silent

_SHRINK = 0.95
"""Part of the proportional length that an over-long text is cut to, so that few attempts are needed."""


class PolicyJudge:
    """A policy behind the `PreferenceOracle` protocol."""

    def __init__(self, settings: PolicyJudgeOracle, resources: OracleResources | None = None) -> None:
        """Load the policy that `resources` opens."""
        if resources is None or resources.open_policy is None:
            raise UserError("oracle=policy_judge judges with the policy of a run; there is none here")
        self._template = read_template(settings.template)
        self._context = settings.context_tokens
        self._model = resources.open_policy(ANSWERS, settings.context_tokens)

    def compare(self, rows: Sequence[Row], on_progress: OnProgress = silent) -> Preferences:
        """See `PreferenceOracle.compare`."""
        texts = [Row(row.prompt, row.first, row.second) for row in rows]
        unique = Deduplicated(texts)
        fitted = [self._fit(row) for row in unique.items]
        logprobs_U2 = self._model.answer_logprobs(
            [token_ids for token_ids, _ in fitted], lambda done: on_progress(done * len(rows) // len(unique))
        )
        logits_U = (logprobs_U2[:, 0] - logprobs_U2[:, 1]).astype(np.float32)
        truncated_U = np.fromiter((cut for _, cut in fitted), dtype=np.bool_, count=len(fitted))
        places_R = unique.places(texts)
        facts = count_ties(unique.items, logits_U)
        return Preferences(logits_U[places_R], truncated_U[places_R], len(unique), facts)

    def _fit(self, row: Row) -> tuple[list[int], bool]:
        """The question's token ids within the context, and whether texts had to be cut for that."""
        token_ids = self._model.token_ids(question(self._template, row))
        limit = longest = max(map(len, row[:3]))
        while len(token_ids) > self._context:
            limit = int(limit * _SHRINK * self._context / len(token_ids))
            if limit == 0:
                refuse_over_context(self._context)
            token_ids = self._model.token_ids(question(self._template, cut_row(row, limit)))
        return token_ids, limit < longest
