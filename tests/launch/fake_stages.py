"""Stand-ins for the stages, behind the real step runner: what they publish depends on their inputs alone.

FAKE_STAGES is a JSON object ``{step id: behaviour}``: ``refuse`` (bad input), ``crash``, ``silent`` (ends without an
artifact), ``hang``, ``after NAME`` (waits for a file of the run), a number (of seconds to take), or ``stop`` (ends the
run early).
"""

import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

from nemo_sspo.artifacts.facts.base import Facts
from nemo_sspo.artifacts.layout import step_id
from nemo_sspo.errors import UserError
from nemo_sspo.stages import __main__ as step_runner
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.runner.registry import STAGES
from tests.waiting import wait_until


def run(context: StageContext) -> None:
    """Publish one line that names the step and the content of its inputs."""
    shard = context.shard if STAGES[context.stage].sharded else None
    name = step_id(context.stage, context.iteration, shard)
    context.progress.update(1, 2, unit="halves", note="working")
    how = json.loads(os.environ.get("FAKE_STAGES", "{}")).get(name)
    _behave(how, context.layout.root)
    context.output.facts = no_facts(context.stage, **({"stop": "nobody wins"} if how == "stop" else {}))
    inputs = sorted(artifact.manifest.digest for group in context.inputs.values() for artifact in group)
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
    (context.output.path / "content.txt").write_text(f"{name} {context.seed} {' '.join(inputs)}\n")
    (context.output.path / "volatile").mkdir()
    (context.output.path / "volatile" / "devices").write_text(devices)
    context.output.rows = 1


def no_facts(stage: str, **counts: str) -> Facts:
    """What a stage reports that knows nothing, but for these."""
    return STAGES[stage].facts.of(counts, Path("manifest.json"))


def _behave(how: str | float | None, run: Path) -> None:
    if how == "refuse":
        raise UserError("prompts.jsonl line 3: not JSON")
    if how == "crash":
        print("\n".join(f"line {number}" for number in range(40)))
        raise RuntimeError("matrix is singular")
    if how == "silent":
        os._exit(0)
    if how == "hang":
        grandchild = ["sleep", "300"]
        subprocess.Popen(grandchild, start_new_session=True)
        time.sleep(300)
    if isinstance(how, str) and how.startswith("after "):
        wait_until((run / how.removeprefix("after ")).exists, 300)
    elif isinstance(how, int | float):
        time.sleep(how)


if __name__ == "__main__":
    importlib.import_module = lambda name: SimpleNamespace(run=run)
    sys.exit(step_runner.main())
