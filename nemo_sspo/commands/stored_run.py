"""The experiment that a command is given: by overrides, or by the directory of a run."""

from collections.abc import Sequence
from pathlib import Path

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.load import change_experiment, load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.run_directory import going_on, stored_experiment


def directory(given: Sequence[str]) -> Path | None:
    """The directory that stands in the place of overrides, or before them, if one does."""
    return Path(given[0]) if given and "=" not in given[0] else None


def stored_run(root: Path) -> Experiment:
    """The experiment that a run was begun with.

    Raises:
        UserError: there is no run, another version wrote it, or it was moved.
    """
    experiment = stored_experiment(RunLayout(root))
    if experiment is None:
        raise UserError(f"{root}: experiment.json is of another version; give the overrides it was begun with")
    if experiment.run_dir.resolve() != root.resolve():
        raise UserError(
            f"{root}: its experiment.json says {experiment.run_dir}; run this from the directory that it was begun "
            "from, and leave the run where it is"
        )
    return experiment


def given_experiment(given: Sequence[str], config_dir: Path | None) -> Experiment:
    """The experiment of a run's directory, with overrides behind it or without, or of overrides; as its run goes on.

    Raises:
        UserError: nothing is given, or what `stored_run` and `load_experiment` say.
    """
    if not given:
        raise UserError("give the directory of a run, as in runs/<name>, or the overrides of one")
    if (root := directory(given)) is None:
        return going_on(load_experiment(given, config_dir))
    stored = stored_run(root)
    experiment = change_experiment(stored, given[1:], config_dir) if given[1:] else stored
    if experiment.run_dir != stored.run_dir:
        raise UserError(f"{root}: a run keeps its name and runs_dir; leave them out, or begin another run")
    return going_on(experiment)
