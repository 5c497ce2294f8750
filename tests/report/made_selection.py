"""A choice between two checkpoints with chosen numbers, as select_model writes it."""

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.layout import SELECTION as SELECTION_FILE
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.selection import Candidate, SelectionResult
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.stages.runner.settings import stage_settings
from tests.report.made_run import put


def around(mean: float) -> Interval:
    """A mean and an interval of 0.05 either side."""
    return Interval(mean=mean, low=round(mean - 0.05, 3), high=round(mean + 0.05, 3))


def candidate(step: int, win: float, tokens: float) -> Candidate:
    """A checkpoint that wins a little less at equal length."""
    return Candidate(
        step=step, win_rate=around(win), length_controlled=around(win - 0.02), mean_tokens=tokens, unfinished=0
    )


SELECTION = SelectionResult(
    iteration=1,
    opponent=0,
    opponent_mean_tokens=20.0,
    prompts=200,
    confidence=0.95,
    criterion="win_rate",
    candidates=[candidate(10, 0.6, 22.0), candidate(20, 0.56, 25.0)],
    chosen=0,
    runner_up=1,
    difference=Interval(mean=0.04, low=-0.01, high=0.09),
    reason="Step 10 is <b>best</b>.",
    stop="nobody wins",
)


def put_selection(settings: Experiment, selection: SelectionResult = SELECTION) -> None:
    """Publish it in its iteration's place."""
    best = selection.candidates[selection.chosen]
    put(
        RunLayout(settings.run_dir),
        "select_model",
        selection.iteration,
        files={SELECTION_FILE: selection.model_dump_json()},
        config=stage_settings(settings, "select_model"),
        candidates=len(selection.candidates),
        chosen_step=best.step,
        last_step=selection.candidates[-1].step,
        criterion=selection.criterion,
        win=best.win_rate.mean,
        win_low=best.win_rate.low,
        win_high=best.win_rate.high,
        reason=selection.reason,
        stop=selection.stop,
    )
