"""Runs README's install lines for GPUs with pip, in a fresh environment and without installing: they give the pins.

python -m scripts.install_lines, with each Python that is to be tried. The line that compiles against an installed torch
is left out.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.pins import ROOT, pins


def readme_lines() -> list[list[str]]:
    """Arguments of `pip install` in the README, in its order."""
    text = (ROOT / "README.md").read_text()
    return [shlex.split(line, comments=True) for line in re.findall(r"^    pip install (.+)$", text, re.MULTILINE)]


def plain(pin: str) -> str:
    """`name==version` with the name as the index has it, and without a build's own label: +cpu, +cu128."""
    name, version = pin.partition("+")[0].split("==")
    return f"{re.sub(r'[-_.]+', '-', name).lower()}=={version}"


def resolve(python: Path, line: list[str], report: Path) -> set[str]:
    """What pip would install, as `name==version`, without this project."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report"]
    subprocess.run([*command, str(report), *line], cwd=ROOT, check=True)
    found = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    return {pin for item in found if not (pin := plain(f"{item['name']}=={item['version']}")).startswith("nemo-sspo==")}


def main() -> None:
    here = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder, "venv", "bin", "python")
        subprocess.run([sys.executable, "-m", "venv", str(python.parents[1])], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", "--upgrade", "pip"], check=True)
        for line in readme_lines():
            if "--no-build-isolation" in line:
                continue
            file = ROOT / line[line.index("-c") + 1]
            found = resolve(python, line, Path(folder, "report.json"))
            if other := found - set(map(plain, pins(file))):
                raise SystemExit(f"pip install {shlex.join(line)}, {here}: not pinned are {', '.join(sorted(other))}")
            print(f"pip install {shlex.join(line)}, {here}: {len(found)} packages, all pinned", flush=True)


if __name__ == "__main__":
    main()
