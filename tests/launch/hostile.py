"""What the tests of hostile inputs share: values that nobody expects, and a dry run that must end in lines.

Within 30 s, without a traceback, and with less than 1 GiB.
"""

import json
import resource
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.checks.models import check_encoder, check_policy
from nemo_sspo.launch.checks.notes import notes
from nemo_sspo.launch.checks.oracle import check_oracle
from nemo_sspo.launch.checks.prompts import check_prompts
from nemo_sspo.launch.checks.responses import check_responses
from nemo_sspo.launch.preflight import check_candidates, check_run_directory, problems

CHECKS = (
    check_prompts,
    check_responses,
    check_policy,
    check_oracle,
    check_encoder,
    check_candidates,
    check_run_directory,
)
SECONDS, MEMORY_KIB = 30, 2**20
DEEP, DIGITS = "@deep@", "@digits@"
"""What Python's own writer refuses to write."""
VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 2, 7, 2**31, 2**63, 10**400, 1.5, -0.5, float("nan"), float("inf"), 1e308),
    *("", "x", "\0", "\ud800", "a" * 300, "a" * 20_000, "../..", "/dev/zero", "{{", "[CLS]", "<|source|>", "llama"),
    *([], {}, [[]], [0], [None], {"": None}, {"content": 1}, {"type": "x"}, DEEP, DIGITS),
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
)


def written(value: object) -> bytes:
    text = json.dumps(value)
    return text.replace(f'"{DEEP}"', "[" * 5000 + "]" * 5000).replace(f'"{DIGITS}"', "9" * 5000).encode()


@contextmanager
def limited(what: str) -> Iterator[None]:
    def late(_signal: int, _frame: object) -> None:
        raise AssertionError(f"{what}: not over after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def dry_run(what: str, overrides: Sequence[str], config_dir: Path | None = None) -> list[str]:
    """What is refused, a line each; `what` names the input where the dry run does not end so."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with limited(what):
        try:
            experiment = load_experiment(["experiment=quickstart", *overrides], config_dir)
            found = problems(experiment, CHECKS)
            list(notes(experiment))
        except UserError as error:
            found = [str(error)]
        except Exception as error:
            raise AssertionError(f"{what}: no line but a traceback") from error
    assert all("\n" not in line and len(line) < 4000 for line in found), what
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY_KIB, what
    return found
