"""Checks of the prompt files: every line is read, no model is."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from nemo_sspo.artifacts.prompt_source import Conversation, PromptRead, read_prompts
from nemo_sspo.artifacts.records import is_on_disk
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.stages import Data

_TOKENIZED_AT_MOST = 2000


def check_prompts(experiment: Experiment) -> Iterator[str]:
    """The files can be read, no prompt is over the length limit, and there are enough of them."""
    data = experiment.data
    read = _read(experiment.prompts, data.duplicate_prompts)
    held_out = _read_held_out(data)
    if data.overlong_prompts == "error":
        for source in (read, held_out):
            if source is not None:
                yield from _overlong(source, Path(experiment.policy) / "tokenizer.json", data.max_prompt_tokens)
    if read is not None:
        yield from _too_few(experiment, read, _available(experiment, read, held_out))


def planned_prompts(experiment: Experiment) -> tuple[int, int] | None:
    """At most how many prompts a run trains on in all iterations, and evaluates on in each; None for a data set id."""
    data = experiment.data
    read = _read(experiment.prompts, data.duplicate_prompts)
    held_out = _read_held_out(data)
    if read is None:
        return None
    available = _available(experiment, read, held_out)
    trained = min(available, experiment.iterations * (data.prompts_per_iteration or available))
    return trained, min(data.held_out_count, len(held_out.conversations) if held_out else data.held_out_count)


def _available(experiment: Experiment, read: PromptRead, held_out: PromptRead | None) -> int:
    """Prompts that are not kept for evaluation."""
    if held_out is not None:
        reserved = {conversation.key for conversation in held_out.conversations}
        return sum(conversation.key not in reserved for conversation in read.conversations)
    if experiment.data.held_out_prompts is None:
        return len(read.conversations) - experiment.data.held_out_count
    return len(read.conversations)


def _read(source: str, duplicates: Literal["error", "drop"], setting: str = "prompts") -> PromptRead | None:
    """A local file; a data set of the hub is left to the stage."""
    return read_prompts(source, duplicates=duplicates, setting=setting) if is_on_disk(source) else None


def _read_held_out(data: Data) -> PromptRead | None:
    source = data.held_out_prompts
    return None if source is None else _read(source, data.duplicate_prompts, "data.held_out_prompts")


def _too_few(experiment: Experiment, read: PromptRead, available: int) -> Iterator[str]:
    """Every iteration needs at least one prompt, and every rollout shard one of its iteration's."""
    iterations, shards = experiment.iterations, experiment.rollout.shards
    total = len(read.conversations)
    if available < iterations:
        held = "" if experiment.data.held_out_prompts else f"data.held_out_count={experiment.data.held_out_count} and "
        yield (
            f"{read.source}: {total} prompts are too few for {held}iterations={iterations}; "
            "give more prompts or lower these"
        )
        return
    portion = min(available // iterations, experiment.data.prompts_per_iteration or available)
    if portion < shards:
        yield f"rollout.shards={shards} is more than the {portion} prompts of an iteration; lower it"


def _overlong(read: PromptRead, tokenizer_file: Path, limit: int) -> Iterator[str]:
    """A prompt whose text alone, without the chat template, is over the limit.

    A token stands for at least one byte, so that only prompts with more bytes than the limit have to be tokenized.
    """
    sized = [(len(_text(conversation).encode()), conversation) for conversation in read.conversations]
    suspects = [(size, conversation) for size, conversation in sized if size > limit]
    if not suspects or not tokenizer_file.is_file():
        return
    suspects.sort(key=lambda item: -item[0])
    longest = sorted((item[1] for item in suspects[:_TOKENIZED_AT_MOST]), key=lambda item: item.line)
    for conversation, length in zip(longest, _token_counts(longest, tokenizer_file), strict=True):
        if length > limit:
            yield (
                f"{read.where(conversation)}: {length} tokens even without the chat template, over "
                f"data.max_prompt_tokens={limit}; shorten it, raise the limit, or set data.overlong_prompts=drop"
            )
            return


def _token_counts(conversations: Sequence[Conversation], tokenizer_file: Path) -> list[int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    encodings = tokenizer.encode_batch([_text(item) for item in conversations], add_special_tokens=False)
    return [len(encoding) for encoding in encodings]


def _text(conversation: Conversation) -> str:
    return "\n".join(message["content"] for message in conversation.messages)
