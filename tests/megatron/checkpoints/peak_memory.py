"""python -m tests.megatron.checkpoints.peak_memory OUTPUT SMALL POLICY...: import and export in their own process.

Prints as JSON, for each policy, by how many bytes the resident memory rose above what it was before, at most, in each
of the two; what libraries take once is there before, by a SMALL policy. A policy smaller than a file is converted by
this process alone.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from nemo_sspo.megatron.binding import binding


def main(output: Path, warm_up: Path, *policies: Path) -> None:
    convert(warm_up, output / "warm_up")
    print(json.dumps({policy.name: convert(policy, output / policy.name) for policy in policies}))


def convert(policy: Path, output: Path) -> dict[str, int]:
    core, nemo, hf = binding("core"), output / "nemo", output / "hf"
    return {
        "import": rise(lambda: core.import_policy(policy, nemo, hf, torch.bfloat16)),
        "export": rise(lambda: core.export_policy(nemo, hf, output / "back", torch.bfloat16)),
    }


def rise(call: Callable[[], object]) -> int:
    """Bytes that the resident memory rose by during a call, at most."""
    Path("/proc/self/clear_refs").write_text("5")  # the highest is now what it is
    before = resident("VmRSS")
    call()
    return resident("VmHWM") - before


def resident(what: str) -> int:
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    found = re.search(rf"^{what}:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
