"""The interface between preference oracles and stages.

Legend: R rows. A row is (prompt, first response, second response), in the order in which the oracle is shown them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

OnProgress = Callable[[int], None]
"""Called with the number of rows that are done."""


def silent(done: int) -> None:
    """Report no progress."""


class Turn(NamedTuple):
    """One message of a conversation."""

    role: str
    content: str


class Row(NamedTuple):
    """One comparison. Equal rows are one question."""

    prompt: str
    """The conversation before the response as one text: an oracle without a chat template reads this."""
    first: str
    second: str
    turns: tuple[Turn, ...] = ()
    """The same conversation message by message, for oracles with a chat template; empty where only text is known."""

    @property
    def conversation(self) -> tuple[Turn, ...]:
        """The messages before the response; a prompt of unknown messages is one of the user's."""
        return self.turns or (Turn("user", self.prompt),)


@dataclass(frozen=True, slots=True)
class Preferences:
    """Raw judgements of R rows."""

    logits_R: NDArray[np.float32]
    """> 0 favours the response shown first. It depends on the order: l(a, b) is not -l(b, a) in general."""
    truncated_R: NDArray[np.bool_]
    """Whether the oracle saw less than the whole of some text of the row."""
    unique_rows: int
    """Rows that were really computed; equal rows are computed once."""
    facts: Mapping[str, int] = field(default_factory=dict)
    """What the oracle counted over these rows, to be summed over calls (tokens paid, answers that made no sense)."""


class PreferenceOracle(Protocol):
    """Judges rows independently of each other: a row's logit does not depend on its neighbours.

    A call is synchronous; an oracle that waits for a network runs its own event loop inside. Expensive answers
    go to the resources' journal, so that a restarted step asks only the unanswered questions.
    """

    def compare(self, rows: Sequence[Row], on_progress: OnProgress = ...) -> Preferences:
        """Judge `rows`; `on_progress` gets the number of finished rows."""
        ...


class AnswerModel(Protocol):
    """A language model that is asked to choose between answers of one token: the rollout engine, seen by a judge."""

    def token_ids(self, question: str) -> list[int]:
        """`question` as the user's only message under the chat template, generation prompt included."""
        ...

    def answer_logprobs(self, questions: Sequence[list[int]], on_progress: OnProgress) -> NDArray[np.float64]:
        """Log-probs [Q, C] of each answer as the first token, normalized over the answers."""
        ...


@dataclass(frozen=True)
class OracleResources:
    """Resources that a step gives its oracle, beyond the oracle's own settings."""

    journal: Path | None = None
    """File to which a paying oracle appends every answer; the other files of its folder are those of the run's other
    steps. None keeps nothing."""
    open_policy: Callable[[Sequence[str], int], AnswerModel] | None = None
    """Loads the policy for questions with given one-token answers and a given longest question; None without one."""
    rows: int = 0
    """Rows that the step will ask about in all, over several calls; 0 where each call is all that is planned."""
