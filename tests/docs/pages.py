"""The manual's pages, and the commands that stand in their code blocks."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The page's fenced blocks of a language."""
    return [body for found, body in _FENCE.findall(page.read_text()) if found == language]


def commands() -> list[tuple[str, str]]:
    """(page, line) of every command of nemo-sspo in a block of bash."""
    lines = ((page.name, line) for page in PAGES for block in blocks(page, "bash") for line in block.splitlines())
    return [(page, line) for page, line in lines if line.startswith("nemo-sspo ")]
