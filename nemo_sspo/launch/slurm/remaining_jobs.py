"""The jobs of a run, or of its first iterations, that Slurm still has to handle: none that an early stop leaves out."""

from collections.abc import Sequence
from dataclasses import replace

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.selection import early_stop
from nemo_sspo.launch.slurm.jobs import Job
from nemo_sspo.launch.slurm.report_step import REPORT, report_step
from nemo_sspo.launch.slurm.sbatch import RunPaths


def remaining_jobs(graph: Sequence[Job], place: RunPaths, last: int | None = None) -> list[Job]:
    """The jobs up to the end of the run or of iteration `last`, and the page of these, which waits for no other."""
    layout = RunLayout(place.run)
    stop = early_stop(layout)

    def is_left_out(job: Job) -> bool:
        return (stop is not None and stop.leaves_out(job.iteration)) or (last is not None and job.iteration > last)

    if not any(map(is_left_out, graph)):
        return list(graph)
    kept = [job for job in graph if job.stage != REPORT and not is_left_out(job)]
    page = report_step(layout, [step for job in kept for step in job.steps])
    drawn = [replace(job, steps=(page,), shard_batches=((page,),)) for job in graph if job.stage == REPORT]
    return [*kept, *drawn]
