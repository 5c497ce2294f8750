"""A measured table for people."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from nemo_sspo.commands.terminal import print_wide, say, table_of

if TYPE_CHECKING:
    from nemo_sspo.reproduce.declarations import Table
    from nemo_sspo.reproduce.show import Measured


def show_table(console: Console, table: "Table", measured: "Sequence[Sequence[Measured]]") -> None:
    from nemo_sspo.reproduce.show import chosen_row, reasons

    rows = [(row.name, *(cell.text for cell in cells)) for row, cells in zip(table.rows, measured, strict=True)]
    print_wide(table_of(("ours / published", *(column.name for column in table.columns)), rows), console)
    for reason in reasons(measured):
        say(console, f"- {reason}", hanging=2)
    if table.choose is not None:
        chosen = chosen_row(table, measured)
        say(console, f"chosen by {table.choose}: {chosen or 'not before all rows have it'}")
    for text in (cell for row in measured for cell in row if isinstance(cell.found, str)):
        say(console, f"{text.cell.row.name}:", "bold")
        say(console, str(text.found))
    sys.stdout.flush()
