"""Checks of given responses and labelled comparisons: every record is read; a hub's data set is left to the stage."""

from collections.abc import Iterator
from pathlib import Path

from nemo_sspo.artifacts.sources.labelled import read_labelled
from nemo_sspo.artifacts.sources.records import is_on_disk
from nemo_sspo.artifacts.sources.responses import ResponseRead, read_responses
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.launch.checks.prompts import policy_tokens_of, token_counts, trained_conversations
from nemo_sspo.stages.sampling.control_tokens import responses_without_control_tokens
from nemo_sspo.stages.sampling.given_responses import refuse_overlong, responses_to
from nemo_sspo.tokens.own_file import own_file


def check_responses(experiment: Experiment) -> Iterator[str]:
    """The files can be read."""
    data, labelled = experiment.data, experiment.evaluation.labelled_pairs
    if labelled is not None and is_on_disk(labelled):
        read_labelled(labelled, data.columns.names)
    source = experiment.rollout.source
    if source is not None and is_on_disk(source):
        read = read_responses(source, drop_duplicates=data.duplicate_prompts == "drop", names=data.columns.names)
        if (tokens := policy_tokens_of(experiment)) is not None:
            kept, _ = responses_without_control_tokens(read, tokens.control, data.control_tokens)
            _refuse_unusable(experiment, read, kept)
    yield from ()


def _refuse_unusable(experiment: Experiment, read: ResponseRead, kept: ResponseRead) -> None:
    """Every prompt that is to be sampled has its responses, and none is too long."""
    limit = experiment.rollout.max_response_tokens
    places = {conversation.key: conversation.where for conversation in read.prompts.conversations}
    long: list[tuple[str, str, bool]] = []
    for prompt_id, conversation in trained_conversations(experiment):
        key = conversation.key
        if key in read.responses and key not in kept.responses:
            continue
        answers = zip(responses_to(kept, key, prompt_id), kept.finish_reasons[key], strict=True)
        for place, (text, reason) in enumerate(answers, start=1):
            if len(text.encode()) + (reason == "stop") > limit:  # a token stands for at least one byte
                long.append((f"{places[key]}, response {place}", text, reason == "stop"))
    if not long:
        return
    encode = own_file(Path(experiment.policy)).encode
    counts = token_counts([text for _, text, _ in long], encode, limit)
    for (where, _, ended), count in zip(long, counts, strict=True):
        refuse_overlong(where, count + ended, limit)
