from __future__ import annotations

import ast
import re
from pathlib import Path

import nemo_sspo.megatron

PACKAGE = Path(nemo_sspo.megatron.__file__).parent
LEGEND = set(re.findall(r"\b([A-Z])(?=  |, [A-Z] )", nemo_sspo.megatron.__doc__ or ""))
SHAPED = re.compile(r"_?[a-z][a-z0-9_]*_([A-Z][A-Z0-9]*)")


def shapes(source: str) -> set[str]:
    """The suffixes of its variables, arguments and attributes."""
    names = {
        name
        for node in ast.walk(ast.parse(source))
        for field in ("id", "arg", "attr")
        if isinstance(name := getattr(node, field, None), str)
    }
    return {found[1] for name in names if (found := SHAPED.fullmatch(name))}


def test_the_legend_is_read() -> None:
    assert set("BSTPRNCHFVAGQDIJ") == LEGEND
    assert shapes("def f(self, a_BS): b_P2 = self._c_X; MOST_ROWS = iter_n") == {"BS", "P2", "X"}


def test_every_letter_of_a_shape_is_in_the_legend() -> None:
    for file in PACKAGE.rglob("*.py"):
        unknown = {shape for shape in shapes(file.read_text()) if set(re.sub("[0-9]", "", shape)) - LEGEND}
        assert not unknown, f"{file.relative_to(PACKAGE)}: {unknown}"
