"""Run a notebook's cells as Python, in their order and in one namespace: no kernel is needed for that."""

import ast
import json
from pathlib import Path
from typing import Any


def run_notebook(path: Path) -> dict[str, Any]:
    """The namespace at its end. The value of a cell's last expression is formatted, as a notebook would show it."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] != "code":
            continue
        assert cell["outputs"] == [], f"{path}: cell {number} is stored with its output"
        body = ast.parse("".join(cell["source"])).body
        last = body.pop() if isinstance(body[-1], ast.Expr) else None
        exec(compile(ast.Module(body, []), f"{path.name}[{number}]", "exec"), namespace)
        if last is not None:
            shown = eval(compile(ast.Expression(last.value), f"{path.name}[{number}]", "eval"), namespace)
            assert repr(shown)
    return namespace
