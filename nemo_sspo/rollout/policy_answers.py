"""The policy as a judge that chooses between one-token answers. Legend: Q questions, C answers, T tokens."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.config.engines import VllmEngine as VllmSettings
from nemo_sspo.rollout.protocol import OnProgress
from nemo_sspo.rollout.tokenizer import load_policy_tokenizer, prompt_token_ids
from nemo_sspo.rollout.vllm_engine import VllmEngine
from nemo_sspo.tokens.library import token_ids_of
from nemo_sspo.tokens.single_tokens import single_tokens


class PolicyAnswers:
    """A policy in vLLM that gives the log-probs of answers of one token."""

    def __init__(
        self,
        policy: str,
        settings: VllmSettings,
        *,
        seed: int,
        answers: Sequence[str],
        longest: int,
        template_arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Load `policy` for questions of up to `longest` tokens.

        Raises:
            UserError: the policy cannot be loaded, or its tokenizer splits an answer.
        """
        self._tokenizer = load_policy_tokenizer(policy, template_arguments)
        encode = partial(token_ids_of, self._tokenizer)
        self._spellings = [single_tokens(encode, self._tokenizer.decode, policy, answer) for answer in answers]
        processed = settings.model_copy(update={"extra": settings.extra | {"logprobs_mode": "processed_logprobs"}})
        self._seed = seed
        self._engine = VllmEngine(policy, processed, seed=seed, max_model_len=longest + 1, stop_token_ids=[])

    def token_ids(self, question: str) -> list[int]:
        """`question` as the user's only message under the chat template, generation prompt included."""
        return prompt_token_ids(self._tokenizer, [{"role": "user", "content": question}])

    def answer_logprobs(self, questions: Sequence[list[int]], on_progress: OnProgress) -> NDArray[np.float64]:
        """Log-probs [Q, C] of each answer as the first token, normalized over the answers; spellings are summed."""
        self._engine.begin(self._seed)  # an answer does not depend on earlier questions
        allowed = [token for tokens in self._spellings for token in tokens]
        logprobs_QT = self._engine.first_token_logprobs(questions, allowed, on_progress)
        ends = np.cumsum([len(tokens) for tokens in self._spellings])[:-1]
        groups = np.split(logprobs_QT, ends, axis=1)
        return np.stack([np.logaddexp.reduce(group, axis=1) for group in groups], axis=1)
