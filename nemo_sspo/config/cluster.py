"""Where a run runs: the processes of one machine, or jobs of a Slurm cluster."""

import re
from typing import Annotated, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from nemo_sspo.config.base import Frozen
from nemo_sspo.config.environments import Environment, SlurmEnvironment

_OPTION = re.compile(r"[a-z][a-z-]*")
# A directive is no shell line, but Slurm reads quotes, backslashes, blanks and '#' in it in its own way.
_WORD = r"[A-Za-z0-9_][A-Za-z0-9_@%+=:,./~*&|()\[\]-]*"
_TIME = r"^([0-9]{1,4}-[0-9]{1,2}(:[0-9]{1,2}){0,2}|[0-9]{1,6}(:[0-9]{1,2}){0,2})$"

_MEMORY = r"^[0-9]{1,9}[KMGT]?$"

Word = Annotated[str, Field(pattern=f"^{_WORD}$", max_length=200)]
"""A value of an sbatch option."""

PATTERNS_IN_WORDS = {
    _TIME: "a time limit as sbatch takes it: minutes (90), hours:minutes:seconds (08:00:00) or days-hours (1-12)",
    _MEMORY: "memory as sbatch takes it: a whole number and K, M, G or T (64G), or 0 for all of the node",
    f"^{_WORD}$": "one word of letters, digits and _@%+=:,./~*&|()[]-, which begins with a letter, a digit or _",
}
"""What each pattern above wants."""

_PLANNED = (
    *(
        "job-name",
        "output",
        "error",
        "open-mode",
        "array",
        "dependency",
        "kill-on-invalid-dep",
        "requeue",
        "no-requeue",
    ),
    *("export", "export-file", "chdir", "nodes", "ntasks", "ntasks-per-node", "ntasks-per-socket", "ntasks-per-core"),
    *(
        "ntasks-per-gpu",
        "gpus-per-task",
        "gpus-per-socket",
        "gpu-bind",
        "tres-bind",
        "tres-per-task",
        "wrap",
        "parsable",
    ),
    *("wait", "test-only"),
)
OWN_OPTIONS: dict[str, str] = dict.fromkeys(_PLANNED, "it is set from the plan") | {
    **{name: f"cluster.{name} has it" for name in ("time", "partition", "account", "qos", "reservation", "comment")},
    **dict.fromkeys(("mem", "mem-per-cpu", "mem-per-gpu"), "cluster.memory has it, for a node"),
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu"), "cluster.cpus_per_task has it, for a GPU or a process"),
    **dict.fromkeys(("gpus", "gpus-per-node", "gres", "exclusive"), "cluster.request_gpus and gpu_type have it"),
    "signal": "cluster.signal_seconds has it",
    "begin": "submit --begin has it",
    "clusters": "squeue here would not see the jobs; submit on that cluster",
}
"""sbatch options that the loop depends on or that have a setting of their own, each with where it is set instead."""


class LocalCluster(Frozen):
    kind: Literal["local"] = "local"
    train: Environment
    """Environment of the stages on NeMo and Megatron."""
    rollout: Environment
    """Environment of the stages on vLLM, the oracle and the encoder."""
    launcher: Literal["fork", "torchrun"] = "torchrun"
    """How the ranks of a training stage start on one machine: forked from one import (CPU), or torchrun (GPU)."""
    parallel_steps: PositiveInt = 1
    """Processes that may run at once on a machine without GPUs; half of them sample while the others score."""
    gpus: NonNegativeInt | None = None
    """GPUs of the machine; without it, those that are visible."""
    save_seconds: NonNegativeFloat = 300.0
    """Seconds that training may take to end its step and save its state, when the run is told to stop or another step
    fails; then it is ended. It continues from that state."""

    @property
    def has_gpus(self) -> bool:
        """Whether stages that need an accelerator get one."""
        return self.gpus != 0


class Resources(Frozen):
    time: str | None = Field(default=None, pattern=_TIME)
    """Time limit as sbatch takes it (minutes, hours:minutes:seconds, days-hours); without it, the partition's own."""
    cpus_per_task: PositiveInt | None = None
    """Processor cores of each process, for every GPU that it drives: an engine of 8 GPUs gets 8 times as many."""
    memory: str | None = Field(default=None, pattern=_MEMORY)
    """Memory per node (``64G``; 0 is all of it)."""
    partition: Word | None = None
    """Partition, or several separated by commas."""
    account: Word | None = None
    """Account that is charged."""
    qos: Word | None = None
    """Quality of service."""
    reservation: Word | None = None
    """Reservation to run in."""
    comment: Word | None = None
    """Comment of the job, where a site reads it; without it, a mark of the run. Jobs are known by their names too."""
    parallel_tasks: PositiveInt | None = None
    """At most this many tasks of one stage's array at a time."""
    shards_per_task: PositiveInt | None = None
    """Shards that one task of an array takes, one after another, with its model loaded once (1 without it). What a task
    samples is scored when the task is over: more shards load less, fewer are scored earlier. Equal for `rollout`,
    `score` and `embed`, or these wait for the whole array."""
    options: dict[str, str] = {}
    """Further sbatch options by their long name without dashes (``constraint: h100``); "" for one without a value."""

    @field_validator("time", mode="before")
    @classmethod
    def _as_it_was_written(cls, time: object) -> object:
        """YAML 1.1 reads 24:00:00 without quotes as a number of seconds, which Slurm would take for minutes."""
        if isinstance(time, int | float):
            raise ValueError(f'{time} is a number to YAML, also where 24:00:00 was written: quote it, "24:00:00"')
        return time

    @field_validator("options", "cpu_options", check_fields=False)
    @classmethod
    def _known_to_be_harmless(cls, options: dict[str, str]) -> dict[str, str]:
        for name, value in options.items():
            if not _OPTION.fullmatch(name):
                raise ValueError(f"{name!r} is no long sbatch option (written without its dashes)")
            # sbatch takes the beginning of an option's name for the whole.
            meant = name if name in OWN_OPTIONS else next((own for own in OWN_OPTIONS if own.startswith(name)), None)
            if meant is not None:
                short = "" if name == meant else f", which is short for --{meant}"
                raise ValueError(f"--{name}{short}: leave it out, {OWN_OPTIONS[meant]}")
            if value and not re.fullmatch(_WORD, value):
                raise ValueError(f"--{name}={value!r}: only letters, digits and _@%+=:,./~*&|()[]- can be passed on")
        return options

    @property
    def seconds(self) -> int | None:
        """The time limit in seconds; None where the partition decides."""
        if self.time is None:
            return None
        days, dash, rest = self.time.rpartition("-")
        parts = [int(part) for part in rest.split(":")]
        if dash:  # days-hours[:minutes[:seconds]]
            hours, minutes, seconds = (*parts, 0, 0)[:3]
        elif len(parts) == 3:
            hours, minutes, seconds = parts
        else:  # minutes[:seconds]
            hours, (minutes, seconds) = 0, (*parts, 0)[:2]
        return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds

    def over(self, default: "Resources") -> "Resources":
        """These resources, with what is not set taken from `default`; options of both."""
        merged = {
            name: getattr(default, name) if getattr(self, name) is None else getattr(self, name)
            for name in Resources.model_fields
        }
        return Resources(**merged | {"options": default.options | self.options})


class StageResources(Frozen):
    # The stages' names once more: their declarations, in nemo_sspo/stages, import this package. A test compares both.
    prepare_prompts: Resources = Resources()
    further_prompts: Resources = Resources()
    import_policy: Resources = Resources()
    score_labelled: Resources = Resources()
    rollout: Resources = Resources()
    score: Resources = Resources()
    embed: Resources = Resources()
    build_pairs: Resources = Resources()
    reference_logps: Resources = Resources()
    train: Resources = Resources()
    export_candidate: Resources = Resources()
    rollout_selection: Resources = Resources()
    select_model: Resources = Resources()
    export: Resources = Resources()
    rollout_held_out: Resources = Resources()
    evaluate: Resources = Resources()
    diagnose: Resources = Resources()
    report: Resources = Resources()
    """The last job of a run, which draws its page on one core."""


_SHORT = Resources(time="02:00:00")
"""Time limit of a step without a GPU, where the cluster's is longer: to read and write 400 GB twice takes less."""


class SlurmCluster(Resources):
    kind: Literal["slurm"] = "slurm"
    train: SlurmEnvironment
    """Environment of the stages on NeMo and Megatron."""
    rollout: SlurmEnvironment
    """Environment of the stages on vLLM, the oracle and the encoder."""
    stages: StageResources = StageResources()
    """Resources of single stages, which win over the cluster's."""
    images: dict[str, str] = {}
    """Images of single stages, by their names, in place of their environment's (``embed: /images/encoder.sqsh``)."""
    cpu_partition: Word | None = None
    """Partition of the steps that need no GPU; without it, the other steps'. They ask for two hours at most and, where
    they hold the policy, for the memory that it takes, if their stage has no `time` and no `memory` of its own."""
    cpu_options: dict[str, str] = {}
    """sbatch options of the steps in `cpu_partition`, in place of `options`, which perhaps only GPU nodes satisfy;
    those of a stage are added."""
    launcher: Literal["fork", "srun"] = "srun"
    """How training ranks start: one task of srun per rank (GPU), or one per node that forks its ranks (CPU)."""
    gpus_per_node: NonNegativeInt = 8
    """GPUs of a node; 0 is a cluster without GPUs."""
    ranks_per_node: PositiveInt | None = None
    """Training ranks on a node; without it, its GPUs, or all ranks on one node where there are none."""
    gpu_type: Word | None = None
    """Type in the request for GPUs (``h100`` asks for h100:8)."""
    request_gpus: Literal["gpus-per-node", "gres", "exclusive"] = "gpus-per-node"
    """How GPUs are asked for; ``exclusive`` takes whole nodes where GPUs are no Slurm resource."""
    signal_seconds: PositiveInt = 300
    """Seconds before the time limit at which a job is told to save its state and be queued again."""
    restarts: NonNegativeInt = 20
    """Times one step may be queued again, for whatever reason: preemption, a time limit, a lost node, a failure."""
    retries: NonNegativeInt = 2
    """Times one step that failed is tried again; a step whose input is wrong never is."""
    seconds_per_step: PositiveFloat | None = None
    """Expected seconds of an optimizer step; with it, a time limit too short for one checkpoint interval is refused."""
    startup_seconds: NonNegativeFloat = 300.0
    """Expected seconds until a training job takes its first step (image, imports, weights, state)."""

    @property
    def has_gpus(self) -> bool:
        """Whether stages that need an accelerator get one."""
        return self.gpus_per_node != 0

    @model_validator(mode="after")
    def _consistent(self) -> "SlurmCluster":
        if self.cpu_options and self.cpu_partition is None:
            raise ValueError("cpu_options are those of cpu_partition, and there is none: give it, or leave them out")
        if self.has_gpus and self.launcher == "fork":
            raise ValueError("launcher=fork forks ranks from one process, which GPUs do not survive: launcher=srun")
        if not self.has_gpus and self.launcher == "srun":
            raise ValueError("a cluster without GPUs (gpus_per_node=0) needs launcher=fork")
        return self

    @field_validator("images")
    @classmethod
    def _of_stages(cls, images: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(images.keys() - StageResources.model_fields.keys()):
            raise ValueError(f"no stage is named {unknown[0]}; stages are {', '.join(StageResources.model_fields)}")
        return images

    def environment_of(self, stage: str, name: Literal["train", "rollout"]) -> SlurmEnvironment:
        """Where a stage of the environment `name` runs."""
        environment = self.train if name == "train" else self.rollout
        return environment.model_copy(update={"image": self.images.get(stage, environment.image)})

    def resources_of(self, stage: str, *, on_gpus: bool = True) -> Resources:
        """What a stage asks for, on GPUs or, in a cluster that has some, without."""
        own: Resources = getattr(self.stages, stage)
        if on_gpus or not self.has_gpus:
            return own.over(self)
        time = _SHORT.time if (self.seconds or 0) > (_SHORT.seconds or 0) else None
        without_gpu = Resources(partition=self.cpu_partition, time=time).over(self)
        if self.cpu_partition is not None:
            without_gpu = without_gpu.model_copy(update={"options": self.cpu_options})
        return own.over(without_gpu)


Cluster = Annotated[LocalCluster | SlurmCluster, Field(discriminator="kind")]
