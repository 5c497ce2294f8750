"""A job as the text of an sbatch script. Pure: the same job and places give the same text.

The script is bash and srun alone, so it runs outside of the images, where this package's Python is missing. Any
value is safe: shell lines quote it, ``#SBATCH`` lines accept plain words only.
"""

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment as Templates
from jinja2 import FileSystemLoader, StrictUndefined, Template

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.manifest import MANIFEST_NAME
from nemo_sspo.artifacts.shard_ranges import shard_ranges
from nemo_sspo.config.cluster import SlurmCluster
from nemo_sspo.config.environments import RANK_VARIABLES, SlurmEnvironment
from nemo_sspo.errors import Interrupted, UserError
from nemo_sspo.launch.slurm.jobs import Job
from nemo_sspo.stages.runner.variables import ALWAYS

TEMPLATE = "stage.sbatch.j2"
_PACKAGE = Path(__file__).parents[2]
_DIRECTIVE = re.compile(r"--[a-z-]+(=[A-Za-z0-9_@%+=:,./~*&|()\[\]-]+)?")
_MOUNT_BREAKING = re.compile(r"[,:\s]")
# Seconds by which Slurm may send the signal of a time limit early.
_SIGNAL_IS_EARLY = 60
_NO_LIMIT = 10**9


@dataclass(frozen=True)
class RunPaths:
    """Where a job's script finds things. All paths are absolute and seen by every node."""

    run: Path
    """The run's directory."""
    workdir: Path
    """Directory that relative paths of the experiment start from."""

    @property
    def state(self) -> Path:
        """What the launcher keeps about the run's jobs."""
        return self.run / "slurm"

    @property
    def submissions(self) -> Path:
        """What was submitted, one line each."""
        return self.state / "jobs.jsonl"

    def attempts(self, step_id: str) -> Path:
        """What happened to a step, one line each."""
        return self.state / "attempts" / f"{step_id}.jsonl"

    def script(self, job: Job) -> Path:
        """The rendered script."""
        return self.state / f"{job.name}.sbatch"

    def environment_file(self, name: str) -> Path:
        """Variables of one of the two environments, as shell lines."""
        return self.state / f"{name}.env"


def render(job: Job, cluster: SlurmCluster, place: RunPaths, run_name: str) -> str:
    """The script of a job.

    Raises:
        UserError: a value holds a control character, which no shell line or file name should.
    """
    return template().render(
        job=job,
        cluster=cluster,
        run=place.run,
        run_name=run_name,
        workdir=place.workdir,
        environment_file=place.environment_file(job.environment_name),
        options=list(options(job, cluster, run_name)),
        launch=launch(job, place),
        first_shard=_first_shard(job),
        shards=shards_of_task(job),
        last_shard=_last_shard(job),
        artifact=RunLayout(place.run).artifact(job.stage, job.iteration),
        manifest=MANIFEST_NAME,
        saves_state=job.saves_state,
        limit=_limit_seconds(job),
        limit_is_near=cluster.signal_seconds + _SIGNAL_IS_EARLY,
        does_not_fit=_does_not_fit(job),
        interrupted_code=Interrupted.EXIT_CODE,
    )


def options(job: Job, cluster: SlurmCluster, run_name: str) -> Iterator[str]:
    """The sbatch options of a job that do not depend on what else is submitted."""
    wanted = job.resources
    yield f"--job-name={run_name}.{job.name}"
    yield f"--output=logs/{job.name}.{'%A_%a' if job.is_array else '%j'}.slurm.log"
    yield "--open-mode=append"
    yield "--requeue"
    yield f"--signal=B:USR1@{cluster.signal_seconds}"
    yield f"--nodes={job.nodes}"
    yield f"--ntasks-per-node={job.tasks_per_node}"
    if job.is_array:
        limit = f"%{wanted.parallel_tasks}" if wanted.parallel_tasks else ""
        yield f"--array={shard_ranges(range(len(job.shard_batches)))}{limit}"
    if job.gpus_per_node:
        yield _gpu_option(job, cluster)
    for name, value in (
        ("cpus-per-task", job.cpus_per_task),
        ("mem", wanted.memory),
        ("time", wanted.time),
        ("partition", wanted.partition),
        ("account", wanted.account),
        ("qos", wanted.qos),
        ("reservation", wanted.reservation),
    ):
        if value is not None:
            yield f"--{name}={value}"
    for name, value in wanted.options.items():
        yield f"--{name}={value}" if value else f"--{name}"


def _gpu_option(job: Job, cluster: SlurmCluster) -> str:
    count = f"{cluster.gpu_type}:{job.gpus_per_node}" if cluster.gpu_type else str(job.gpus_per_node)
    match cluster.request_gpus:
        case "gpus-per-node":
            return f"--gpus-per-node={count}"
        case "gres":
            return f"--gres=gpu:{count}"
        case "exclusive":
            return "--exclusive"


def launch(job: Job, place: RunPaths) -> list[str]:
    """Arguments of srun up to and including the interpreter."""
    words = [f"--nodes={job.nodes}", f"--ntasks={job.nodes * job.tasks_per_node}", "--kill-on-bad-exit=1"]
    # Rank 0 hashes and publishes long after the others have ended; a site's WaitTime would kill it.
    words += ["--wait=0", f"--ntasks-per-node={job.tasks_per_node}"]
    if job.cpus_per_task:  # srun does not take it from the job
        words.append(f"--cpus-per-task={job.cpus_per_task}")
    environment = job.environment
    if environment.image is None:
        return [*words, environment.python]
    binds, image = list(_binds(environment, place)), _image(environment.image, place)
    if environment.container == "pyxis":
        words += [f"--container-image={image}", "--no-container-mount-home"]
        words += [f"--container-mounts={','.join(binds)}", f"--container-workdir={place.workdir}"]
        return [*words, *_in_image(job, place)]
    inner = ["apptainer", "exec", *(["--nv"] if job.gpus_per_node else []), f"--pwd={place.workdir}"]
    return [*words, *inner, *(f"--bind={bind}" for bind in binds), image, *_in_image(job, place)]


def shards_of_task(job: Job) -> str:
    """The shards of a task, as a word of the shell, which knows an array's first one."""
    if not job.is_array:
        return '"$task"'
    return f'"$first-{_last_shard(job)}"' if job.shards_per_task > 1 else '"$first"'


def _first_shard(job: Job) -> str:
    return f"$((task * {job.shards_per_task}))" if job.shards_per_task > 1 else '"$task"'


def _last_shard(job: Job) -> str:
    """Of the task's shards the last one, as an expression of the shell."""
    more, last = job.shards_per_task - 1, job.steps[-1].shard
    return f"$((first + {more} < {last} ? first + {more} : {last}))" if more else '"$first"'


def _limit_seconds(job: Job) -> int:
    """The time limit in whole minutes, as Slurm takes it; a very large number where the partition decides."""
    seconds = job.resources.seconds
    return _NO_LIMIT if seconds is None else -(-seconds // 60) * 60


def _does_not_fit(job: Job) -> str:
    limit = f"time={job.resources.time}" if job.resources.time else "the partition's time limit"
    more_shards = ", or rollout.shards of a new run" if job.is_array else ""
    return f"does not fit in {limit}: raise cluster.stages.{job.stage}.time{more_shards}"


def _image(image: str, place: RunPaths) -> str:
    """An absolute path: pyxis reads a relative one as a name in a registry."""
    return str(place.workdir / image) if image.endswith((".sqsh", ".sif")) else image


def _in_image(job: Job, place: RunPaths) -> list[str]:
    """The interpreter, with the environment's variables set again: the image's variables override the first."""
    return [
        "sh",
        "-c",
        '. "$0" && exec "$@"',
        str(place.environment_file(job.environment_name)),
        job.environment.python,
    ]


def _binds(environment: SlurmEnvironment, place: RunPaths) -> Iterator[str]:
    """The run and the working directory at their own paths, then the environment's mounts."""
    own = dict.fromkeys(map(str, (place.workdir, place.run)))
    for path in own:
        if _MOUNT_BREAKING.search(path):
            raise UserError(f"{path}: holds a comma, colon or blank and cannot be mounted; use another directory")
        yield f"{path}:{path}"
    for mount in environment.mounts:
        if re.search(r"[,\s]", mount) or ":" not in mount:
            raise UserError(f"mounts: {mount!r}: expected host:container, without commas or blanks")
        yield mount


def environment_text(variables: Mapping[str, str]) -> str:
    """Lines of a POSIX shell that set an environment's variables and forget an outer launcher's."""
    lines = [f"export {name}={shlex.quote(value)}" for name, value in {**ALWAYS, **variables}.items()]
    return "\n".join([f"unset {' '.join(RANK_VARIABLES)}", *lines, ""])


def quote(value: object) -> str:
    """A value as one word of a shell line.

    Raises:
        UserError: it holds a control character.
    """
    text = str(value)
    if not text.isprintable():
        raise UserError(f"{text!r}: holds a character that cannot be printed and is not put into a script")
    return shlex.quote(text)


def directive(value: str) -> str:
    """An option as the rest of an ``#SBATCH`` line, which no shell parses; Slurm's own quoting is not used."""
    if not _DIRECTIVE.fullmatch(value):
        raise UserError(f"{value!r}: no option that can be written into a script as it is")
    return value


@cache
def template() -> Template:
    """The script's template, from the package or the checkout."""
    packaged = _PACKAGE / "slurm"
    folder = packaged if packaged.is_dir() else _PACKAGE.parent / "slurm"
    templates = Templates(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # shell, not HTML: every value goes through `quote` or `directive`
    )
    templates.filters |= {"quote": quote, "directive": directive}
    return templates.get_template(TEMPLATE)
