"""The weights that a training publishes: its candidates on the way, and the new policy at the end."""

import shutil

import torch.distributed as dist
from typing_extensions import override

from nemo_sspo.megatron.binding import LiveTraining, Observer
from nemo_sspo.megatron.checkpoints.state_files import hash_while_writing, seal
from nemo_sspo.megatron.jobs import TrainingJob


class SaveWeights(Observer):
    """Training goes on as if nothing had been saved.

    Called before `SaveStates`: a run that resumes after a step finds the candidate of that step.
    """

    def __init__(self, job: TrainingJob) -> None:
        self._output = job.output
        self._candidates = job.earlier_candidates

    @override
    def on_step(self, training: LiveTraining) -> None:
        if (directory := self._candidates.get(training.step)) is None:
            return
        if dist.get_rank() == 0:
            shutil.rmtree(directory, ignore_errors=True)  # a killed attempt's, or that of steps taken again
        with hash_while_writing():
            training.save_weights(directory)
        if dist.get_rank() == 0:
            seal(directory)  # it lies in the scratch for the rest of the training

    @override
    def on_end(self, training: LiveTraining, error: BaseException | None) -> None:
        if error is None:
            training.save_weights(self._output)
