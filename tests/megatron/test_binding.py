from typing import get_args

from nemo_sspo.config.trainers import PACKAGES, Trainer
from nemo_sspo.megatron.binding import BINDINGS


def test_every_choice_of_a_trainer_has_a_binding() -> None:
    assert set(get_args(Trainer)) - {"auto"} == BINDINGS.keys() == PACKAGES.keys()
