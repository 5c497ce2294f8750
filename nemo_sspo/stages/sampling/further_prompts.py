"""Prompts of an iteration that a run did not begin with: new ones, while every portion that exists stays as it is."""

from collections.abc import Sequence, Set

from nemo_sspo.artifacts.facts.sampling import FurtherFacts, PromptFacts
from nemo_sspo.artifacts.sources.prompts import read_prompts
from nemo_sspo.artifacts.tables import HELD_OUT, SELECTION_PROMPTS, portion_prompts
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.sampling.policy_tokenizer import same_tokenizer
from nemo_sspo.stages.sampling.prepare_prompts import Prompt, by_hash, prompt_rows, ready


def run(context: StageContext) -> None:
    """Publish the portion of one iteration."""
    experiment, data = context.experiment, context.experiment.data
    tokenizer = same_tokenizer(context)
    read = read_prompts(
        further_sources(experiment),
        duplicates=data.duplicate_prompts,
        setting=further_setting(experiment),
        names=data.columns.names,
    )
    prompts, dropped = ready(read, tokenizer, data, context)
    used, first = _used(context), context.input("prompts").facts(PromptFacts).prompts_per_iteration
    portion = further_portion(experiment, context.iteration, prompts, used, first)
    if not portion:
        raise UserError(none_left(experiment, context.iteration, len(prompts)))
    portion_prompts(context.iteration).write(context.output.path, prompt_rows(portion))
    context.output.facts = FurtherFacts(
        prompts=len(portion),
        used_before=sum(prompt.prompt_id in used for prompt in prompts),
        mean_prompt_tokens=sum(len(prompt.token_ids) for prompt in portion) / len(portion),
        dropped_duplicate=dropped["duplicate"],
        dropped_too_long=dropped["too_long"],
        dropped_control_tokens=dropped["control_tokens"],
    )
    context.output.rows = len(portion)


def further_sources(experiment: Experiment) -> tuple[str, ...]:
    """Where the prompts of these iterations are read from."""
    return experiment.prompt_sources if experiment.further.prompts is None else (experiment.further.prompts,)


def further_setting(experiment: Experiment) -> str:
    """The setting that names them."""
    return "prompts" if experiment.further.prompts is None else "further.prompts"


def further_portion(
    experiment: Experiment, iteration: int, prompts: Sequence[Prompt], used: Set[str], first: int | None
) -> list[Prompt]:
    """The prompts of an iteration, of those that no portion, evaluation or selection has.

    It does not depend on how many iterations follow, so it stays when the run goes on once more.

    Args:
        used: ids of the prompts in the sets before.
        first: prompts of the largest portion that the run began with, the limit where no setting is one.
    """
    further, data = experiment.further, experiment.data
    left = [prompt for prompt in by_hash(prompts, experiment.seed) if prompt.prompt_id not in used]
    if further.prompts is None and len(experiment.prompt_sources) > 1:
        own = [prompt for prompt in left if prompt.source == iteration - 1]
        return own[: further.prompts_per_iteration or data.prompts_per_iteration]
    return left[: further.prompts_per_iteration or data.prompts_per_iteration or first]


def none_left(experiment: Experiment, iteration: int, total: int) -> str:
    """The message when an iteration would have no prompt."""
    named = ", ".join(further_sources(experiment))
    return (
        f"{further_setting(experiment)}={named}: each of its {total} prompts is used before iteration {iteration} or "
        "kept for evaluation; give new ones with further.prompts=..., fewer for each iteration with "
        "further.prompts_per_iteration=..., or fewer iterations"
    )


def _used(context: StageContext) -> set[str]:
    """Ids of all prompts that the run has taken so far."""
    base, after = context.input("prompts").path, context.experiment.first_iterations
    tables = [(HELD_OUT, base), *((portion_prompts(iteration), base) for iteration in range(1, after + 1))]
    if context.experiment.selection.is_on:
        tables.append((SELECTION_PROMPTS, base))
    tables += [(portion_prompts(each.manifest.iteration), each.path) for each in context.inputs["earlier"]]
    return {row for table, path in tables for row in table.read(path).column("prompt_id").to_pylist()}
