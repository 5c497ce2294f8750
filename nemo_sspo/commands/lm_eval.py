"""``nemo-sspo benchmark lm-eval RUN``: lm-evaluation-harness on a run's policy."""

import argparse
import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nemo_sspo.commands.benchmark_options import add_run, output_of, say
from nemo_sspo.commands.terminal import print_wide, table_of
from nemo_sspo.errors import UserError
from nemo_sspo.public_benchmarks.lm_eval import Score

if TYPE_CHECKING:
    from nemo_sspo.launch.benchmark import Examinee

SCORES = "scores.json"


def register(names: "argparse._SubParsersAction[Any]") -> None:
    """Add the sub-command."""
    sub = names.add_parser("lm-eval", help="run the Open LLM Leaderboard's six tasks, or others, with lm_eval")
    add_run(sub)
    sub.add_argument("--tasks", nargs="+", metavar="TASK", help="tasks of the harness (default: the leaderboard's six)")
    sub.add_argument("--include-path", type=Path, help="directory with task files of your own")
    sub.add_argument("--backend", choices=("hf", "vllm"), default="vllm", help="what runs the policy")
    sub.add_argument("--device", help="device of the hf backend, like cuda:0 or cpu")
    sub.set_defaults(command=evaluate, benchmark="lm-eval", overrides=[])


def evaluate(options: argparse.Namespace) -> int:
    """Run every task and publish the scores, or print the commands where lm_eval is not installed."""
    from nemo_sspo.launch.benchmark import examinee

    if options.include_path is not None and not options.include_path.is_dir():
        raise UserError(f"--include-path {options.include_path}: no such directory")
    return have_counted(examinee(options.run, options.iteration, options.overrides), options)


def have_counted(asked: "Examinee", options: argparse.Namespace) -> int:
    """The same of a policy of a run, or of another model."""
    from nemo_sspo.artifacts.facts.benchmarks import TaskFacts
    from nemo_sspo.artifacts.fingerprint import fingerprint
    from nemo_sspo.artifacts.layout import HF_MODEL, RunLayout
    from nemo_sspo.artifacts.store import is_published, open_artifact, publish, refuse_changes
    from nemo_sspo.launch.benchmark import environment, rollout_python
    from nemo_sspo.public_benchmarks.lm_eval import chosen_tasks, command
    from nemo_sspo.rollout.vllm_engine import variables as engine_variables
    from nemo_sspo.visible_gpus import visible_gpus

    on_cpu = not visible_gpus()
    python, console = rollout_python(asked.cluster, options.python), Console()
    exported = [open_artifact(RunLayout(asked.root).artifact("export", asked.iteration))] if asked.iteration else []
    policy = str(exported[0].file(HF_MODEL)) if exported else asked.who.policy
    final, tasks = output_of(options.output, asked, "lm-eval"), chosen_tasks(options.tasks)
    config: dict[str, Any] = {
        "policy": asked.who.policy,
        "backend": options.backend,
        "tasks": [list(task) for task in tasks],
    }
    if options.include_path is not None:
        config["content of --include-path"] = fingerprint(options.include_path)
    if is_published(final):
        refuse_changes(open_artifact(final), config, {"policy": exported})
        published = [Score(**row) for row in json.loads((final / SCORES).read_bytes())]
        if not published:
            raise UserError(f"{final}: published by an earlier version without any score; remove it and run this again")
        _show(published, console)
        return 0

    def line(task: Any, output: Path) -> list[str]:
        return command(
            task,
            python=python,
            policy=policy,
            backend=options.backend,
            engine=asked.who.engine,
            on_cpu=on_cpu,
            device=options.device,
            include=options.include_path,
            output=output,
        )

    variables = engine_variables(asked.who.engine, on_cpu) | environment(asked.cluster)
    if not _has_lm_eval(python, variables):
        say(console, f"not run here: {python} has no lm_eval ({python} -m pip install lm-eval). The commands:")
        for task in tasks:
            say(console, f"  {shlex.join(line(task, final / task.name))}")
        return 0
    _refuse_other_tokens(python, policy, variables)
    final.parent.mkdir(parents=True, exist_ok=True)
    with publish(
        final, stage="benchmark_lm_eval", iteration=asked.iteration, config=config, inputs={"policy": exported}
    ) as draft:
        scores = [
            score for task in tasks for score in _run_task(task, draft.path / task.name, line, variables, console)
        ]
        draft.rows = len(scores)
        draft.facts = TaskFacts(scores={f"{score.task} {score.metric}": score.value for score in scores})
        (draft.path / SCORES).write_text(json.dumps([score._asdict() for score in scores], indent=1) + "\n")
    _show(scores, console)
    say(console, str(final / SCORES))
    return 0


def _refuse_other_tokens(python: str, policy: str, variables: dict[str, str]) -> None:
    """The harness loads the policy's tokenizer itself: what it would read otherwise than the run did is refused.

    Raises:
        UserError: its library gives other tokens than the tokenizer's own file; the text is named.
    """
    if not Path(policy).is_dir():
        return
    check = [python, "-m", "nemo_sspo.tokens.check", policy]
    done = subprocess.run(check, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == UserError.EXIT_CODE:
        reason = done.stderr.strip().splitlines()[-1].removeprefix("error: ")
        raise UserError(f"lm_eval would give the policy other tokens than the run did: {reason}")


def _run_task(
    task: Any, output: Path, line: Callable[[Any, Path], list[str]], variables: dict[str, str], console: Console
) -> list[Score]:
    """Run the harness on one task, as `line` has it, and read the scores it left in `output`."""
    from nemo_sspo.public_benchmarks.lm_eval import read_scores

    words = line(task, output)
    say(console, shlex.join(words))
    code = subprocess.run(words, env=variables, stdin=subprocess.DEVNULL).returncode
    if code:
        raise UserError(f"lm_eval ended with exit code {code} on {task.name}; see what it printed above")
    return read_scores(task, output)


def _has_lm_eval(python: str, variables: dict[str, str]) -> bool:
    if shutil.which(python) is None:
        raise UserError(f"{python}: no such interpreter; check cluster.rollout.python or give --python")
    look = "import importlib.util, sys; sys.exit(importlib.util.find_spec('lm_eval') is None)"
    return subprocess.run([python, "-c", look], env=variables).returncode == 0


def _show(scores: list[Score], console: Console) -> None:
    rows = [
        (score.task, score.metric, f"{score.value:.4f}", "" if score.stderr is None else f"{score.stderr:.4f}")
        for score in scores
    ]
    print_wide(table_of(("task", "metric", "value", "standard error"), rows), console)
