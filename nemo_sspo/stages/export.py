"""The trained policy as a Hugging Face directory, which the next iteration samples from, with its model card."""

from nemo_sspo.artifacts.layout import HF_MODEL, NEMO_CHECKPOINT
from nemo_sspo.megatron.convert import export_policy
from nemo_sspo.megatron.precision import params_dtype
from nemo_sspo.stages.context import StageContext
from nemo_sspo.stages.generation_config import write_generation_config
from nemo_sspo.stages.model_card import MODEL_CARD, model_card


def run(context: StageContext) -> None:
    """Convert the trained weights exactly; config, tokenizer and chat template are those of the base policy."""
    trained, directory = context.input("train"), context.output.path / HF_MODEL
    context.progress.update(0, 1, unit="models")
    context.output.counts["parameters"] = export_policy(
        trained.file(NEMO_CHECKPOINT),
        trained.file(HF_MODEL),
        directory,
        params_dtype(context.experiment.precision),
    )
    write_generation_config(directory, context.experiment.rollout)
    card = model_card(
        context.experiment,
        context.iteration,
        prompts=context.input("prompts").manifest,
        pairs=context.input("build_pairs").manifest,
        train=trained.manifest,
    )
    (directory / MODEL_CARD).write_text(card, encoding="utf-8")
    context.progress.update(1, 1, unit="models")
