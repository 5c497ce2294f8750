"""Prompts in, token ids out: de-duplicate, split off the held-out set and T disjoint portions, apply the template.

Where a prompt goes depends on its content and the run's seed alone, not on its place in the file: sorting the file, or
adding a line to it, moves no other prompt by chance.
"""

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from nemo_sspo.artifacts.content_id import content_id
from nemo_sspo.artifacts.facts.sampling import PromptFacts
from nemo_sspo.artifacts.layout import TOKENS
from nemo_sspo.artifacts.sources.models import SIDE_FILES, local_model
from nemo_sspo.artifacts.sources.prompts import Message, PromptRead, read_prompts
from nemo_sspo.artifacts.tables import HELD_OUT, SELECTION_PROMPTS, portion_prompts
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.stages import Data
from nemo_sspo.errors import UserError
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.runner.importable import refuse_unimportable
from nemo_sspo.stages.sampling.control_tokens import without_control_tokens
from nemo_sspo.stages.sampling.other_tokenizers import refuse_other_tokenizers
from nemo_sspo.tokens.lengths import length_problems, overlong_prompt
from nemo_sspo.words import counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


Item = TypeVar("Item")
_RECORDED_PROMPTS = 16
"""Prompts whose token ids are recorded beside those of the probes."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt that is ready to sample from."""

    prompt_id: str
    messages: tuple[Message, ...]
    token_ids: list[int]
    source: int = 0
    """Which of several files of prompts it is from, from 0."""


def run(context: StageContext) -> None:
    """Publish portion_1..T.parquet, held_out.parquet and, where checkpoints are chosen, selection.parquet."""
    from nemo_sspo.rollout.tokenizer import load_policy_tokenizer, token_record
    from nemo_sspo.tokens.library import require_same

    experiment = context.experiment
    data = experiment.data
    refuse_unimportable(experiment, "rollout")
    for problem in length_problems(experiment, local_model(experiment.policy, "policy", SIDE_FILES)):
        raise UserError(problem)
    tokenizer = load_policy_tokenizer(experiment.policy, data.template_arguments)
    refuse_other_tokenizers(experiment)
    read = read_prompts(experiment.prompt_sources, duplicates=data.duplicate_prompts, names=data.columns.names)
    prompts, dropped = ready(read, tokenizer, data, context)
    held_prompts = None
    if data.held_out_prompts is not None:
        held_read = read_prompts(
            data.held_out_prompts,
            duplicates=data.duplicate_prompts,
            setting="data.held_out_prompts",
            names=data.columns.names,
        )
        held_prompts, dropped_held = ready(held_read, tokenizer, data, context)
        dropped += dropped_held
    cut = cut_prompts(experiment, prompts, held_prompts)
    held_out, to_select_by, portions = cut.held_out, cut.to_select_by, cut.portions
    _refuse_empty(experiment, held_out, portions, len(prompts), dropped["too_long"])

    HELD_OUT.write(context.output.path, prompt_rows(held_out))
    first_texts = _first_texts(tokenizer, held_out)
    require_same(
        tokenizer, local_model(experiment.policy, "policy", SIDE_FILES), f"policy={experiment.policy}", first_texts
    )
    record = token_record(tokenizer, data.template_arguments, first_texts)
    (context.output.path / TOKENS).write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
    if experiment.selection.is_on:
        SELECTION_PROMPTS.write(context.output.path, prompt_rows(to_select_by))
    for iteration, portion in enumerate(portions, start=1):
        portion_prompts(iteration).write(context.output.path, prompt_rows(portion))
    used = sum(map(len, portions))
    context.output.facts = PromptFacts(
        prompts=used,
        prompts_per_iteration=max(map(len, portions)),
        held_out=len(held_out),
        left_over=cut.dividable - used,
        mean_prompt_tokens=sum(len(p.token_ids) for portion in portions for p in portion) / used,
        dropped_duplicate=dropped["duplicate"],
        dropped_too_long=dropped["too_long"],
        dropped_control_tokens=dropped["control_tokens"],
        also_held_out=cut.also_held_out,
        selection=len(to_select_by) if experiment.selection.is_on else None,
    )
    context.output.rows = used + len(held_out) + len(to_select_by)


@dataclass(frozen=True)
class Cut:
    """Where each prompt goes."""

    held_out: list[Prompt]
    to_select_by: list[Prompt]
    portions: list[list[Prompt]]
    dividable: int
    """Prompts that the portions were cut from."""
    also_held_out: int | None
    """Prompts that are left out because they are held out too; None where those have no file of their own."""


def cut_prompts(experiment: Experiment, prompts: Sequence[Prompt], held_prompts: Sequence[Prompt] | None) -> Cut:
    """Cut the prompts of a run; `held_prompts` are those of ``data.held_out_prompts``, where there is such a file."""
    ordered, count = by_hash(prompts, experiment.seed), experiment.data.held_out_count
    also_held_out = None
    if held_prompts is None:
        held_out, rest = _split(ordered, count)
    else:
        held_out = by_hash(held_prompts, experiment.seed)[:count]
        held_ids = {prompt.prompt_id for prompt in held_out}
        rest = [prompt for prompt in ordered if prompt.prompt_id not in held_ids]
        also_held_out = len(prompts) - len(rest)
    to_select_by, rest = _split(rest, experiment.selection.prompts if experiment.selection.is_on else 0)
    limit = experiment.data.prompts_per_iteration
    if len(experiment.prompt_sources) == 1:
        portions = divide(rest, experiment.first_iterations, limit)
    else:
        own = ([prompt for prompt in rest if prompt.source == place] for place in range(experiment.first_iterations))
        portions = [portion[:limit] for portion in own]
    return Cut(held_out, to_select_by, portions, len(rest), also_held_out)


def by_hash(prompts: Sequence[Prompt], seed: int) -> list[Prompt]:
    """A seeded permutation that depends on the prompts' content only."""
    return sorted(prompts, key=lambda p: hashlib.sha256(f"{seed}/{p.prompt_id}".encode()).digest())


def divide(prompts: Sequence[Item], parts: int, limit: int | None) -> list[list[Item]]:
    """Cut into `parts` disjoint portions whose sizes differ by at most one, of at most `limit` prompts each."""
    size, longer = divmod(len(prompts), parts)
    starts = [part * size + min(part, longer) for part in range(parts + 1)]
    return [list(prompts[start:stop])[:limit] for start, stop in itertools.pairwise(starts)]


def _split(prompts: list[Prompt], count: int) -> tuple[list[Prompt], list[Prompt]]:
    return prompts[:count], prompts[count:]


def _first_texts(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[Prompt]) -> list[str]:
    """Some prompts as the chat template writes them."""
    first = sorted(prompts, key=lambda prompt: prompt.prompt_id)[:_RECORDED_PROMPTS]
    render = tokenizer.apply_chat_template
    return [str(render(list(p.messages), add_generation_prompt=True, tokenize=False)) for p in first]


def ready(
    read: PromptRead, tokenizer: "PreTrainedTokenizerBase", data: Data, context: StageContext
) -> tuple[list[Prompt], Counter[str]]:
    """Apply the chat template and the length limit to every prompt; also how many were left out, by reason."""
    from nemo_sspo.rollout.tokenizer import control_tokens, prompt_token_ids

    prompts, overlong = [], 0
    read, spelling = without_control_tokens(read, control_tokens(tokenizer), data.control_tokens)
    for done, conversation in enumerate(read.conversations):
        try:
            token_ids = prompt_token_ids(tokenizer, conversation.messages)
        except ValueError as error:
            raise UserError(f"{conversation.where}: {error}") from None
        if len(token_ids) > data.max_prompt_tokens:
            if data.overlong_prompts == "error":
                raise UserError(overlong_prompt(conversation.where, f"{len(token_ids)}", data.max_prompt_tokens))
            overlong += 1
            continue
        messages = conversation.messages
        prompts.append(Prompt(content_id(list(messages)), messages, token_ids, conversation.source))
        context.progress.update(done + 1, len(read.conversations), unit="prompts")
    return prompts, Counter(duplicate=read.duplicates, too_long=overlong, control_tokens=spelling)


def _refuse_empty(
    experiment: Experiment, held_out: list[Prompt], portions: list[list[Prompt]], total: int, too_long: int
) -> None:
    if held_out and all(portions):
        return
    of_a_file = None if experiment.data.held_out_prompts is None else len(held_out)
    raise UserError(too_few_prompts(experiment, of_a_file, list(map(len, portions)), total, too_long))


def too_few_prompts(
    experiment: Experiment, held_out: int | None, portions: Sequence[int], total: int, too_long: int = 0
) -> str:
    """The message when a set would have no prompt.

    Args:
        held_out: prompts of the file of their own, where there is one.
        portions: prompts of each iteration.
        total: all that are left.
        too_long: those that are dropped already.
    """
    data, selection = experiment.data, experiment.selection
    asked = [] if data.held_out_prompts else [f"data.held_out_count={data.held_out_count}"]
    asked += [f"selection.prompts={selection.prompts}"] if selection.is_on else []
    lost = f" ({too_long} are over data.max_prompt_tokens={data.max_prompt_tokens})" if too_long else ""
    if held_out == 0:
        return (
            f"data.held_out_prompts={data.held_out_prompts}: each of its prompts is too long or spells a control "
            "token; give others"
        )
    empty = next((place for place, portion in enumerate(portions) if not portion), None)
    if len(experiment.prompt_sources) > 1 and empty is not None:
        advice = " or lower ".join(["give more prompts", *asked])
        return f"{experiment.prompt_sources[empty]}: no prompt of it is left for iteration {empty + 1}{lost}; {advice}"
    return (
        f"{', '.join(experiment.prompt_sources)}: {counted(total, 'prompt')}{lost} "
        f"{'is' if total == 1 else 'are'} too few for "
        f"{' and '.join([*asked, f'iterations={experiment.first_iterations}'])}; give more prompts or lower these"
    )


def prompt_rows(prompts: Sequence[Prompt]) -> list[dict]:
    """Sorted by id, so that equal sets make equal files."""
    ordered = sorted(prompts, key=lambda prompt: prompt.prompt_id)
    return [{"prompt_id": p.prompt_id, "messages": list(p.messages), "prompt_token_ids": p.token_ids} for p in ordered]
