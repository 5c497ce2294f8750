"""The learning rate of every step, in closed form, and whether training sees its peak."""

import pytest

from nemo_sspo.config.stages import Train
from nemo_sspo.megatron.optimizer.learning_rate import highest_factor, learning_rate_factor, schedule


def test_learning_rate_warms_up_and_decays_to_its_floor() -> None:
    factors = [
        learning_rate_factor(step, total=20, warmup=2, floor=0.1, decay="linear") for step in (0, 1, 2, 11, 20, 25)
    ]
    assert factors == pytest.approx([1 / 3, 2 / 3, 1.0, 0.55, 0.1, 0.1])
    assert learning_rate_factor(11, total=20, warmup=2, floor=0.0, decay="cosine") == pytest.approx(0.5)
    assert learning_rate_factor(19, total=20, warmup=2, floor=0.0, decay="constant") == 1.0


@pytest.mark.parametrize("decay", ["linear", "cosine", "constant"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("scheduled", [None, 2, 18])
@pytest.mark.parametrize("steps", [1, 2, 7, 313])
def test_the_highest_factor_is_that_of_the_steps_one_by_one(
    decay: str, warmup: float, scheduled: int | None, steps: int
) -> None:
    train = Train(lr_schedule=decay, warmup_fraction=warmup, schedule_epochs=scheduled, train_epochs=2)
    factor = schedule(train, steps)
    assert highest_factor(train, steps) == max(factor(step) for step in range(2 * steps))


def test_the_papers_schedule_ends_in_its_warm_up() -> None:
    """20,000 pairs in steps of 64 are 313 an epoch, and 564 of 18 epochs' 5,634 warm up."""
    train = Train(learning_rate=5e-7, schedule_epochs=18, train_epochs=1)
    assert highest_factor(train, 313) == 313 / 565
    assert train.learning_rate * highest_factor(train, 313) == pytest.approx(2.8e-7, rel=0.02)
