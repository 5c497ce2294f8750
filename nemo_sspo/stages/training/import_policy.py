"""The base policy as a checkpoint, from which every layout can start."""

from nemo_sspo.artifacts.facts.training import WeightFacts
from nemo_sspo.artifacts.layout import HF_MODEL, NEMO_CHECKPOINT
from nemo_sspo.artifacts.sources.models import local_model
from nemo_sspo.megatron.binding import binding
from nemo_sspo.megatron.installed import require_trainer
from nemo_sspo.megatron.models.precision import params_dtype
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.runner.importable import refuse_unimportable


def run(context: StageContext) -> None:
    """Convert the policy's weights exactly; copy its config, tokenizer and chat template beside them."""
    require_trainer(context.experiment.trainer)
    refuse_unimportable(context.experiment, "train")
    source = local_model(context.experiment.policy, "policy")
    context.progress.update(0, 1, unit="models")
    parameters = binding(context.experiment.trainer).import_policy(
        source,
        context.output.path / NEMO_CHECKPOINT,
        context.output.path / HF_MODEL,
        params_dtype(context.experiment.precision),
    )
    context.output.facts = WeightFacts(parameters=parameters)
    context.progress.update(1, 1, unit="models")
