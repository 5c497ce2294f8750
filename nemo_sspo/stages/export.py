"""The trained policy as a Hugging Face directory, which the next iteration samples from."""

from nemo_sspo.artifacts.layout import HF_MODEL, NEMO_CHECKPOINT
from nemo_sspo.megatron.convert import export_policy
from nemo_sspo.megatron.precision import params_dtype
from nemo_sspo.stages.context import StageContext


def run(context: StageContext) -> None:
    """Convert the trained weights exactly; config, tokenizer and chat template are those of the base policy."""
    trained = context.input("train")
    context.progress.update(0, 1, unit="models")
    context.output.counts["parameters"] = export_policy(
        trained.file(NEMO_CHECKPOINT),
        trained.file(HF_MODEL),
        context.output.path / HF_MODEL,
        params_dtype(context.experiment.precision),
    )
    context.progress.update(1, 1, unit="models")
