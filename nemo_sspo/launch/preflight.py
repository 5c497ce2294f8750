"""Every check that needs no model, before anything is started: all problems of an experiment, in under a second."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.cluster import SlurmCluster
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError, one_line
from nemo_sspo.launch.checks.elsewhere import check_hub
from nemo_sspo.launch.checks.environments import check_environments
from nemo_sspo.launch.checks.functions import check_functions
from nemo_sspo.launch.checks.models import check_encoder, check_policy
from nemo_sspo.launch.checks.mounts import check_downloads, check_mounts
from nemo_sspo.launch.checks.oracle import check_oracle, oracle_paths
from nemo_sspo.launch.checks.prompts import check_prompts, planned_prompts
from nemo_sspo.launch.checks.responses import check_responses
from nemo_sspo.launch.clean import refuse_removed
from nemo_sspo.launch.machine import gpus_to_use
from nemo_sspo.launch.plan import Step, plan
from nemo_sspo.launch.slurm.jobs import cluster_problems
from nemo_sspo.launch.stale import refuse_damaged, refuse_stale
from nemo_sspo.launch.totals import bytes_to_publish
from nemo_sspo.megatron.batches.batch_plan import candidate_problems, steps_per_epoch
from nemo_sspo.megatron.models.layout import setting_problems
from nemo_sspo.stages.runner.registry import STAGES
from nemo_sspo.words import counted

Check = Callable[[Experiment], Iterator[str]]

HEADROOM_BYTES = 64 * 2**20
_GIB = 2**30


def problems(experiment: Experiment, checks: Sequence[Check] | None = None) -> list[str]:
    """All problems, each once, most basic first; empty when the run may start. `checks` defaults to all checks."""
    found = (problem for check in checks or CHECKS for problem in _collected(check, experiment))
    return list(dict.fromkeys(map(one_line, found)))


def _collected(check: Check, experiment: Experiment) -> Iterator[str]:
    """A check yields problems, or raises one that prevents further checking."""
    try:
        yield from check(experiment)
    except UserError as error:
        yield str(error)
    except OSError as error:  # a name that is too long for the file system, a folder that may not be entered
        if error.filename is None:
            raise
        yield f"{os.fsdecode(error.filename)}: {error.strerror}; give another path"


def check_run_directory(experiment: Experiment) -> Iterator[str]:
    """The run's directory can be written to, and the disk below it holds what the run will publish."""
    root = experiment.run_dir
    links = (path for path in (root.absolute(), *root.absolute().parents) if path.is_symlink())
    if broken := next((path for path in links if not path.exists()), None):
        yield f"{broken}: a link that leads nowhere; give another runs_dir=..."
        return
    existing = next(path for path in (root.absolute(), *root.absolute().parents) if path.exists())
    if not existing.is_dir():
        yield f"{existing}: is a file, but the run's directory {root} would lie there; give another runs_dir=..."
        return
    if not os.access(existing, os.W_OK | os.X_OK):
        yield f"{existing}: not writable; give another runs_dir=..."
        return
    needed = bytes_to_publish(experiment) + HEADROOM_BYTES
    free = shutil.disk_usage(existing).free
    if free < needed:
        yield (
            f"{existing}: {free / _GIB:.2f} GiB free, and the run publishes at least {needed / _GIB:.2f} GiB of "
            "weights; free some space, or give another runs_dir=..."
        )


def check_gpus(experiment: Experiment) -> Iterator[str]:
    """There are as many GPUs as the widest step takes; a Slurm cluster can hold every stage."""
    if isinstance(experiment.cluster, SlurmCluster):
        yield from cluster_problems(experiment)
        return
    gpus = len(gpus_to_use(experiment.cluster))
    widest: Step = max(plan(experiment), key=lambda step: step.gpus)
    if widest.gpus and not gpus:
        yield (
            "no GPU is visible: run on a GPU machine, or give cluster=local_cpu (with precision=fp32); "
            f"cluster.gpus={widest.gpus} plans for a machine that has as many"
        )
    elif widest.gpus > gpus:
        setting = "parallel.*" if STAGES[widest.stage].ranks else "engine.tensor_parallel"
        seen = f"{gpus} {'is' if gpus == 1 else 'are'} visible"
        yield f"{widest.stage} takes {counted(widest.gpus, 'GPU')} and {seen}; lower {setting}, or use more GPUs"


def check_training(experiment: Experiment) -> Iterator[str]:
    """No two training settings exclude each other."""
    yield from setting_problems(experiment.parallel, experiment.train, experiment.precision)


def check_precision(experiment: Experiment) -> Iterator[str]:
    """FP8 is trained and sampled on GPUs only; only the stages can see what kind of GPU there is."""
    if experiment.precision.kind == "fp8" and experiment.cluster.launcher == "fork":
        yield "precision=fp8 needs Hopper-class GPUs, and this cluster trains on the CPU; give precision=fp32"
    if experiment.engine.quantization is not None and not experiment.cluster.has_gpus:
        yield (
            f"engine.quantization={experiment.engine.quantization} needs a GPU: vLLM's CPU build has no such kernels; "
            "leave it out, the policy is sampled as it is then"
        )


def check_candidates(experiment: Experiment) -> Iterator[str]:
    """Every candidate of an iteration is another checkpoint, as far as that is known before pairs are built."""
    candidates, train = experiment.selection.candidates, experiment.train
    if candidates == 1:
        return
    try:
        planned = planned_prompts(experiment)
    except UserError:
        return  # the prompts cannot be read, which their own check says
    if planned is None or not all(planned.portions):
        return
    pairs = min(planned.portions)
    steps = steps_per_epoch(pairs, train.global_batch_size) * train.train_epochs
    yield from candidate_problems(candidates, steps, f"an iteration of {pairs} prompts")


def check_stored_experiment(experiment: Experiment) -> Iterator[str]:
    """Published artifacts are complete and match these settings and the current inputs."""
    if RunLayout(experiment.run_dir).experiment.exists():
        refuse_stale(experiment)
        refuse_damaged(experiment)
        refuse_removed(experiment)
    yield from ()


def missing_files(experiment: Experiment) -> Iterator[Path]:
    """Files that the experiment names and that are made by a command of the repository."""
    for path in map(Path, (experiment.policy, *oracle_paths(experiment))):
        if path.parts[:1] == ("assets",) and not path.exists():
            yield path


def check_assets(experiment: Experiment) -> Iterator[str]:
    """The quickstart's small assets have been made."""
    if absent := list(missing_files(experiment)):
        yield (
            f"{absent[0]}: not there yet; `make assets` makes the small policy and oracle of the quickstart (or, in a "
            "training environment of your own, `python -m scripts.toy.make_assets`)"
        )


CHECKS: tuple[Check, ...] = (
    check_assets,
    check_prompts,
    check_responses,
    check_policy,
    check_oracle,
    check_encoder,
    check_functions,
    check_hub,
    check_gpus,
    check_training,
    check_precision,
    check_candidates,
    check_environments,
    check_mounts,
    check_downloads,
    check_run_directory,
    check_stored_experiment,
)
