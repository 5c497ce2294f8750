"""Stand-ins for Slurm's commands. sbatch writes down how it was called; squeue prints the file `queue`."""

import os
from pathlib import Path

from nemo_sspo.launch.slurm.commands import mark

_SBATCH = """#!/bin/bash
printf '%s\\0' "$@" >>calls; printf '\\n' >>calls; env >environment
count=$(wc -l <calls); ((count < ${FAIL_AT:-99})) || { echo "sbatch: error: invalid account" >&2; exit 1; }
echo $((100 + count))
"""


MAX_ARRAY_SIZE = 5


def install(folder: Path) -> None:
    """sbatch, squeue, scontrol and scancel below `folder`/bin."""
    (folder / "bin").mkdir()
    (folder / "bin" / "sbatch").write_text(_SBATCH)
    (folder / "bin" / "sbatch").chmod(0o755)
    stand_in(folder, "squeue", "[[ ! -e queue ]] || cat queue")
    stand_in(folder, "scontrol", f'[[ "$*" == "show config" ]] && echo "MaxArraySize            = {MAX_ARRAY_SIZE}"')
    stand_in(folder, "scancel", "echo $* >>cancelled; rm -f queue")


def calls(folder: Path) -> dict[str, list[str]]:
    """Arguments of each call of sbatch, by the script's name."""
    lines = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
    words = [line.split("\0")[:-1] for line in lines]
    return {os.path.basename(call[-1]): call for call in words}


def option(call: list[str], name: str) -> str | None:
    return next((word.partition("=")[2] for word in call if word.startswith(f"--{name}=")), None)


def stand_in(folder: Path, name: str, text: str) -> None:
    """Another of Slurm's commands."""
    (folder / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
    (folder / "bin" / name).chmod(0o755)


def queue(run: Path, *lines: str) -> None:
    """What squeue will print; ``{}`` stands for the run's mark."""
    with open("queue", "w") as file:
        file.writelines(line.replace("{}", mark(run)) + "\n" for line in lines)
