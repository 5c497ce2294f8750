from typing import get_args

from nemo_sspo.config.experiment import Experiment
from nemo_sspo.megatron.binding import BINDINGS


def test_every_choice_of_a_trainer_has_a_binding() -> None:
    assert set(get_args(Experiment.model_fields["trainer"].annotation)) == BINDINGS.keys()
