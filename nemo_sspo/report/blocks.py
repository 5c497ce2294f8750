"""What a page is put together from. The template draws each kind; every text in them is escaped there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import plotly.graph_objects as go

from nemo_sspo.report.facts.verdict import Finding
from nemo_sspo.report.frame import Frame

LISTED_ROWS = 500
"""Of a figure's numbers."""

Cell = str | int | float | None


@dataclass(frozen=True)
class Table:
    """Rows of text and numbers."""

    block: ClassVar[str] = "table"
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    title: str = ""
    note: str = ""
    folded: bool = False
    """Behind a line to click on."""


@dataclass(frozen=True)
class Plot:
    """A figure, what it shows in words, and its numbers."""

    block: ClassVar[str] = "plot"
    key: str
    title: str
    frame: Frame
    """The numbers that are drawn."""
    traces: Sequence[Any]
    """How they are drawn. Each trace's `meta` names its style in the theme's templates."""
    description: str
    """For those who do not see the figure: what it says, with numbers."""
    layout: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    height: int = 300
    """Pixels."""

    @property
    def figure(self) -> go.Figure:
        """The traces in their layout, without a template: the page's script adds the one of its colour scheme."""
        return go.Figure(data=list(self.traces), layout=go.Layout(template=go.layout.Template(), **self.layout))

    @property
    def table(self) -> Table:
        """The numbers, for those who want to read them."""
        shown = self.frame.thinned(LISTED_ROWS).spread()
        few = len(shown.rows) < len(self.frame.rows)
        note = f"{len(shown.rows)} of {len(self.frame.rows):,} rows, evenly spaced." if few else ""
        return Table(shown.names, shown.rows, note=note)


@dataclass(frozen=True)
class PlotGrid:
    """Small plots side by side."""

    block: ClassVar[str] = "grid"
    plots: Sequence[Plot]


@dataclass(frozen=True)
class Missing:
    """Says what is not there, and why."""

    block: ClassVar[str] = "missing"
    text: str


@dataclass(frozen=True)
class Note:
    """A remark."""

    block: ClassVar[str] = "note"
    text: str


@dataclass(frozen=True)
class Legend:
    """Which colour is which, for the plots that follow."""

    block: ClassVar[str] = "legend"
    names: Sequence[str]


@dataclass(frozen=True)
class Tile:
    """One headline number."""

    label: str
    value: str
    detail: str = ""
    state: str = ""
    """``good``, ``warn``, ``bad`` or none."""


@dataclass(frozen=True)
class Tiles:
    """Headline numbers side by side."""

    block: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Findings:
    """Warnings and passed checks with their rules."""

    block: ClassVar[str] = "findings"
    findings: Sequence[Finding]


@dataclass(frozen=True)
class Card:
    """Facts of one iteration."""

    title: str
    state: str
    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Cards:
    """Cards side by side."""

    block: ClassVar[str] = "cards"
    cards: Sequence[Card]


@dataclass(frozen=True)
class Browser:
    """Prompts to search and page through; the page's script fills it."""

    block: ClassVar[str] = "browser"
    prompts: Sequence[dict]
    note: str


@dataclass(frozen=True)
class SideBySide:
    """Answers of two policies to the same prompts."""

    block: ClassVar[str] = "side_by_side"
    title: str
    names: tuple[str, str]
    rows: Sequence[tuple[str, str, str, str]]
    """Prompt, remark and the two answers."""
    note: str


Block = Table | Plot | PlotGrid | Missing | Note | Legend | Tiles | Findings | Cards | Browser | SideBySide


@dataclass(frozen=True)
class Section:
    """A chapter of the page."""

    key: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A whole page."""

    title: str
    eyebrow: str
    subtitle: str
    sections: Sequence[Section]
    status: str = ""
    remarks: Sequence[str] = field(default_factory=tuple)
    """What could not be read."""
