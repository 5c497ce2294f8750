"""Sample K responses per prompt from the iteration's policy, one shard of the prompts at a time.

The verbs ``rollout`` (an iteration's portion), ``rollout_held_out`` (the evaluation prompts, one shard) and
``rollout_selection`` (the selection prompts, a shard for each candidate) are all this one; they differ in the prompts
and in K.
"""

import json
import time
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from nemo_sspo.artifacts.facts.sampling import RolloutFacts
from nemo_sspo.artifacts.layout import SPELLED
from nemo_sspo.artifacts.sources.models import local_model
from nemo_sspo.artifacts.tables import HELD_OUT, ROLLOUTS, SELECTION_PROMPTS, portion_prompts
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.families import read_hf_config
from nemo_sspo.rollout.protocol import RolloutEngine, Sampling
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.sampling.engine_limits import engine_problems
from nemo_sspo.stages.sampling.given_responses import take_given
from nemo_sspo.stages.sampling.judged_text import opens_reasoning
from nemo_sspo.stages.sampling.policy_tokenizer import same_tokenizer
from nemo_sspo.stages.sampling.rollout_table import response_facts, rollout_table
from nemo_sspo.tokens.control import special_tokens
from nemo_sspo.visible_gpus import visible_gpus
from nemo_sspo.words import counted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_WHOLE = {"rollout_held_out": HELD_OUT, "rollout_selection": SELECTION_PROMPTS}
"""Prompts of the stages that do not cut them into shards."""


def run(context: StageContext) -> None:
    """Publish rollouts.parquet of one shard."""
    portion = _portion(context)
    prompts = _shard_of(context, portion)
    settings = context.experiment.rollout
    if settings.source is not None and context.stage == "rollout" and context.iteration == 1:
        take_given(context, prompts, settings.source)
        return
    sampling = sampling_of(context)
    context.progress.update(0, len(prompts), unit="prompts", note="loading the policy")

    tokenizer = same_tokenizer(context)
    # The longest prompt of all shards: one engine serves several of them.
    longest = pc.max(pc.list_value_length(portion.column("prompt_token_ids"))).as_py() + sampling.max_tokens
    engine = context.load_once(lambda: _engine(context, tokenizer, longest))
    engine.begin(context.seed)
    token_ids = prompts.column("prompt_token_ids").to_pylist()
    started = time.monotonic()
    completions = engine.generate(
        token_ids, sampling, lambda done: context.progress.update(done, len(prompts), unit="prompts")
    )
    seconds = time.monotonic() - started

    table = rollout_table(prompts, completions, tokenizer)
    ROLLOUTS.write(context.output.path, table)
    context.output.facts = rollout_facts(context, table, tokenizer)
    context.output.rows = table.num_rows
    tokens = sum(len(completion.token_ids) for responses in completions for completion in responses)
    context.output.timings |= {"generation_seconds": seconds, "tokens_per_second": tokens / seconds}


def _engine(context: StageContext, tokenizer: "PreTrainedTokenizerBase", longest: int) -> RolloutEngine:
    """The policy in vLLM, for sequences of up to `longest` tokens."""
    from nemo_sspo.rollout.tokenizer import stop_token_ids
    from nemo_sspo.rollout.vllm_engine import VllmEngine

    config = read_hf_config(local_model(context.policy, "policy"))
    for problem in engine_problems(config, context.experiment.engine, on_cpu=not visible_gpus()):
        raise UserError(problem)
    return VllmEngine(
        context.policy,
        context.experiment.engine,
        seed=context.seed,
        max_model_len=longest,
        stop_token_ids=stop_token_ids(context.policy, tokenizer),
    )


def sampling_of(context: StageContext) -> Sampling:
    settings = context.experiment.rollout
    return Sampling(
        samples=_samples(context),
        temperature=settings.temperature,
        top_p=settings.top_p,
        max_tokens=settings.max_response_tokens,
    )


def _samples(context: StageContext) -> int:
    """Responses per prompt. Evaluation looks for the best of n only among a new policy's responses."""
    settings = context.experiment.rollout
    if context.stage == "rollout":
        return settings.samples_per_prompt
    usual = settings.held_out_samples_per_prompt
    if context.stage == "rollout_selection" or context.iteration == 0:
        return usual
    return max(usual, context.experiment.evaluation.best_of_n or 0)


def _portion(context: StageContext) -> pa.Table:
    """The prompts that all shards together sample, sorted by id; each candidate answers all of them."""
    table = _WHOLE.get(context.stage, portion_prompts(context.iteration))
    source = context.input("portion" if "portion" in context.inputs else "prompts")
    return table.read(source.path).sort_by("prompt_id")


def _shard_of(context: StageContext, portion: pa.Table) -> pa.Table:
    """The contiguous slice of the prompts that this shard samples."""
    if context.stage in _WHOLE:
        return portion
    shards = context.experiment.rollout.shards
    start, stop = (portion.num_rows * shard // shards for shard in (context.shard, context.shard + 1))
    if start == stop:
        raise UserError(
            f"rollout.shards={shards} is more than the {counted(portion.num_rows, 'prompt')} of "
            f"{portion_prompts(context.iteration).file}; lower it"
        )
    return portion.slice(start, stop - start)


def rollout_facts(context: StageContext, table: pa.Table, tokenizer: "PreTrainedTokenizerBase") -> RolloutFacts:
    """Responses, and where tokens and texts differ; responses that spell control tokens go to a file."""
    from nemo_sspo.rollout.tokenizer import control_tokens, policy_turn

    control = control_tokens(tokenizer)
    responses = table.column("responses").combine_chunks().flatten()
    spelled = {
        id_: token
        for id_, text in zip(
            responses.field("response_id").to_pylist(), responses.field("text").to_pylist(), strict=True
        )
        if (token := control.spelled(text)) is not None
    }
    if spelled:
        (context.output.path / SPELLED).write_text(json.dumps(spelled, indent=1) + "\n", encoding="utf-8")
    nameless = set(pc.unique(responses.field("token_ids").flatten()).to_pylist()) - set(tokenizer.get_vocab().values())
    if nameless:
        print(
            f"{len(nameless)} sampled token ids are no tokens of the tokenizer, and no text shows them: {min(nameless)}"
        )
    prompt = policy_turn(tokenizer).prompt
    opened = opens_reasoning(prompt, context.experiment.judging.reasoning_tags)
    return RolloutFacts(
        **vars(response_facts(table)),
        control_tokens=len(spelled),
        control_ids=_with_control_ids(responses, tokenizer),
        ids_without_token=len(nameless),
        opens_reasoning=1 if opened else None,
    )


def _with_control_ids(responses: pa.StructArray, tokenizer: "PreTrainedTokenizerBase") -> int:
    """Responses with a control token before their end, which their text does not show."""
    vocabulary, lists = tokenizer.get_vocab(), responses.field("token_ids")
    special = [vocabulary[token] for token in special_tokens(tokenizer) if token in vocabulary]
    is_control, lengths = np.isin(lists.flatten().to_numpy(), special), lists.value_lengths().to_numpy()
    stopped = pc.equal(responses.field("finish_reason"), "stop").to_numpy(zero_copy_only=False).astype(bool)
    is_control[np.cumsum(lengths)[stopped & (lengths > 0)] - 1] = False
    return len(np.unique(np.repeat(np.arange(len(lists)), lengths)[is_control]))
