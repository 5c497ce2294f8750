"""Checks of given responses and labelled comparisons: every record is read; a hub's data set is left to the stage."""

from collections.abc import Iterator

from nemo_sspo.artifacts.sources.labelled import read_labelled
from nemo_sspo.artifacts.sources.records import is_on_disk
from nemo_sspo.artifacts.sources.responses import read_responses
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.checks.prompts import control_tokens_of
from nemo_sspo.stages.sampling.control_tokens import responses_without_control_tokens


def check_responses(experiment: Experiment) -> Iterator[str]:
    """The files can be read."""
    labelled = experiment.evaluation.labelled_pairs
    if labelled is not None and is_on_disk(labelled):
        read_labelled(labelled)
    source = experiment.rollout.source
    if source is not None and is_on_disk(source):
        read = read_responses(source, drop_duplicates=experiment.data.duplicate_prompts == "drop")
        if (control := control_tokens_of(experiment)) is not None:
            responses_without_control_tokens(read, control, experiment.data.control_tokens)
    yield from ()
