"""What commands print for people: tables and texts as wide as the terminal, unbroken into a file or pipe."""

import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNBROKEN = 240


def plain(cell: object) -> Text:
    """A cell as it is: brackets in it are no markup."""
    return Text(str(cell))


def table_of(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A table without the columns in which every cell is empty; its first column, the names, stays unbroken."""
    used = [n for n in range(len(headings)) if n == 0 or any(str(row[n]) for row in rows)]
    table = Table(box=None, pad_edge=False)
    for n in used:
        table.add_column(headings[n], overflow="fold", no_wrap=n == 0)
    for row in rows:
        table.add_row(*(plain(row[n]) for n in used))
    return table


def print_wide(table: Table, console: Console | None = None) -> None:
    """Print a table."""
    console = console or Console()
    (console if console.is_terminal else Console(width=_UNBROKEN)).print(table, highlight=False)


def say(console: Console, text: str, style: str = "", *, indent: int = 0, hanging: int | None = None) -> None:
    """Print a text, broken between words; later lines are indented by `hanging`, or as the first."""
    width = console.width if console.is_terminal else len(text) + indent + 1
    margins = {"initial_indent": " " * indent, "subsequent_indent": " " * (indent if hanging is None else hanging)}
    for line in textwrap.wrap(text, width, **margins, break_on_hyphens=False):  # type: ignore[arg-type]
        console.print(line, style=style, markup=False, highlight=False, soft_wrap=True)
