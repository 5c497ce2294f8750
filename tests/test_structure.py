"""Tests share helpers by modules of helpers, and reach the package by its public names alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = "nemo_sspo"


def problems(path: Path) -> Iterator[str]:
    """Imports of another test module, and private names of the package: imported, read from a module, or patched."""
    bound: set[str] = set()
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
            bound |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names if is_ours(alias.name)}
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
            if is_ours(node.module or ""):
                bound |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and is_ours(node.value):
            modules = [node.value]
        else:
            continue
        for module in modules:
            if module.startswith("tests.") and any(part.startswith("test_") for part in module.split(".")):
                yield f"{path}:{node.lineno}: imports {module}"
            if is_ours(module) and any(map(is_private, module.split("."))):
                yield f"{path}:{node.lineno}: {module}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and root_of(node) in bound and is_private(node.attr):
            yield f"{path}:{node.lineno}: {ast.unparse(node)}"
        if isinstance(node, ast.Call) and len(node.args) > 1 and root_of(node.args[0]) in bound:
            name = node.args[1]
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and is_private(name.value):
                yield f"{path}:{node.lineno}: patches {name.value}"


def is_ours(module: str) -> bool:
    return module.split(".")[0] == PACKAGE


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def root_of(node: ast.expr) -> str | None:
    """`a` of `a.b.c`."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def test_private_names_and_other_tests_are_left_alone() -> None:
    found = [problem for path in sorted((ROOT / "tests").rglob("*.py")) for problem in problems(path)]
    assert not found, "\n".join(found)


def test_what_the_check_finds(tmp_path: Path) -> None:
    lines = (
        "from tests.stages.test_chain import settings",
        "from nemo_sspo.launch.plan import Plan, _order",
        "from nemo_sspo.launch import plan as planned; planned._order()",
        "from nemo_sspo.launch import plan; monkeypatch.setattr(plan, '_order', None)",
        "from nemo_sspo.launch.plan import Plan; patch.object(Plan, '_steps')",
        "patch.setattr('nemo_sspo.launch.plan._order', None)",
    )
    for line in lines:
        (tmp_path / "test_one.py").write_text(line)
        assert list(problems(tmp_path / "test_one.py")), line
    (tmp_path / "test_one.py").write_text("from tests.stages import runs; import torch._dynamo; self._order()")
    assert not list(problems(tmp_path / "test_one.py"))
