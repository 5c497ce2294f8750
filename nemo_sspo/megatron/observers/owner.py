"""Which attempt at a training owns its scratch: the one that started last."""

import torch.distributed as dist
from typing_extensions import override

from nemo_sspo.megatron.binding import LiveTraining, Observer
from nemo_sspo.megatron.jobs import TrainingJob


class ScratchOwnership(Observer):
    """Ends an attempt that another one has replaced: an abandoned node may still be running."""

    def __init__(self, job: TrainingJob) -> None:
        self._owner = job.scratch / "owner"
        self._attempt = job.attempt

    @override
    def on_start(self, training: LiveTraining) -> None:
        if dist.get_rank() == 0:
            self._owner.parent.mkdir(parents=True, exist_ok=True)
            self._owner.write_text(self._attempt)

    @override
    def on_step(self, training: LiveTraining) -> None:
        if dist.get_rank() == 0 and self._owner.read_text() != self._attempt:
            raise RuntimeError("another attempt at this step has begun: this one ends")
