"""What a benchmark is to the stage that answers it and to the command that has it judged."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Question:
    """What one row of a questions file asks."""

    row: int
    """1-based."""
    turns: tuple[str, ...]
    """The user's messages, in turn; each follows the policy's answer to the one before."""
    category: str | None
    record: BaseModel
    """The row as it was read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the policy wrote in one turn."""

    text: str
    finish_reason: str
    """``stop``: it ended by itself; ``length``: it was cut; ``no room``: the conversation fills the policy's context,
    and the text is empty."""


@dataclass(frozen=True, slots=True)
class Writing:
    """Files written in addition to the answers."""

    model_name: str
    time: float
    """Unix time of the artifact that the policy is, so that equal answers are equal files."""
    count_tokens: Callable[[str], int]
    """Tokens of an answer, for benchmarks that control for length."""


@dataclass(frozen=True)
class Judge:
    """How a benchmark's own tool turns answers into scores."""

    tool: str
    """What has to be there, in words."""
    model: str
    """The policy's name."""
    key: str
    """Environment variable that holds the judge's key."""
    commands: tuple[tuple[str, ...], ...]
    directory: str | None = None
    """Where the commands run; None is anywhere."""
    answers: tuple[str, str] | None = None
    """A file, and where the tool expects it below `directory`."""
    settings: tuple[str, str] | None = None
    """A settings file of the tool below `directory` that must name the model, and where the changed one is written."""
    installed: bool = False


class Benchmark(Protocol):
    """One public benchmark."""

    tokenizer: str | None
    """The tiktoken encoding in which it counts the tokens of an answer; None where it counts none."""

    def questions(self, path: Path) -> list[Question]:
        """Read a questions file in the published format.

        Raises:
            UserError: it cannot be read; file, row and field are named.
        """
        ...

    def answers_file(self, model_name: str) -> str:
        """Name of the file that the benchmark's tool reads."""
        ...

    def write(self, questions: Sequence[Question], answers: Sequence[Sequence[Answer]], writing: Writing) -> str:
        """The text of that file: one row per question, with its answer to each turn."""
        ...

    def judge(self, questions: Sequence[Question], answers: Path, model_name: str, tool: Path | None) -> Judge:
        """How the answers are judged; `tool` is a checkout of the benchmark's repository."""
        ...
