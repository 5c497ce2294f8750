"""Drive the real loop of the quickstart, cut small: the same stages, models and layout, fewer prompts."""

import subprocess
import sys
from pathlib import Path

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import open_artifact

REPOSITORY = Path(__file__).parents[2]
SMALL = (
    "experiment=quickstart",
    "iterations=1",
    "data.prompts_per_iteration=24",
    "data.held_out_count=12",
    "train.global_batch_size=8",
    "train.train_epochs=1",
)


def command(run: RunLayout, *overrides: str) -> list[str]:
    """Command line of a small run in the directory of `run`."""
    place = (f"runs_dir={run.root.parent}", f"name={run.root.name}")
    return [sys.executable, "-m", "nemo_sspo.cli", "run", *SMALL, *place, *overrides]


def start(run: RunLayout, *overrides: str) -> subprocess.Popen[str]:
    """Start a small run in a process group of its own."""
    return subprocess.Popen(
        command(run, *overrides),
        cwd=REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def finish(run: RunLayout, *overrides: str, timeout: float = 600) -> str:
    """Run to the end and return what it printed."""
    done = subprocess.run(
        command(run, *overrides),
        cwd=REPOSITORY,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def digests(run: RunLayout) -> dict[str, str]:
    """Content identity of every published artifact, fully verified."""
    manifests = sorted(run.root.glob("**/manifest.json"))
    return {
        str(path.parent.relative_to(run.root)): open_artifact(path.parent, every_hash=True).manifest.digest
        for path in manifests
    }
