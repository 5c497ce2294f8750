"""Checks of the prompt files: every line is read, no model is loaded."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.artifacts.sources.files import source_files
from nemo_sspo.artifacts.sources.prompts import Conversation, Key, PromptRead, read_prompts
from nemo_sspo.artifacts.sources.records import is_on_disk
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.stages.sampling.control_tokens import without_control_tokens
from nemo_sspo.stages.sampling.further_prompts import further_portion, none_left
from nemo_sspo.stages.sampling.prepare_prompts import Cut, Prompt, cut_prompts, divide, too_few_prompts
from nemo_sspo.tokens.chat_template import refused
from nemo_sspo.tokens.files import sentencepiece_file
from nemo_sspo.tokens.lengths import overlong_prompt
from nemo_sspo.tokens.own_file import own_file
from nemo_sspo.tokens.policy_files import PolicyTokens, read_policy_tokens
from nemo_sspo.words import counted

_TOKENIZED_AT_MOST = 2000
_ROLES_TRIED = 200
_PIECE = 20_000
"""Characters that are tokenized at once: a tokenizer takes gigabytes for a text of megabytes."""
_OF_A_TEMPLATE = 2000
"""Bytes that a chat template may add to a conversation; what a longer one makes too long is told by the stage."""
_PER_CUT = 16
"""More tokens than a text has because it was cut: those of the word at the cut."""


def check_prompts(experiment: Experiment) -> Iterator[str]:
    """The files can be read, no prompt is over the length limit, and there are enough of them."""
    data = experiment.data
    read, held_out = _read_prompts(experiment), _read_held_out(experiment)
    tokens = policy_tokens_of(experiment)
    further = _read_further(experiment)
    for source in (read, held_out, further):
        if source is not None and tokens is not None:
            yield from _refused(source, tokens)
    if data.overlong_prompts == "error" and tokens is not None:
        for source in (read, held_out, further):
            if source is not None:
                yield from _first_overlong(source, experiment)
    if read is not None:
        yield from _too_few(experiment, read, held_out, further)


class PlannedPrompts(NamedTuple):
    """Upper bounds of the prompts that a run uses: some may be too long, or have no pair."""

    portions: tuple[int, ...]
    """In each iteration."""
    held_out: int
    """In each evaluation."""
    selecting: int
    """In each selection; 0 where there is none."""

    @property
    def trained(self) -> int:
        """In all iterations together."""
        return sum(self.portions)


def planned_prompts(experiment: Experiment) -> PlannedPrompts | None:
    """How many prompts go where; None for a data set id."""
    data = experiment.data
    read, held_out = _read_prompts(experiment), _read_held_out(experiment)
    if read is None:
        return None
    evaluated = min(data.held_out_count, len(held_out.conversations) if held_out else data.held_out_count)
    later = _further_portions(experiment, read, held_out, _read_further(experiment))
    portions = (*_portions(experiment, read, held_out), *map(len, later))
    return PlannedPrompts(portions, evaluated, _selecting(experiment))


def _selecting(experiment: Experiment) -> int:
    return experiment.selection.prompts if experiment.selection.is_on else 0


def _portions(experiment: Experiment, read: PromptRead, held_out: PromptRead | None) -> tuple[int, ...]:
    """Prompts of each iteration that the run began with. Of one file without held-out prompts of their own their number
    decides."""
    if held_out is not None or len(experiment.prompt_sources) > 1:
        return tuple(map(len, _cut(experiment, read, held_out).portions))
    data = experiment.data
    kept = _selecting(experiment) + (data.held_out_count if data.held_out_prompts is None else 0)
    rest = range(max(0, len(read.conversations) - kept))
    return tuple(map(len, divide(rest, experiment.first_iterations, data.prompts_per_iteration)))


def _read_prompts(experiment: Experiment) -> PromptRead | None:
    return _read(experiment, experiment.prompt_sources, "prompts")


def _read(experiment: Experiment, sources: tuple[str, ...], setting: str) -> PromptRead | None:
    """The prompts of local files that a run uses; a data set of the hub is left to the stage."""
    read = _read_whole(experiment, sources, setting)
    if read is None or experiment.data.overlong_prompts == "error":
        return read
    over = _overlong(read, experiment).places
    kept = [conversation for place, conversation in enumerate(read.conversations) if place not in over]
    return replace(read, conversations=kept)


def _read_whole(experiment: Experiment, sources: tuple[str, ...], setting: str) -> PromptRead | None:
    """Those of any length, as far as their texts may be used."""
    if not all(map(is_on_disk, sources)):
        return None
    data = experiment.data
    paths = [Path(source) for source in sources]
    files = [file for path in paths for file in (source_files(path).taken if path.is_dir() else (path,))]
    stamps = tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files if file.exists())
    read = _read_once(sources, data.duplicate_prompts, setting, tuple(data.columns.names.items()), stamps)
    if isinstance(read, UserError):
        raise read
    tokens = policy_tokens_of(experiment)
    return read if tokens is None else without_control_tokens(read, tokens.control, data.control_tokens)[0]


@lru_cache(maxsize=3)
def _read_once(
    sources: tuple[str, ...],
    duplicates: Literal["error", "drop"],
    setting: str,
    names: tuple[tuple[str, str], ...],
    stamps: object,
) -> PromptRead | UserError:
    """Read once for every state of the files: several checks ask for them."""
    del stamps
    try:
        return read_prompts(sources, duplicates=duplicates, setting=setting, names=dict(names))
    except UserError as error:
        return error


def policy_tokens_of(experiment: Experiment) -> PolicyTokens | None:
    """The tokens of a policy that is a local directory."""
    directory = Path(experiment.policy)
    try:
        return read_policy_tokens(directory, experiment.data.template_arguments) if directory.is_dir() else None
    except (UserError, OSError):
        return None  # the tokenizer cannot be read, which its own check says


def trained_conversations(experiment: Experiment) -> Iterator[tuple[str, Conversation]]:
    """Id and conversation of each prompt that an iteration samples, where it is known which these are."""
    read, held_out = _read_prompts(experiment), _read_held_out(experiment)
    if read is None or not all(_knows_lengths(experiment, source) for source in (read, held_out)):
        return
    ids = {content_id(list(each.messages)): each for each in read.conversations}
    cut = _cut(experiment, read, held_out)
    yield from ((prompt.prompt_id, ids[prompt.prompt_id]) for portion in cut.portions for prompt in portion)


def _knows_lengths(experiment: Experiment, read: PromptRead | None) -> bool:
    """Whether every prompt that is left out for its length is left out of `read`."""
    return read is None or experiment.data.overlong_prompts == "error" or _overlong(read, experiment).whole


def _cut(experiment: Experiment, read: PromptRead, held_out: PromptRead | None) -> Cut:
    """Where each prompt goes."""
    elsewhere: list[Prompt] | None = None if experiment.data.held_out_prompts is None else []
    return cut_prompts(experiment, _prompts(read), elsewhere if held_out is None else _prompts(held_out))


def _further_portions(
    experiment: Experiment, read: PromptRead, held_out: PromptRead | None, further: PromptRead | None
) -> list[list[Prompt]]:
    """Prompts of the iterations that the run did not begin with; none where those lie elsewhere."""
    later = range(experiment.first_iterations + 1, experiment.iterations + 1)
    if not later or (further is None and experiment.further.prompts is not None):
        return []
    cut, candidates = _cut(experiment, read, held_out), _prompts(further or read)
    taken = [cut.held_out, cut.to_select_by, *cut.portions]
    used = {prompt.prompt_id for part in taken for prompt in part}
    portions = []
    for iteration in later:
        portion = further_portion(experiment, iteration, candidates, used, max(map(len, cut.portions)))
        used |= {prompt.prompt_id for prompt in portion}
        portions.append(portion)
    return portions


def _prompts(read: PromptRead) -> list[Prompt]:
    return [Prompt(content_id(list(each.messages)), each.messages, [], each.source) for each in read.conversations]


def _refused(read: PromptRead, tokens: PolicyTokens) -> Iterator[str]:
    """The first conversation that the chat template refuses, of those with other roles than the ones before."""
    seen: set[tuple[str, ...]] = set()
    for conversation in read.conversations:
        roles = tuple(message["role"] for message in conversation.messages)
        if roles in seen or len(seen) > _ROLES_TRIED:
            continue
        seen.add(roles)
        try:
            tokens.render(conversation.messages, True)
        except Exception as error:  # a template is a program
            yield f"{conversation.where}: {refused(error)}"
            return


def _read_held_out(experiment: Experiment) -> PromptRead | None:
    source = experiment.data.held_out_prompts
    return None if source is None else _read(experiment, (source,), "data.held_out_prompts")


def _read_further(experiment: Experiment) -> PromptRead | None:
    source = experiment.further.prompts
    return None if source is None else _read(experiment, (source,), "further.prompts")


def _too_few(
    experiment: Experiment, read: PromptRead, held_out: PromptRead | None, further: PromptRead | None
) -> Iterator[str]:
    """Every iteration needs at least one prompt, and every rollout shard one of its iteration's."""
    shards, portions = experiment.rollout.shards, _portions(experiment, read, held_out)
    evaluated = None if held_out is None else len(held_out.conversations)
    if not all(portions) or evaluated == 0:
        whole = _read_whole(experiment, experiment.prompt_sources, "prompts") or read
        left = len(read.conversations)
        yield too_few_prompts(experiment, evaluated, portions, left, len(whole.conversations) - left)
        return
    later = _further_portions(experiment, read, held_out, further)
    if not all(later):
        place = next(place for place, portion in enumerate(later) if not portion)
        total = len((further or read).conversations)
        yield none_left(experiment, experiment.first_iterations + 1 + place, total)
        return
    portion = min([*portions, *map(len, later)])
    if portion < shards:
        yield f"rollout.shards={shards} is more than the {counted(portion, 'prompt')} of an iteration; lower it"


class Overlong(NamedTuple):
    """The prompts of a source that are over the limit under the chat template."""

    places: dict[int, str]
    """How many tokens each has, by its place among the source's prompts."""
    whole: bool
    """Whether every prompt that may be one was looked at."""


def _first_overlong(read: PromptRead, experiment: Experiment) -> Iterator[str]:
    over = _overlong(read, experiment).places
    if over:
        place = min(over)
        yield overlong_prompt(read.conversations[place].where, over[place], experiment.data.max_prompt_tokens)


def _overlong(read: PromptRead, experiment: Experiment) -> Overlong:
    """Measured once for every state of the policy's files; none where its tokens cannot be known here."""
    directory, data = Path(experiment.policy), experiment.data
    # A SentencePiece model takes a control token of the template for several: too many to leave a prompt out by.
    inexact = data.overlong_prompts == "drop" and sentencepiece_file(directory) is not None
    if inexact or policy_tokens_of(experiment) is None:
        return Overlong({}, whole=False)
    stamps = tuple((file.name, file.stat().st_mtime_ns) for file in sorted(directory.iterdir()) if file.is_file())
    texts = tuple(conversation.key for conversation in read.conversations)
    return _measured(directory, stamps, json.dumps(data.template_arguments), data.max_prompt_tokens, texts)


@lru_cache(maxsize=6)
def _measured(directory: Path, stamps: object, arguments: str, limit: int, texts: tuple[Key, ...]) -> Overlong:
    """A token stands for at least one byte, so that only prompts with more bytes than the limit have to be tokenized.

    Of many the longest are.
    """
    del stamps
    tokens = read_policy_tokens(directory, json.loads(arguments))
    if tokens is None:
        return Overlong({}, whole=False)
    sizes = [sum(len(content.encode()) + 1 for _, content in text) - 1 for text in texts]
    suspects = [place for place, size in enumerate(sizes) if size + _OF_A_TEMPLATE > limit]
    measured = sorted(suspects, key=lambda place: -sizes[place])[:_TOKENIZED_AT_MOST]
    rendered: dict[int, str] = {}
    for place in sorted(measured):
        blanked = [{"role": role, "content": tokens.control.blanked(content)} for role, content in texts[place]]
        try:
            if len((text := tokens.render(blanked, True)).encode()) > limit:
                rendered[place] = text
        except Exception:  # a template is a program; `_refused` says what it refuses
            continue
    lengths = token_counts(list(rendered.values()), own_file(directory).encode, limit) if rendered else []
    over = {
        place: f"more than {length}" if len(text) > _PIECE else f"{length}"
        for (place, text), length in zip(rendered.items(), lengths, strict=True)
        if length > limit
    }
    return Overlong(over, whole=len(measured) == len(suspects))


def token_counts(texts: Sequence[str], encode: Callable[[str], list[int]], limit: int) -> list[int]:
    """Tokens of each text; of a very long one those of its first pieces, enough to be over the limit."""
    counts = [len(encode(text[:_PIECE])) for text in texts]
    for place, text in enumerate(texts):
        for start in range(_PIECE, len(text), _PIECE):
            if counts[place] > limit:
                break
            counts[place] += len(encode(text[start : start + _PIECE])) - _PER_CUT
    return counts
