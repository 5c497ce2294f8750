"""Checks of the file of responses that iteration 1 takes instead of sampling: every record is read."""

from collections.abc import Iterator

from nemo_sspo.artifacts.records import is_on_disk
from nemo_sspo.artifacts.response_source import read_responses
from nemo_sspo.config.experiment import Experiment


def check_responses(experiment: Experiment) -> Iterator[str]:
    """The file can be read; a data set of the hub is left to the stage."""
    source = experiment.rollout.source
    if source is not None and is_on_disk(source):
        read_responses(source, drop_duplicates=experiment.data.duplicate_prompts == "drop")
    yield from ()
