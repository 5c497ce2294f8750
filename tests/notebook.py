"""Run code of a page as Python, in one namespace: a notebook's cells in their order, or a source text."""

import ast
import json
from pathlib import Path
from typing import Any


def run_notebook(path: Path) -> dict[str, Any]:
    """The namespace at a notebook's end; no kernel is needed for that."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(json.loads(path.read_text())["cells"]):
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [], f"{path}: cell {number} is stored with its output"
            run_source("".join(cell["source"]), f"{path.name}[{number}]", namespace)
    return namespace


def run_source(source: str, name: str, namespace: dict[str, Any] | None = None) -> dict[str, Any]:
    """The namespace at its end. The values of expressions are formatted, as a notebook would show the last one."""
    namespace = {"__name__": "__main__"} if namespace is None else namespace
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.Expr):
            assert repr(eval(compile(ast.Expression(statement.value), name, "eval"), namespace))
        else:
            exec(compile(ast.Module([statement], []), name, "exec"), namespace)
    return namespace
