"""The observers of every training, in the order in which they are called."""

from nemo_sspo.megatron.binding import Observer
from nemo_sspo.megatron.jobs import TrainingJob
from nemo_sspo.megatron.models.flops import peak_flops_here
from nemo_sspo.megatron.observers.candidates import SaveWeights
from nemo_sspo.megatron.observers.owner import ScratchOwnership
from nemo_sspo.megatron.observers.states import SaveStates
from nemo_sspo.megatron.observers.step_log import StepLog


def standard_observers(job: TrainingJob) -> list[Observer]:
    """An attempt that lost its scratch writes nothing; what a step logs and keeps is on disk before its state is."""
    return [ScratchOwnership(job), StepLog(job, peak_flops_here()), SaveWeights(job), SaveStates(job)]
