"""make rehearse-all: the presets' whole batches, and tiny ranks of all combinations of settings.

There are 32,400 such ranks, at half a minute of a processor each: eleven days of one. It may be stopped at any time and
goes on from there; what it has found is below tests/rehearsal/ledgers, and `make test-rehearsal` holds its own cases
against it. Where one of these differs, all tiny figures are of another code, and are made anew.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

from tests.rehearsal.case import Case
from tests.rehearsal.cases import all_tiny_cases, preset_cases, saving, tiny_cases
from tests.rehearsal.checkpoints import import_policies
from tests.rehearsal.committed import WHOLE_BATCHES, Collected, commit, committed, differences
from tests.rehearsal.ledger import Ledger
from tests.rehearsal.run import RehearsalError, rehearse, rehearse_and_resume, resumed_step


def rehearse_whole_batches() -> None:
    for case in preset_cases(full_batch=True):
        known, few = committed(case.key, WHOLE_BATCHES), committed(case.key)
        if known is None or few is None or not takes_no_more_memory(few, known):
            commit(rehearse(case), WHOLE_BATCHES)
            print(case.key, flush=True)


def takes_no_more_memory(few: Ledger, whole: Ledger) -> bool:
    """Whether a whole batch holds what a few of its microbatches do, but for all microbatches' token ids and pooled
    states, which wait on the GPU: less than a thousandth."""
    return (
        all(
            other.peak[kind] == one.peak[kind] and other.live[kind] == one.live[kind]
            for one, other in zip(few.steps, whole.steps, strict=True)
            for kind in ("weights", "gradients", "optimizer", "head")
        )
        and 0 <= whole.peak_bytes - few.peak_bytes < few.peak_bytes / 1000
    )


def rehearse_tiny_cases(collected: Collected, checkpoints: Path, most: int | None) -> list[str]:
    """Lines about the cases that died. `most`: so many cases at most, of those that are first in order."""
    if any(_differs(case, collected, checkpoints) for case in tiny_cases()):
        collected.clear()
    died = []
    for number, case in enumerate(islice(all_tiny_cases(), most), start=1):
        known = collected.get(case.key)
        if known is None or not known.resumed:
            begun, end, whole = time.monotonic(), "", saving(case, checkpoints)
            try:
                collected.add(
                    rehearse_and_resume(whole) if known is None else replace(known, resumed=resumed_step(whole))
                )
            except RehearsalError as error:
                end = f", died: {str(error).splitlines()[-1]}"
                died.append(case.key + end)
            print(f"{number}: {case.key}, {time.monotonic() - begun:.0f} s{end}", flush=True)
    return died


def _differs(case: Case, collected: Collected, checkpoints: Path) -> bool:
    known = collected.get(case.key)
    return known is not None and differences(known, rehearse_and_resume(saving(case, checkpoints))) != []


def main(most: int | None = None) -> None:
    """Not with ``-m``, or what a rank spawns to save its state imports all this again, for 3 s of a processor."""
    rehearse_whole_batches()
    with tempfile.TemporaryDirectory() as folder:
        died = rehearse_tiny_cases(Collected(), import_policies(Path(folder)), most)
    sys.exit("\n".join(died) or None)
