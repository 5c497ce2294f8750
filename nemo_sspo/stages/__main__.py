"""Run a step of a run: ``python -m nemo_sspo.stages train --run runs/demo --iteration 1``.

Of a sharded stage several steps can be named, ``--shard 0-3,8``: they run one after another, each published when it is
done, with their model loaded once.
"""

import argparse
import importlib
import os
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from nemo_sspo.artifacts.layout import RunLayout, step_id
from nemo_sspo.artifacts.progress import Progress
from nemo_sspo.artifacts.selection import early_stop
from nemo_sspo.artifacts.shard_ranges import shards_in
from nemo_sspo.artifacts.store import (
    Draft,
    discard_drafts,
    draft_path,
    is_published,
    open_artifact,
    publish,
    refuse_changes,
)
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.trainers import trainer_here
from nemo_sspo.errors import Interrupted, UserError
from nemo_sspo.stages.runner.context import ModelCache, StageContext
from nemo_sspo.stages.runner.freshness import refuse_changed_since, refuse_stale_inputs
from nemo_sspo.stages.runner.registry import STAGES, stage_inputs
from nemo_sspo.stages.runner.settings import knob_names, rounding_knobs, stage_knobs, stage_settings
from nemo_sspo.stages.runner.slurm_task import is_leader, set_rank_env
from nemo_sspo.stages.runner.torch_extensions import prepare
from nemo_sspo.stages.runner.variables import hide_gpus, set_defaults


def main(arguments: list[str] | None = None) -> int:
    """Run steps; 0 when they are published, 2 when an input is wrong, 85 when one saved its state and is to go on."""
    parser = argparse.ArgumentParser(prog="python -m nemo_sspo.stages", description=__doc__)
    parser.add_argument("stage", choices=sorted(name for name, stage in STAGES.items() if stage.publishes))
    parser.add_argument("--run", type=Path, required=True, help="run directory, with experiment.json")
    parser.add_argument("--iteration", type=int, default=0)
    parser.add_argument("--shard", type=shards_in, default=(0,), help="one or several: 3, or 0-3,8")
    parser.add_argument("--attempt", default="", help="shared by the ranks of one attempt at the steps")
    parser.add_argument("--alone", action="store_true", help="no other attempt at the steps lives: remove their drafts")
    options = parser.parse_args(arguments)
    set_rank_env()
    hide_gpus()
    set_defaults(STAGES[options.stage].environment)
    attempt, kept = options.attempt or uuid4().hex, ModelCache()
    try:
        prepare(Path(os.environ["TORCH_EXTENSIONS_DIR"]))
        for shard in options.shard:
            if len(options.shard) > 1:
                _begin(options.run, options.stage, options.iteration, (options.shard[0], shard), attempt)
            run_step(options.run, options.stage, options.iteration, shard, attempt, alone=options.alone, kept=kept)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        # srun reports only the highest exit code, which can hide a user error: this one is recorded.
        if verdict := os.environ.get("NEMO_SSPO_VERDICT"):
            Path(verdict).touch()
        return UserError.EXIT_CODE
    except Interrupted as interruption:
        print(f"interrupted: {interruption}", file=sys.stderr)
        return Interrupted.EXIT_CODE
    return 0


def _begin(run: Path, stage: str, iteration: int, shards: tuple[int, int], attempt: str) -> None:
    """Say which step of several begins; the log is named after the first one, and found under its own name too."""
    first, own = (step_id(stage, iteration, shard) for shard in shards)
    print(f"begin {own}", flush=True)
    log, link = (RunLayout(run).log(name, attempt) for name in (first, own))
    if log.exists() and not link.exists():
        link.symlink_to(log.name)


def run_step(
    run: Path,
    stage: str,
    iteration: int,
    shard: int,
    attempt: str,
    *,
    alone: bool = False,
    kept: ModelCache | None = None,
) -> None:
    """Run one step and publish its artifact; a no-op when it is published with the same settings and inputs, or
    when the run has ended in an earlier iteration.

    Its inputs must be what today's settings would make when it begins. When it publishes, its settings and inputs must
    still be those that it began with.

    Args:
        alone: no other attempt at the step lives, so that what killed ones left behind can go.
        kept: what the steps of this process share.
    """
    spec, layout = STAGES[stage], RunLayout(run)
    experiment = _stored_experiment(layout)
    if spec.environment == "train" and (trainer := trainer_here(experiment.trainer)) is not None:
        experiment = experiment.model_copy(update={"trainer": trainer})
    if (stop := early_stop(layout)) is not None and stop.leaves_out(iteration):
        print(f"left out: the run has {stop}")
        return
    paths = stage_inputs(stage, experiment, layout, iteration, shard)
    inputs = {name: [open_artifact(path) for path in group] for name, group in paths.items()}
    settings = stage_settings(experiment, stage)
    sharding = shard if spec.sharded else None
    final, name = layout.artifact(stage, iteration, sharding), step_id(stage, iteration, sharding)
    if is_published(final):
        refuse_changes(open_artifact(final, whole=False), settings, inputs, knob_names(experiment))
        return
    leader = is_leader()
    if leader:
        refuse_stale_inputs(experiment, layout, paths)
    if alone and leader:
        discard_drafts(final)
    progress = Progress(layout.progress(name) if leader else None)
    scratch = layout.scratch(name)
    module = importlib.import_module(f"nemo_sspo.stages.{spec.module}")
    destination = (
        publish(
            final,
            stage=stage,
            iteration=iteration,
            shard=shard,
            config=settings,
            inputs=inputs,
            knobs=stage_knobs(experiment, stage),
            rounding=rounding_knobs(experiment),
            attempt=attempt,
        )
        if leader
        else _join(draft_path(final, attempt))
    )
    held = kept if kept is not None and spec.one_model else ModelCache()
    with destination as draft:
        module.run(StageContext(stage, iteration, shard, experiment, layout, inputs, draft, progress, scratch, held))
        draft.timings["peak_memory_gib"] = _peak_memory_gib()
        if leader:
            if not isinstance(draft.facts, spec.facts):
                raise TypeError(f"{stage} reports {type(draft.facts).__name__}, not {spec.facts.__name__}")
            refuse_changed_since(_stored_experiment(layout), layout, stage, settings, inputs)
    if leader:
        shutil.rmtree(scratch, ignore_errors=True)


def _stored_experiment(layout: RunLayout) -> Experiment:
    return Experiment.model_validate_json(layout.experiment.read_bytes())


def _peak_memory_gib() -> float:
    """Most main memory that this process, or the largest of those it has started and seen end, has held at once."""
    kib = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return kib / 2**20


@contextmanager
def _join(path: Path) -> Iterator[Draft]:
    """The draft of a rank other than 0: it may write files there, and rank 0 publishes."""
    path.mkdir(parents=True, exist_ok=True)
    yield Draft(path)


if __name__ == "__main__":
    sys.exit(main())
