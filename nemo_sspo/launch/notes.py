"""What is not wrong with an experiment, but may not be what its user means."""

from collections.abc import Iterator

from nemo_sspo.config.experiment import Experiment
from nemo_sspo.objective.target_blind import TARGET_BLIND


def notes(experiment: Experiment) -> list[str]:
    """Every remark, each one line; none keeps the run from starting."""
    return list(_gate_without_effect(experiment))


def _gate_without_effect(experiment: Experiment) -> Iterator[str]:
    loss, gate = experiment.loss.kind, experiment.gate.kind
    if loss in TARGET_BLIND and gate != "none":
        yield (
            f"loss={loss} does not read win-rate targets: gate={gate} has no effect on what is trained, only on the "
            "margins that are reported; loss=sppo reads them, gate=none says that none is meant"
        )
