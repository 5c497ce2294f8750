"""What a paper's YAML files declare: runs, checkpoints, and tables of policies by measures with their numbers."""

from typing import Annotated, Literal, NamedTuple

from pydantic import Field, PositiveInt, model_validator

from nemo_sspo.config.base import Frozen

RUN_PREFIX = "reproduce-"
"""A run of a table is named so, and as its paper declares it: both papers share those of equal names."""
Category = Literal["writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities"]


class Checkpoint(Frozen):
    hub: str
    """Hugging Face id."""
    model: str
    """The choice of ``model=`` whose engine and chat template settings it is sampled with."""
    gated: bool = False
    """Whether its weights want an account that has accepted a licence."""


class Column(Frozen):
    name: str
    iteration: PositiveInt | None = None
    """What ``{iteration}`` in a row's policy stands for."""


class AlpacaEvalColumn(Column):
    measure: Literal["alpaca-eval"]
    value: Literal["length_controlled_winrate", "win_rate", "avg_length"]
    annotator: str
    """AlpacaEval's name of the annotators' settings."""


class MtBenchColumn(Column):
    measure: Literal["mt-bench"]
    value: Literal["turn_1", "turn_2", "average"] | Category


class ArenaHardColumn(Column):
    measure: Literal["arena-hard"]
    value: Literal["score"]


class LmEvalColumn(Column):
    measure: Literal["lm-eval"]
    value: str
    """A task of the harness, or ``average`` of the columns before it."""


class CostColumn(Column):
    measure: Literal["cost"]
    value: Literal["seconds", "minutes", "gpu_memory_gb"]
    stages: tuple[str, ...]
    """Of a phase."""


class MarginColumn(Column):
    measure: Literal["margin"]
    low: float
    high: float
    """Similarities in [low, high)."""


class HeldOutColumn(Column):
    measure: Literal["held-out"]
    value: Literal["win_vs_base", "win_vs_previous"]


class PairRMColumn(Column):
    measure: Literal["pairrm"]
    value: Literal["win_rate"]
    opponent: str


class AnswerColumn(Column):
    measure: Literal["answer"]
    value: Literal["text"]


AnyColumn = Annotated[
    AlpacaEvalColumn
    | MtBenchColumn
    | ArenaHardColumn
    | LmEvalColumn
    | CostColumn
    | MarginColumn
    | HeldOutColumn
    | PairRMColumn
    | AnswerColumn,
    Field(discriminator="measure"),
]


class Row(Frozen):
    name: str
    policy: str | None = None
    """A checkpoint, or ``run@iteration``; None where neither weights nor a way to them are public."""
    best_of: PositiveInt | None = None
    """Answers per question of which the oracle keeps one."""
    gate: str | None = None
    """The gate behind a margin: ``none``, or ``configured``."""
    published: tuple[float | None, ...]
    """One number per column; null where the paper prints none."""


class Table(Frozen):
    title: str
    place: str
    """Where in the paper it is discussed."""
    note: str = ""
    """What its reader should know: what is inferred, what cannot be had."""
    choose: str | None = None
    """The column by whose largest number a row is chosen."""
    columns: tuple[AnyColumn, ...]
    rows: tuple[Row, ...]

    @model_validator(mode="after")
    def _has_a_number_for_every_column(self) -> "Table":
        for row in self.rows:
            if len(row.published) != len(self.columns):
                raise ValueError(f"{row.name}: {len(row.published)} numbers for {len(self.columns)} columns")
        if self.choose is not None and self.choose not in [column.name for column in self.columns]:
            raise ValueError(f"choose: no column {self.choose}")
        return self


class Paper(Frozen):
    title: str
    arxiv: str
    runs: dict[str, tuple[str, ...]]
    """Overrides by name."""
    checkpoints: dict[str, Checkpoint]


class Policy(NamedTuple):
    """Whom a cell is about."""

    name: str
    """Of a run or of a checkpoint."""
    iteration: int | None
    """None of a checkpoint."""

    def __str__(self) -> str:
        return self.name if self.iteration is None else f"{self.name}@{self.iteration}"


def policy_of(text: str, iteration: int | None = None) -> Policy:
    """The policy that a row or an opponent names; `iteration` is its column's."""
    name, at, number = text.format(iteration=iteration).partition("@")
    return Policy(name, int(number) if at else None)
