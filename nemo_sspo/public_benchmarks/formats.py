"""Rows of published question files and answer files. Questions may have fields that are not asked for; answers not."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt


class _Question(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True)


class _Written(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class AlpacaEvalQuestion(_Question):
    """alpaca_eval.json, a list of 805; outputs of a reference model stand beside the instructions."""

    instruction: str = Field(min_length=1)
    dataset: str
    datasplit: str | None = None


class AlpacaEvalOutput(_Written):
    """model_outputs.json, a list in the order of the questions."""

    dataset: str
    instruction: str
    output: str
    generator: str
    datasplit: str | None = None


class OwnQuestion(_Question):
    """a file of one's own questions, one answer to each; results are listed by category"""

    prompt: str = Field(min_length=1, pattern=r"\S")
    category: str | None = Field(default=None, min_length=1)


class MtBenchQuestion(_Question):
    """question.jsonl of FastChat's llm_judge."""

    question_id: int
    category: str
    turns: tuple[str, ...] = Field(min_length=1, strict=False)


class MtBenchChoice(_Written):
    index: NonNegativeInt
    turns: list[str]


class MtBenchAnswer(_Written):
    """A line of model_answer/<model>.jsonl."""

    question_id: int
    answer_id: str
    model_id: str
    choices: list[MtBenchChoice] = Field(min_length=1)
    tstamp: float


class ArenaHardTurn(_Question):
    content: str = Field(min_length=1)


class ArenaHardV01Question(_Question):
    """question.jsonl of Arena-Hard v0.1, as it was first released."""

    question_id: str
    category: str
    turns: tuple[ArenaHardTurn, ...] = Field(min_length=1, strict=False)


class ArenaHardV01Content(_Written):
    content: str
    token_len: NonNegativeInt


class ArenaHardV01Choice(_Written):
    index: NonNegativeInt
    turns: list[ArenaHardV01Content]


class ArenaHardV01Answer(_Written):
    """A line of model_answer/<model>.jsonl for those questions."""

    question_id: str
    answer_id: str
    model_id: str
    choices: list[ArenaHardV01Choice] = Field(min_length=1)
    tstamp: float


class ArenaHardV2Question(_Question):
    """question.jsonl of Arena-Hard v2.0, and of v0.1 since then."""

    uid: str
    category: str
    prompt: str = Field(min_length=1)


class ArenaHardText(_Written):
    answer: str


class ArenaHardMessage(_Written):
    role: Literal["system", "user", "assistant"]
    content: str | ArenaHardText


class HeaderCount(_Written):
    h1: NonNegativeInt
    h2: NonNegativeInt
    h3: NonNegativeInt
    h4: NonNegativeInt
    h5: NonNegativeInt
    h6: NonNegativeInt


class ListCount(_Written):
    ordered: NonNegativeInt
    unordered: NonNegativeInt


class BoldCount(_Written):
    asterisks: NonNegativeInt = Field(alias="**")
    underscores: NonNegativeInt = Field(alias="__")


class ArenaHardMetadata(_Written):
    """What the style control reads: length and Markdown of the answer outside of code blocks."""

    token_len: NonNegativeInt
    header_count: HeaderCount
    list_count: ListCount
    bold_count: BoldCount


class ArenaHardV2Answer(_Written):
    """A line of model_answer/<model>.jsonl; files of v0.1 that were converted have no metadata."""

    uid: str
    ans_id: str
    model: str
    messages: list[ArenaHardMessage] = Field(min_length=1)
    tstamp: float
    metadata: ArenaHardMetadata | None = None
