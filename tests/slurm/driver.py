"""Drive one run on the test cluster through the command line, and look at what came of it."""

import json
from collections.abc import Sequence
from pathlib import Path

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.store import is_published, open_artifact
from nemo_sspo.launch.slurm.commands import live_jobs, scancel
from nemo_sspo.launch.slurm.job_record import Event, events, submissions
from nemo_sspo.launch.slurm.sbatch import RunPaths
from tests.slurm.cluster import REPOSITORY, SlurmCluster
from tests.waiting import wait_until

SMALL = (
    "experiment=quickstart",
    "cluster=slurm_cpu",
    "iterations=1",
    "rollout.shards=2",
    "cluster.signal_seconds=30",
    "cluster.startup_seconds=5",
    # Two slots in all: this host has few cores, the nodes are four.
    "cluster.options={licenses: slot}",
)


class SlurmRun:
    """A run in its own directory."""

    def __init__(self, slurm: SlurmCluster, root: Path, overrides: Sequence[str], behaviour: Path) -> None:
        self.slurm = slurm
        self.layout = RunLayout(root)
        self.place = RunPaths(root, REPOSITORY)
        escaped = str(root.parent).replace("'", "\\'")
        self._overrides = [*SMALL, f"runs_dir='{escaped}'", f"name={root.name}", *overrides]
        self._behaviour = behaviour

    def behave(self, **how: str) -> None:
        """Have the next attempt at a step behave so; with a ``!``, every one. ``__`` stands for a dot."""
        for step, behaviour in how.items():
            (self._behaviour / step.replace("__", ".")).write_text(behaviour)

    def stop_misbehaving(self) -> None:
        """Have every attempt succeed from now on."""
        for path in self._behaviour.iterdir():
            path.unlink()

    def seen(self, step_id: str, task: int) -> dict[str, str | None]:
        """Environment variables that one task of a step saw."""
        return json.loads((self._behaviour / f"{step_id}.{task}.seen").read_text())

    def submit(self, *extra: str) -> int:
        """``nemo-sspo submit``; its exit code."""
        return cli.main(["submit", *self._overrides, *extra])

    def command(self, name: str, *extra: str) -> int:
        """``nemo-sspo <name> <run directory>``; its exit code."""
        return cli.main([name, str(self.layout.root), *extra])

    def status(self, capsys) -> dict[str, dict]:
        """What ``nemo-sspo status --json`` tells, by step."""
        capsys.readouterr()
        assert self.command("status", "--json") == 0
        return {row["step"]: row for row in json.loads(capsys.readouterr().out)}

    def wait(self, seconds: float = 280) -> None:
        """Until Slurm has no job of the run left."""
        wait_until(lambda: not live_jobs(self.layout.root), seconds, f"the end of the jobs of {self.layout.root.name}")

    def wait_for(self, step_id: str, restart: int = 0, seconds: float = 60) -> str:
        """Until the attempt after so many restarts of a step works; its job's id."""

        def works() -> bool:
            path = self.layout.progress(step_id)
            begun = [event for event in self.events(step_id) if event.event == "start" and event.restart >= restart]
            return bool(begun) and path.exists() and path.stat().st_mtime >= begun[-1].at

        wait_until(works, seconds, f"attempt {restart} at {step_id}")
        return self.events(step_id)[-1].job

    def events(self, step_id: str) -> list[Event]:
        """What the job's script wrote down about a step."""
        return events(self.place, step_id)

    def history(self, step_id: str) -> list[str]:
        """The names of a step's events."""
        return [event.event for event in self.events(step_id)]

    def submitted(self) -> list[str]:
        """Names of the jobs that were submitted, in order."""
        return [item.job for item in submissions(self.place)]

    def log(self, step_id: str) -> str:
        """Everything that all attempts at a step printed."""
        paths = sorted(self.layout.log(step_id, "1").parent.glob(f"{step_id}.*.log"))
        return "\n".join(path.read_text(errors="replace") for path in paths)

    def is_published(self, stage: str, iteration: int = 1, shard: int | None = None) -> bool:
        """Whether a step's artifact is there."""
        return is_published(self.layout.artifact(stage, iteration, shard))

    def digests(self) -> dict[str, str]:
        """Content identity of every published artifact, fully verified."""
        root = self.layout.root
        return {
            str(path.parent.relative_to(root)): open_artifact(path.parent, every_hash=True).manifest.digest
            for path in sorted(root.glob("**/manifest.json"))
        }

    def cancel(self) -> None:
        """End what is left of it."""
        scancel(list({job.submission for job in live_jobs(self.layout.root)}))
        self.wait(30)
