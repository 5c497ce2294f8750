"""The manual's pages, and the commands that stand in their code blocks."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


READ_ELSEWHERE = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "slurm/README.md", "benchmarks/gpu/README.md")
]
"""What else has commands."""
_LINE = re.compile(
    r"^(?: {4})?(?:sbatch slurm/one_node\.sbatch|(?:srun .*|docker run .*)?nemo-sspo) (.+)$", re.MULTILINE
)


def settings_of_commands(page: Path) -> list[str]:
    """The names in `name=value` of every command in a page's blocks, fenced or indented."""
    found = (words.partition(" #")[0].split() for words in _LINE.findall(page.read_text().replace("\\\n", " ")))
    return [
        word.partition("=")[0].lstrip("+~") for words in found for word in words if re.match(r"[+~]?[a-z_.]+=", word)
    ]


def blocks(page: Path, language: str) -> list[str]:
    """The page's fenced blocks of a language."""
    return [body for found, body in _FENCE.findall(page.read_text()) if found == language]


def commands() -> list[tuple[str, str]]:
    """(page, line) of every command of nemo-sspo in a block of bash."""
    pages = ((page, block.replace("\\\n", " ")) for page in PAGES for block in blocks(page, "bash"))
    lines = ((page.name, " ".join(line.split())) for page, block in pages for line in block.splitlines())
    return [(page, line) for page, line in lines if line.startswith("nemo-sspo ")]
