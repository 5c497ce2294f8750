"""Stand-ins for the stages on the test cluster, behind the real step runner.

A file of FAKE_BEHAVIOUR named after a step says how its next attempt behaves (with a ``!``: every attempt): ``crash``,
``refuse`` (bad input), ``wait`` (until it is ended), ``save`` (waits, and when told to stop saves and leaves), ``last``
(publishes long after its other tasks have ended), ``stop`` (ends the run early).
"""

import importlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from nemo_sspo.artifacts.layout import step_id
from nemo_sspo.errors import Interrupted, UserError
from nemo_sspo.stages import __main__ as step_runner
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.runner.registry import STAGES
from nemo_sspo.stages.runner.slurm_task import is_leader
from tests.launch import fake_stages
from tests.waiting import wait_until

LONGER_THAN_WAIT_TIME = 6
"""Seconds; the test cluster's WaitTime is 2 s."""
SEEN = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "CUDA_VISIBLE_DEVICES", "SLURM_NTASKS")


def run(context: StageContext) -> None:
    """Publish what the fake stage of the local runner would, or behave otherwise."""
    shard = context.shard if STAGES[context.stage].sharded else None
    name = step_id(context.stage, context.iteration, shard)
    _write_what_is_seen(name)
    if not is_leader():
        return
    _wait_for_the_other_tasks(name)
    how = _take(Path(os.environ["FAKE_BEHAVIOUR"]) / name)
    context.progress.update(1, 2, unit="halves", note="working")
    if how == "refuse":
        raise UserError("prompts.jsonl line 3: not JSON")
    if how == "crash":
        raise RuntimeError("matrix is singular")
    if how == "save":
        signal.signal(signal.SIGUSR1, _save)
    if how in ("save", "wait"):
        time.sleep(300)
    if how == "last":
        time.sleep(LONGER_THAN_WAIT_TIME)
    fake_stages.run(context)
    if how == "stop":
        context.output.facts = fake_stages.no_facts(context.stage, stop="nobody wins")


def _write_what_is_seen(name: str) -> None:
    seen = {variable: os.environ.get(variable) for variable in SEEN}
    task = os.environ.get("RANK", os.environ.get("NODE_RANK", "0"))
    (Path(os.environ["FAKE_BEHAVIOUR"]) / f"{name}.{task}.seen").write_text(json.dumps(seen))


def _wait_for_the_other_tasks(name: str) -> None:
    """A real stage does so in its first collective."""
    tasks = int(os.environ.get("WORLD_SIZE", os.environ.get("NODE_COUNT", "1")))
    folder = Path(os.environ["FAKE_BEHAVIOUR"])
    wait_until(lambda: len(list(folder.glob(f"{name}.*.seen"))) >= tasks, 300)


def _take(path: Path) -> str:
    if not path.exists():
        return ""
    how = path.read_text()
    if not how.endswith("!"):
        path.unlink()
    return how.removesuffix("!")


def _save(*_: object) -> None:
    raise Interrupted("saved after step 1 of 2")


if __name__ == "__main__":
    importlib.import_module = lambda name: SimpleNamespace(run=run)
    sys.exit(step_runner.main())
