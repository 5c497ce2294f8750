"""Answers of the base and of the newest policy to the same held-out prompts: those with the smallest ids, as a fair
sample that never changes."""

import heapq
from dataclasses import dataclass

import pyarrow as pa

from nemo_sspo.artifacts.shard import read_shard
from nemo_sspo.artifacts.tables import EVALUATION, ROLLOUTS
from nemo_sspo.report.facts.record import RunRecord
from nemo_sspo.report.facts.samples import TEXT_CHARACTERS

_ANSWERS = "rollout_held_out"


@dataclass(frozen=True)
class HeldOutAnswers:
    """One held-out prompt with the first answer of both policies."""

    prompt_id: str
    prompt: str
    base: str
    new: str
    win: float | None
    """The oracle's win rate of the new policy's answers to it against the base's; None before it is evaluated."""


@dataclass(frozen=True)
class HeldOutSample:
    """Some prompts of an iteration's policy; none before it has answered."""

    iteration: int
    prompts: list[HeldOutAnswers]


def held_out_sample(run: RunRecord, count: int) -> HeldOutSample:
    """Of the newest policy that has answered, at most `count` prompts."""
    answered = [iteration for iteration in run.iterations if run.of(_ANSWERS, iteration)]
    if not count or not answered or not run.of(_ANSWERS, 0):
        return HeldOutSample(0, [])
    iteration, nothing = answered[-1], pa.table({"prompt_id": pa.array([], pa.string())})
    ids = run.read(lambda: ROLLOUTS.read(run.of(_ANSWERS, iteration)[0].path, ["prompt_id"]), nothing)
    wanted = pa.array(heapq.nsmallest(count, ids.column("prompt_id").to_pylist()), pa.string())
    base, new = (_answers(run, policy, wanted) for policy in (0, iteration))
    evaluated = run.table("evaluate", iteration, EVALUATION, ("prompt_id", "win_vs_base"), wanted).to_pylist()
    wins = {row["prompt_id"]: row["win_vs_base"] for row in evaluated}
    return HeldOutSample(
        iteration,
        [
            HeldOutAnswers(name, new[name][0], base[name][1], new[name][1], wins.get(name))
            for name in sorted(new.keys() & base.keys())
        ],
    )


def _answers(run: RunRecord, policy: int, wanted: pa.Array) -> dict[str, tuple[str, str]]:
    """Prompt and first answer by prompt id, cut where they are long."""
    folder = run.of(_ANSWERS, policy)[0].path
    shard = run.read(lambda: read_shard(folder, ("prompt_id", "prompt"), ("response_id", "text"), wanted), None)
    if shard is None:
        return {}
    return {
        row["prompt_id"]: (_cut(row["prompt"]), _cut(answers[0]["text"])) for row, answers in shard.listed() if answers
    }


def _cut(text: str) -> str:
    more = len(text) - TEXT_CHARACTERS
    return text if more <= 0 else f"{text[:TEXT_CHARACTERS]} … ({more:,} more characters)"
