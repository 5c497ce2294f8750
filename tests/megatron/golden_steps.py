"""Do two checkouts train to the same bytes? Three steps of a small model, in every kind of layout, on forked ranks.

    python -m tests.megatron.golden_steps write FILE         reference log-probs, step logs and weights of this checkout
                                                             by NeMo; by another trainer: write FILE TRAINER
    python -m tests.megatron.golden_steps compare FILE FILE  names what differs first in each layout, or exits with 0
    python -m tests.megatron.golden_steps near FILE FILE     how far apart two environments are, by layout: the largest
                                                             relative difference of a log-prob or a step's figure
    python -m tests.megatron.golden_steps against REVISION   both, against a temporary worktree of that commit

The numbers depend on the machine, so none are kept. A refactoring of `megatron/` leaves them as they are.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from nemo_sspo.config.stages import Parallel

ROOT = Path(__file__).resolve().parents[2]
NEAR = 1e-6
_PACKED: dict[str, Any] = {"packing": True, "pack_tokens": 64}

CASES: dict[str, tuple[Parallel, dict[str, Any]]] = {
    "TP2 PP2": (Parallel(tensor=2, pipeline=2), {}),
    "PP2 VPP2": (Parallel(pipeline=2, virtual_pipeline=2), {}),
    "CP2": (Parallel(context=2), {"head": "recompute"}),
    "DP2, distributed optimizer": (Parallel(data=2, distributed_optimizer=True), {}),
    "DP2 TP2 SP, packed": (Parallel(data=2, tensor=2, sequence=True), _PACKED),
    "DP2 CP2, shared prompts": (Parallel(data=2, context=2), _PACKED | {"share_prompt": True}),
    "TP2 SP, LoRA": (Parallel(tensor=2, sequence=True), {"peft": "lora", "lora_rank": 4, "recompute": "full"}),
    "TP2 PP2, LoRA": (Parallel(tensor=2, pipeline=2), {"peft": "lora", "lora_rank": 4}),
}
"""Layout and settings of `Train` by name."""

Record = dict[str, dict[str, Any]]
"""By case: reference log-probs, metrics by step, digests of the weights' files and tensors."""


def measured(trainer: str) -> Record:
    """What every case comes to in this checkout, by that binding."""
    with tempfile.TemporaryDirectory() as directory:
        return {
            name: measured_case(trainer, Path(directory) / str(i), *case)
            for i, (name, case) in enumerate(CASES.items())
        }


def measured_case(trainer: str, directory: Path, parallel: Parallel, settings: dict[str, Any]) -> dict[str, Any]:
    """What three steps come to in one layout."""
    import torch

    from nemo_sspo.megatron.batches.pairs import PairTable
    from nemo_sspo.megatron.binding import binding
    from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory
    from tests.megatron import worlds

    bound = binding(trainer)
    policy, hf, exported = worlds.write_policy(directory / "policy", "llama"), directory / "hf", directory / "exported"
    bound.import_policy(policy, directory / "nemo", hf, torch.float32)
    pairs = worlds.make_pairs(20)  # three steps: 8, 8 and 4
    reference_P2 = worlds.reference(bound, pairs, directory, parallel)
    supervised = PairTable(pairs, worlds.make_reference(reference_P2))
    job = worlds.job(supervised, directory, directory / "output", parallel, train_epochs=1, **settings)
    steps = worlds.train(bound, job)
    bound.export_policy(job.output, hf, exported, torch.float32)
    files = sorted(path for path in job.output.rglob("*") if path.is_file())
    return {
        "reference": reference_P2.tolist(),
        "steps": steps,
        "tensors": {name: _digest(tensor.numpy().tobytes()) for name, tensor in SafetensorsDirectory(exported).items()},
        "files": {str(path.relative_to(job.output)): _digest(path.read_bytes()) for path in files},
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def differences(ours: Record, theirs: Record) -> list[str]:
    """A line for each case that differs: what does so first, in the order in which a training comes to it."""
    lines = []
    for name in ours | theirs:
        found = next(_differing(ours.get(name, {}), theirs.get(name, {})), None)
        lines += [] if found is None else [f"{name}: {found}"]
    return lines


def _differing(ours: Any, theirs: Any, where: str = "") -> Any:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in ours | theirs:
            yield from _differing(ours.get(key), theirs.get(key), f"{where}{key} ")
    elif isinstance(ours, list) and isinstance(theirs, list):
        for number, (mine, other) in enumerate(zip_longest(ours, theirs), start=1):
            yield from _differing(mine, other, f"{where}{number} ")
    elif ours != theirs:
        yield f"{where}is {ours} and {theirs}"


def distances(ours: Record, theirs: Record) -> dict[str, float]:
    """By layout, the largest difference of a number of the reference and of the steps, relative to the larger of the
    number and 1. Infinite where one record has what the other lacks."""
    return {name: max(_distances(ours.get(name, {}), theirs.get(name, {})), default=math.inf) for name in ours | theirs}


def _distances(ours: Any, theirs: Any) -> Iterator[float]:
    """`ours` and `theirs` of one layout, as `measured` has them."""
    for mine, other in zip_longest(_numbers(ours), _numbers(theirs), fillvalue=math.inf):
        yield abs(mine - other) / max(1.0, abs(mine), abs(other)) if math.isfinite(mine + other) else math.inf


def _numbers(case: dict[str, Any]) -> Iterator[float]:
    yield from (value for row in case.get("reference", []) for value in row)
    yield from (value for step in case.get("steps", []) for _, value in sorted(step.items()))


def _written(checkout: Path, file: Path) -> Record:
    command = [sys.executable, "-m", "tests.megatron.golden_steps", "write", str(file)]
    subprocess.run(command, cwd=checkout, env=os.environ | {"PYTHONPATH": str(checkout)}, check=True)
    return json.loads(file.read_text())


def against(revision: str) -> list[str]:
    """How this checkout differs from a commit, which is measured by its own copy of this file, if it has one."""
    with tempfile.TemporaryDirectory() as directory:
        other = Path(directory) / "checkout"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", other, revision], cwd=ROOT, check=True)
        try:
            script = other / Path(__file__).relative_to(ROOT)
            if not script.exists():
                shutil.copy(__file__, script)
            theirs = _written(other, Path(directory) / "theirs.json")
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", other], cwd=ROOT, check=True)
        return differences(_written(ROOT, Path(directory) / "ours.json"), theirs)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["write", file] | ["write", file, _]:
            Path(file).write_text(json.dumps(measured(*arguments[2:] or ["nemo"]), indent=1))
            return 0
        case ["compare", ours, theirs]:
            lines = differences(*(json.loads(Path(file).read_text()) for file in (ours, theirs)))
        case ["near", ours, theirs]:
            found = distances(*(json.loads(Path(file).read_text()) for file in (ours, theirs)))
            print("\n".join(f"{distance:8.1e}  {name}" for name, distance in found.items()))
            return int(max(found.values()) > NEAR)
        case ["against", revision]:
            lines = against(revision)
        case _:
            print(__doc__)
            return 2
    print("\n".join(lines) or "equal")
    return int(bool(lines))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
