"""What each choice of a group is, by the comment that its YAML begins with."""

from pathlib import Path

from nemo_sspo.config.load import choice_files, config_root

_PACKAGE = "# @package"


def groups(config_dir: Path | None = None) -> list[str]:
    """Names of the groups: the folders of the shipped configuration, and of the user's own."""
    roots = [config_root(), *([config_dir] if config_dir else [])]
    return sorted({file.parent.name for root in roots for file in root.glob("*/*.yaml")})


def choice_meanings(group: str, config_dir: Path | None = None) -> dict[str, str]:
    """By name; empty text where a file begins with no comment."""
    return {name: _first_comment(file) for name, file in choice_files(group, config_dir).items()}


def _first_comment(file: Path) -> str:
    said: list[str] = []
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith(_PACKAGE):
            said.append(line.lstrip("# "))
    return " ".join(said)
