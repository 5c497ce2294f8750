"""A trained policy as a Hugging Face directory.

The verbs ``export`` (the iteration's policy, which the next one samples from, with its model card) and
``export_candidate`` (a checkpoint that may become it, a shard each) are both this one.
"""

from collections.abc import Iterator
from pathlib import Path

from nemo_sspo.artifacts.facts.training import WeightFacts
from nemo_sspo.artifacts.knobs import knob_changes
from nemo_sspo.artifacts.layout import HF_MODEL, PEFT_ADAPTER, candidate_checkpoint
from nemo_sspo.artifacts.manifest import Manifest, read_manifest_file
from nemo_sspo.artifacts.store import is_published
from nemo_sspo.megatron.binding import binding
from nemo_sspo.megatron.checkpoints.adapter_files import write_peft
from nemo_sspo.megatron.models.precision import params_dtype
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.runner.registry import stage_inputs
from nemo_sspo.stages.training.generation_config import write_generation_config
from nemo_sspo.stages.training.model_card import MODEL_CARD, model_card
from nemo_sspo.stages.training.policy_checkpoint import policy_checkpoint, policy_selection


def run(context: StageContext) -> None:
    """Convert the trained weights exactly; config, tokenizer and chat template are those of the base policy."""
    trained, directory = context.input("checkpoint"), context.output.path / HF_MODEL
    is_candidate = context.stage == "export_candidate"
    context.progress.update(0, 1, unit="models")
    parameters = binding(context.experiment.trainer).export_policy(
        trained.file(candidate_checkpoint(context.shard, context.experiment.selection.candidates))
        if is_candidate
        else policy_checkpoint(context),
        trained.file(HF_MODEL),
        directory,
        params_dtype(context.experiment.precision),
    )
    context.output.facts = WeightFacts(parameters=parameters)
    train = context.experiment.train
    if train.export_adapter and not is_candidate:
        write_peft(
            policy_checkpoint(context),
            trained.file(HF_MODEL),
            context.output.path / PEFT_ADAPTER,
            base=context.experiment.policy,
            factor=train.lora_alpha / train.lora_rank,
        )
    write_generation_config(directory, context.experiment.rollout)
    if not is_candidate:
        card = model_card(
            context.experiment,
            context.iteration,
            prompts=context.input("prompts"),
            further=context.inputs.get("further", ()),
            pairs=context.input("build_pairs"),
            train=trained,
            selection=policy_selection(context),
            changed=knob_changes(made_by(context)),
        )
        (directory / MODEL_CARD).write_text(card, encoding="utf-8")
    context.progress.update(1, 1, unit="models")


def made_by(context: StageContext) -> Iterator[Manifest]:
    """Manifests of the steps that the policy was made by, as far as they still lie in the run."""
    waiting = [artifact.path for group in context.inputs.values() for artifact in group]
    seen: set[Path] = set()
    while waiting:
        if (path := waiting.pop()) not in seen and is_published(path):
            seen.add(path)
            yield (manifest := read_manifest_file(path))
            place = (manifest.stage, context.experiment, context.layout, manifest.iteration, manifest.shard)
            waiting += [source for group in stage_inputs(*place).values() for source in group]
