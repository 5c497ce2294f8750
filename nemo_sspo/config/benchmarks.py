"""How public benchmarks ask a policy: sampling as each benchmark's own tool does it, and tasks with their shots."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt

from nemo_sspo.config.base import Frozen
from nemo_sspo.config.engines import Engine
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.oracles import Oracle
from nemo_sspo.config.roles import SourcePath

AnsweredBenchmark = Literal["alpaca-eval", "mt-bench", "arena-hard", "own"]
"""Benchmarks whose questions the policy answers and a judge reads."""


class AnswerSampling(Frozen):
    """How answers are drawn."""

    temperature: NonNegativeFloat
    """Sampling temperature; 0 is greedy."""
    temperature_of_category: dict[str, NonNegativeFloat] = {}
    """Temperatures of the categories that have one of their own."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Nucleus mass."""
    max_tokens: PositiveInt
    """Longest answer to one turn, in tokens of the policy."""

    def temperature_for(self, category: str | None) -> float:
        """Temperature of a question."""
        return self.temperature_of_category.get(category or "", self.temperature)


SAMPLING: Mapping[AnsweredBenchmark, AnswerSampling] = {
    # AlpacaEval leaves sampling to each model; most of those that its vLLM configurations describe use 0.7 and 2048.
    "alpaca-eval": AnswerSampling(temperature=0.7, max_tokens=2048),
    # FastChat: fastchat/llm_judge/common.py, 0.7 for a category that is not in its table.
    "mt-bench": AnswerSampling(
        temperature=0.7,
        temperature_of_category={
            "writing": 0.7,
            "roleplay": 0.7,
            "extraction": 0.0,
            "math": 0.0,
            "coding": 0.0,
            "reasoning": 0.0,
            "stem": 0.1,
            "humanities": 0.1,
        },
        max_tokens=1024,
    ),
    # Arena-Hard: config/gen_answer_config.yaml.
    "arena-hard": AnswerSampling(temperature=0.0, max_tokens=4096),
    # Questions of one's own: greedy, so that a difference between two policies is none of chance.
    "own": AnswerSampling(temperature=0.0, max_tokens=2048),
}
"""Each benchmark's own settings; the command line can change temperature and length."""


class Answerer(Frozen):
    """Who answers, and how it is sampled."""

    policy: Annotated[str, SourcePath()]
    """A Hugging Face directory or hub id: of a run, its base policy."""
    engine: Engine
    seed: NonNegativeInt = 0
    template_arguments: dict[str, Any] = {}
    """Further variables of its chat template."""


def of_run(experiment: Experiment) -> Answerer:
    """As a run samples its policies."""
    return Answerer(
        policy=experiment.policy,
        engine=experiment.engine,
        seed=experiment.seed,
        template_arguments=experiment.data.template_arguments,
    )


class BenchmarkRequest(Frozen):
    """One policy before one benchmark."""

    run: str
    """Directory of the run; for a model that no run made, where logs are to lie."""
    iteration: NonNegativeInt
    """Whose policy; 0 is the base."""
    model: Answerer | None = None
    """A model that no run made, in the place of a policy of the run."""
    benchmark: AnsweredBenchmark
    questions: str
    """The benchmark's questions, in its published format."""
    output: str
    """Directory to publish."""
    model_name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,199}$")
    """Name under which the judge knows the policy."""
    sampling: AnswerSampling


class WinRatesRequest(Frozen):
    """Policies against each other on the questions that all of them have answered."""

    answers: dict[str, str]
    """Folder of answers to questions of one's own, by policy."""
    oracle: Oracle
    output: str
    """Directory to publish; logs lie beside it."""


class LmEvalTask(NamedTuple):
    """A task of lm-evaluation-harness."""

    name: str
    shots: int | None
    """Examples in the prompt; None leaves it to the task."""
    metric: str
    """The reported metric, as the harness names it: metric,filter."""


LM_EVAL_TASKS: tuple[LmEvalTask, ...] = (
    LmEvalTask("arc_challenge", 25, "acc_norm,none"),
    LmEvalTask("hellaswag", 10, "acc_norm,none"),
    LmEvalTask("mmlu", 5, "acc,none"),
    LmEvalTask("truthfulqa_mc2", 0, "acc,none"),
    LmEvalTask("winogrande", 5, "acc,none"),
    LmEvalTask("gsm8k", 5, "exact_match,strict-match"),
)
"""The six tasks of the Open LLM Leaderboard v1 that SPPO's Table 3 reports, with its shots and metrics; S-SPPO's
Table 8 reports gsm8k by strict match."""
