"""Shared by the stages that judge: the oracle's resources, and rows from a rollouts table."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nemo_sspo.artifacts.layout import step_id
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.judge.ties import all_tie
from nemo_sspo.oracle.protocol import AnswerModel, OracleResources, PreferenceOracle, Row, Turn
from nemo_sspo.oracle.registry import load_oracle
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.runner.registry import STAGES


def oracle_of(context: StageContext, rows: int = 0) -> PreferenceOracle:
    """The oracle of a step: loaded once for all steps of a process, unless it keeps a journal (one per step).

    `rows`: see `OracleResources`.
    """
    settings = context.experiment.oracle
    if settings.kind == "llm_judge":
        return load_oracle(settings, replace(resources(context), rows=rows))
    return context.load_once(lambda: load_oracle(settings, resources(context)))


def resources(context: StageContext) -> OracleResources:
    """The resources of a step's oracle: the step's journal, and the policy that judges, if one does."""

    def open_policy(answers: Sequence[str], longest: int) -> AnswerModel:
        from nemo_sspo.rollout.policy_answers import PolicyAnswers

        return PolicyAnswers(
            context.policy,
            context.experiment.engine,
            seed=context.seed,
            answers=answers,
            longest=longest,
            template_arguments=context.experiment.data.template_arguments,
        )

    shard = context.shard if STAGES[context.stage].sharded else None
    journal = context.layout.judgements(step_id(context.stage, context.iteration, shard))
    return OracleResources(journal, open_policy)


def refuse_all_ties(context: StageContext, counted: Mapping[str, int]) -> None:
    """Raise a UserError where a judge calls enough comparisons ties, and no other: every win rate would be 1/2.

    `counted`: the facts of its judgements so far.
    """
    if problem := all_tie(context.experiment.oracle, counted):
        raise UserError(problem)


def turns(messages: Sequence[Mapping[str, Any]]) -> tuple[Turn, ...]:
    """The messages of a rollouts row."""
    return tuple(Turn(message["role"], message["content"]) for message in messages)


def both_orders(prompt: Mapping[str, Any], first: str, second: str) -> list[Row]:
    """The two rows of a pair of responses to the prompt of a rollouts row."""
    conversation = turns(prompt["messages"])
    return [
        Row(prompt["prompt"], first, second, conversation),
        Row(prompt["prompt"], second, first, conversation),
    ]
