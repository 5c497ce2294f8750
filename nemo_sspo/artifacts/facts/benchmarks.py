"""What is reported of a policy's answers to a public benchmark."""

from typing import Annotated

from nemo_sspo.artifacts.facts.base import Facts, Keys


class AnswerFacts(Facts):
    """Of answers that a judge is to read."""

    questions: int | None
    turns: int | None
    unfinished: int | None
    """Answers cut at the token limit."""
    no_room: int | None
    """Turns without an answer, because the dialogue filled the context."""
    empty: int | None


class TaskFacts(Facts):
    """Of lm-evaluation-harness: a score by task and metric."""

    scores: Annotated[dict[str, float], Keys("{}")]
