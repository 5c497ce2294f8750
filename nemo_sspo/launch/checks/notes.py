"""Remarks on settings that are valid but may not be what the user means."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pyarrow as pa

from nemo_sspo.artifacts.sources.files import source_files
from nemo_sspo.artifacts.sources.prompts import COLUMNS as PROMPT_COLUMNS
from nemo_sspo.artifacts.sources.records import fields_read, first_fields, is_on_disk
from nemo_sspo.artifacts.sources.responses import COLUMNS as RESPONSE_COLUMNS
from nemo_sspo.config.cluster import LocalCluster, SlurmCluster
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.oracles import PairRMOracle
from nemo_sspo.encoder.files import default_prompt
from nemo_sspo.errors import UserError
from nemo_sspo.launch.checks.mounts import hub_id_of
from nemo_sspo.launch.checks.oracle import oracle_paths
from nemo_sspo.launch.checks.prompts import planned_prompts
from nemo_sspo.megatron.batches.batch_plan import steps_per_epoch
from nemo_sspo.megatron.optimizer.learning_rate import highest_factor
from nemo_sspo.tokens.policy_files import model_rows, read_policy_tokens
from nemo_sspo.tokens.vocabulary import read_vocabulary
from nemo_sspo.visible_gpus import visible_gpus

_NAMED = 5
_TOY_DATA, _TOY_MODELS = "scripts/toy/data/", Path("assets/toy")
_MANY_STEPS = 1000
"""Steps of an epoch where the number of prompts is not known: enough that rounding hides nothing."""

_PADDED_AT_MOST = 0.05
"""Share of a vocabulary's rows that padding may make."""


def notes(experiment: Experiment) -> list[str]:
    """Every remark, each one line; none keeps the run from starting."""
    return [note for kind in _KINDS for note in _readable(kind(experiment))]


def _readable(found: Iterator[str]) -> Iterator[str]:
    """Remarks up to a file that cannot be read, which its own check reports."""
    with suppress(UserError, OSError, pa.ArrowException):
        yield from found


def _gate_without_effect(experiment: Experiment) -> Iterator[str]:
    loss, gate = experiment.loss, experiment.gate.kind
    if loss.reads == "choice" and gate != "none":
        yield (
            f"loss={loss.kind} does not read win-rate targets: gate={gate} has no effect on what is trained, only on "
            "the margins that are reported; loss=sppo reads them, gate=none says that none is meant"
        )


def _form_without_effect(experiment: Experiment) -> Iterator[str]:
    loss, gate = experiment.loss, experiment.gate
    if loss.reads == "pair" and gate.form != "pair":
        yield (
            f"loss={loss.kind} reads the one probability of the pair, whose weight is the pair's similarity: "
            f"gate.form={gate.form} has no effect on what is trained; loss=sppo reads a target of each response"
        )


def _state_never_saved(experiment: Experiment) -> Iterator[str]:
    if isinstance(experiment.cluster, SlurmCluster) and experiment.train.checkpoint_every_steps is None:
        yield (
            "train.checkpoint_every_steps is not set: a lost node or a crash starts an iteration's training from its "
            "first step; train.checkpoint_every_steps=50 has it continue from its newest state"
        )


def _cores_left_to_slurm(experiment: Experiment) -> Iterator[str]:
    cluster = experiment.cluster
    if not isinstance(cluster, SlurmCluster) or not cluster.has_gpus:
        return
    if unset := [stage for stage in ("rollout", "score", "train") if cluster.resources_of(stage).cpus_per_task is None]:
        yield (
            f"cluster.cpus_per_task is not set for {', '.join(unset)}: Slurm gives each process its default, often one "
            "core, and vLLM wants two and one more for every GPU; cluster.cpus_per_task=12 asks for 12 for each GPU"
        )


def _backbone_elsewhere(experiment: Experiment) -> Iterator[str]:
    oracle = experiment.oracle
    if not isinstance(oracle, PairRMOracle) or not Path(oracle.path).is_dir():
        return
    if (backbone := hub_id_of("oracle.path", oracle.path)) is not None:
        yield (
            f"oracle.path={oracle.path}: its config.json names its backbone by the hub id {backbone}, whose "
            f"configuration and tokenizer are fetched: where the hub is not reached, lay them into "
            f"{Path(oracle.path) / backbone}, or take llm-blender/PairRM-hf"
        )


def _encoder_by_default(experiment: Experiment) -> Iterator[str]:
    """A pooling or a prompt that the user has not named, and sentence-transformers or the model's files choose."""
    encoder = experiment.encoder
    directory = Path(encoder.path)
    if not (directory / "config.json").is_file() and not (directory / "modules.json").is_file():
        return
    if not (directory / "modules.json").is_file():
        yield (
            f"encoder.path={encoder.path}: has no modules.json, so sentence-transformers chooses the pooling: the "
            "mean, or the last token of a causal model"
        )
    prompt = default_prompt(directory)
    if prompt and encoder.prefix is None and encoder.prompt_name is None:
        yield (
            f"encoder.path={encoder.path}: puts its default prompt {prompt!r} before every text; encoder.prefix='' is "
            "none"
        )


def _files_left_out(experiment: Experiment) -> Iterator[str]:
    """Files in a directory of records that are not read."""
    sources = [
        *(("prompts", source) for source in experiment.prompt_sources),
        ("further.prompts", experiment.further.prompts),
        ("data.held_out_prompts", experiment.data.held_out_prompts),
        ("rollout.source", experiment.rollout.source),
        ("evaluation.labelled_pairs", experiment.evaluation.labelled_pairs),
    ]
    for setting, source in sources:
        if source is None or not Path(source).is_dir():
            continue
        if names := source_files(Path(source)).left_out:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            yield f"{setting}={source}: not read of this directory: {', '.join(names[:_NAMED])}{more}"


def _fields_not_read(experiment: Experiment) -> Iterator[str]:
    """Unused fields beside the prompt: without a note, a field that should change the prompt is ignored silently."""
    read = set(fields_read((*PROMPT_COLUMNS, *RESPONSE_COLUMNS), experiment.data.columns.names))
    for source in filter(is_on_disk, experiment.prompt_sources):
        if unread := [name for name in first_fields(source) if name not in read]:
            more = f" and {len(unread) - _NAMED} more" if len(unread) > _NAMED else ""
            yield f"prompts={source}: fields that are not read: {', '.join(unread[:_NAMED])}{more}"


def _toy_elsewhere(experiment: Experiment) -> Iterator[str]:
    """A part of the quickstart's small world beside prompts of another."""
    if any(source.startswith(_TOY_DATA) for source in experiment.prompt_sources):
        return
    models = [("policy", experiment.policy), *(("oracle.path", path) for path in oracle_paths(experiment))]
    for setting, path in models:
        if Path(path).parent == _TOY_MODELS:
            yield (
                f"{setting}={path}: made for the quickstart's own prompts, and knows no other words than theirs: give "
                f"another {setting}=..., or take experiment=small"
            )


def _gpus_elsewhere(experiment: Experiment) -> Iterator[str]:
    """A plan may be made on another machine than the run's."""
    cluster, seen = experiment.cluster, len(visible_gpus())
    if isinstance(cluster, LocalCluster) and (cluster.gpus or 0) > seen:
        yield (
            f"cluster.gpus={cluster.gpus}, and {seen or 'no GPU'} can be seen on this machine: what GPUs alone can "
            "tell (Transformer Engine, FP8, memory) is not checked here; `nemo-sspo doctor` tells it there"
        )


def _rate_below_its_peak(experiment: Experiment) -> Iterator[str]:
    """Training that ends while the learning rate still rises."""
    train = experiment.train
    factor = highest_factor(train, _steps_per_epoch(experiment))
    if factor < 1:
        scheduled = train.schedule_epochs or train.train_epochs
        yield (
            f"train.schedule_epochs={scheduled}, train.train_epochs={train.train_epochs}: training ends in the warm-up "
            f"(train.warmup_fraction={train.warmup_fraction:g} of what is scheduled), so the learning rate rises to "
            f"{factor * train.learning_rate:.2g} and never reaches train.learning_rate={train.learning_rate:g}"
        )


def _pairs_beyond_a_row(experiment: Experiment) -> Iterator[str]:
    """A packed row holds whole pairs, and training refuses one that is longer."""
    data, train, bound = experiment.data, experiment.train, experiment.pairs.max_tokens
    if not train.packing:
        return
    response = experiment.rollout.max_response_tokens
    prompt = data.max_prompt_tokens if bound is None else max(1, min(data.max_prompt_tokens, bound - response))
    response = response if bound is None else min(response, bound - prompt)
    longest = prompt + 1 + 2 * response if train.share_prompt else 2 * (prompt + response)
    if longest > train.pack_tokens:
        yield (
            f"train.pack_tokens={train.pack_tokens}: a pair may take {longest} tokens of a packed row, and training "
            "ends at one that does not fit; raise it, or have pairs.max_tokens leave longer ones out"
        )


def _momentum_of_sgd(experiment: Experiment) -> Iterator[str]:
    """It is on unless it is switched off, and elsewhere SGD has none."""
    if experiment.train.optimizer == "sgd":
        yield (
            f"train.optimizer=sgd: its momentum is train.sgd_momentum={experiment.train.sgd_momentum:g}; 0 trains "
            "without; train.adam_* have no effect"
        )


def _steps_per_epoch(experiment: Experiment) -> int:
    try:
        planned = planned_prompts(experiment)
    except UserError:  # the prompts cannot be read, which their own check says
        planned = None
    if planned is None or not all(planned.portions):
        return _MANY_STEPS
    return steps_per_epoch(max(planned.portions), experiment.train.global_batch_size)


def _rows_without_tokens(experiment: Experiment) -> Iterator[str]:
    """A vocabulary is padded by a few per cent at most: more is another model's tokenizer."""
    directory = Path(experiment.policy)
    if not directory.is_dir():
        return
    vocabulary, rows = read_vocabulary(directory), model_rows(directory)
    if vocabulary is None or rows is None:
        return
    nameless = rows - sum(id_ < rows for id_ in vocabulary.tokens)
    if nameless > _PADDED_AT_MOST * rows:
        yield (
            f"policy={directory}: {nameless} of its {rows} rows have no token in the tokenizer beside it: one that is "
            "sampled has no text; see that the tokenizer is this model's"
        )


def _no_end_of_turn(experiment: Experiment) -> Iterator[str]:
    directory = Path(experiment.policy)
    tokens = read_policy_tokens(directory, experiment.data.template_arguments) if directory.is_dir() else None
    if tokens is not None and tokens.turn.end is None:
        yield (
            f"policy={directory}: its chat template puts no token behind an answer; responses end at the tokenizer's "
            "end of sequence, which the policy may not have been taught to say"
        )


_KINDS: tuple[Callable[[Experiment], Iterator[str]], ...] = (
    _gate_without_effect,
    _form_without_effect,
    _state_never_saved,
    _cores_left_to_slurm,
    _backbone_elsewhere,
    _encoder_by_default,
    _rows_without_tokens,
    _no_end_of_turn,
    _files_left_out,
    _fields_not_read,
    _rate_below_its_peak,
    _toy_elsewhere,
    _momentum_of_sgd,
    _pairs_beyond_a_row,
    _gpus_elsewhere,
)
