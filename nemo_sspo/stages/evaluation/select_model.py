"""The checkpoint of an iteration with the best oracle win rate becomes its policy; where none wins, the run may end.

Prompts and opponent are the same for all of them: the selection prompts, which neither training nor evaluation sees,
and the policy that the iteration started from.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from nemo_sspo.artifacts.facts.evaluation import SelectionFacts
from nemo_sspo.artifacts.facts.training import TrainFacts
from nemo_sspo.artifacts.layout import SELECTION
from nemo_sspo.artifacts.selection import SelectionResult, policy_name
from nemo_sspo.artifacts.store import Artifact
from nemo_sspo.artifacts.tables import CANDIDATES
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.batch_plan import candidate_steps
from nemo_sspo.oracle.registry import load_oracle
from nemo_sspo.stages.evaluation.best_candidate import CandidateMatches, choose, reason, stop_reason
from nemo_sspo.stages.evaluation.matches import HeldOut, judged, longer, match_rows, read_held_out, resampling
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.sampling.judging import resources
from nemo_sspo.stages.training.policy_checkpoint import policy_selection


def run(context: StageContext) -> None:
    """Publish selection.json, and candidates.parquet with every prompt's win rates."""
    k = context.experiment.rollout.held_out_samples_per_prompt
    candidates = [read_held_out(artifact, k, context.experiment.judging) for artifact in context.inputs["candidates"]]
    before = _before(context, k)
    for number, candidate in enumerate(candidates):
        if candidate.prompts != before.prompts:
            raise UserError(
                f"select_model: candidate {number} has answered other prompts than the policy before it; delete "
                f"{context.inputs['candidates'][number].path} and run again"
            )
    prompt_ids = sorted(before.prompts)

    rows, spans = match_rows(prompt_ids, [(candidate, before) for candidate in candidates])
    context.progress.update(0, len(rows), unit="comparisons", note="loading the oracle")
    oracle = load_oracle(context.experiment.oracle, resources(context))
    wins, asked = judged(context, oracle, prompt_ids, rows, spans)

    steps = candidate_steps(_steps(context.input("train")), len(candidates))
    matches = [
        CandidateMatches(
            step, wins_N, longer(candidate, before, prompt_ids), candidate.mean_tokens, candidate.unfinished
        )
        for step, candidate, wins_N in zip(steps, candidates, wins, strict=True)
    ]
    selection = _selection(context, matches, before)
    (context.output.path / SELECTION).write_text(selection.model_dump_json(indent=1) + "\n", encoding="utf-8")
    CANDIDATES.write(context.output.path, _table(prompt_ids, matches))
    context.output.rows = len(prompt_ids)
    context.output.facts = _facts(selection, asked)


def _steps(train: Artifact) -> int:
    if (steps := train.facts(TrainFacts).steps) is None:
        raise UserError(f"{train.path}: its manifest does not tell its steps; train anew")
    return steps


def _before(context: StageContext, samples: int) -> HeldOut:
    """The responses of the policy that the iteration started from: the base's, or the chosen candidate's."""
    selection = policy_selection(context)
    return read_held_out(
        context.inputs["before"][0 if selection is None else selection.chosen], samples, context.experiment.judging
    )


def _selection(context: StageContext, matches: Sequence[CandidateMatches], before: HeldOut) -> SelectionResult:
    settings, how = context.experiment.selection, resampling(context)
    opponent = policy_name(context.iteration - 1)
    choice = choose(matches, settings.criterion, how)
    return SelectionResult(
        iteration=context.iteration,
        opponent=context.iteration - 1,
        opponent_mean_tokens=before.mean_tokens,
        prompts=len(before.prompts),
        confidence=how["confidence"],
        criterion=settings.criterion,
        candidates=choice.candidates,
        chosen=choice.chosen,
        runner_up=choice.runner_up,
        difference=choice.difference,
        reason=reason(choice, settings.criterion, opponent),
        stop=stop_reason(choice, settings, opponent),
    )


def _table(prompt_ids: Sequence[str], matches: Sequence[CandidateMatches]) -> pa.Table:
    """One row per candidate and prompt."""
    columns = {
        "candidate": np.repeat(np.arange(len(matches), dtype=np.int32), len(prompt_ids)),
        "prompt_id": list(prompt_ids) * len(matches),
        "win": np.concatenate([candidate.wins_N for candidate in matches]),
        "length_difference": np.concatenate([candidate.longer_N for candidate in matches]),
    }
    return CANDIDATES.of(columns)


def _facts(selection: SelectionResult, asked: Mapping[str, int]) -> SelectionFacts:
    """What a run's summary and its runner read without opening the file."""
    return SelectionFacts(
        prompts=selection.prompts,
        candidates=len(selection.candidates),
        chosen_step=selection.candidates[selection.chosen].step,
        last_step=selection.candidates[-1].step,
        criterion=selection.criterion,
        win=selection.by_criterion(selection.chosen),
        reason=selection.reason,
        stop=selection.stop,
        judge=dict(asked),
    )
