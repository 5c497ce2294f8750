"""The preference oracles of oracle/; ``kind`` names the variant."""

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from nemo_sspo.config.base import Frozen
from nemo_sspo.config.roles import ImportPath, Knob, SourcePath, WithoutEffect

PAIRRM = "llm-blender/PairRM"
"""The papers' oracle, by its hub id."""
Precision = Literal["auto", "float32", "bfloat16", "float16"]


class PairRMOracle(Frozen):
    kind: Literal["pairrm"] = "pairrm"
    path: Annotated[str, SourcePath()]
    """Directory of a PairRM checkpoint, or a hub id."""
    source_max_tokens: PositiveInt | None = None
    """Longest prompt segment in tokens; without it what the checkpoint's config.json says, or PairRM's own 1224."""
    candidate_max_tokens: PositiveInt | None = None
    """Longest response segment in tokens; without it what the checkpoint's config.json says, or PairRM's own 412. Both
    responses share the room that the prompt leaves."""
    batch_tokens: Annotated[PositiveInt | None, Knob()] = None
    """Token budget of one forward pass, padding included. Without it 16384 on a GPU and 2048 on a CPU, whose cache
    holds the states of that many."""
    precision: Precision = "auto"
    """Backbone precision; ``auto`` is bfloat16 on a GPU and float32 on a CPU. llm-blender takes float16 on a GPU, which
    rounds eight times finer: DeBERTa's attention scale of 13.856 is 13.875 in bfloat16. The head is always float32."""


class RewardModelOracle(Frozen):
    kind: Literal["reward_model"] = "reward_model"
    path: Annotated[str, SourcePath()]
    """Directory or hub id of a sequence-classification reward model with one output; safetensors only."""
    max_tokens: PositiveInt | None = None
    """Longest conversation in tokens; without it the model's own limit. A longer one loses its beginning."""
    batch_tokens: Annotated[PositiveInt, Knob()] = 16384
    """Token budget of one forward pass, padding included."""
    precision: Precision = "auto"
    """Backbone precision; ``auto`` is bfloat16 on a GPU and float32 on a CPU. The head is always float32."""
    gpu_memory_gib: Annotated[PositiveFloat, WithoutEffect()] = 80.0
    """Memory of the one GPU that holds the model: a larger one is refused before the run starts."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""

    @field_validator("path")
    @classmethod
    def _not_pairrm(cls, path: str) -> str:
        """An experiment's own, where another kind of oracle took the place of its PairRM."""
        if path == PAIRRM:
            raise ValueError(f"{PAIRRM} compares pairs (oracle=pairrm); give a classifier with one output")
        return path


class LlmJudgeOracle(Frozen):
    kind: Literal["llm_judge"] = "llm_judge"
    endpoint: str = "https://api.openai.com/v1"
    """Base URL of an OpenAI-compatible API."""
    model: str
    """Model that judges, as the endpoint names it."""
    api_key_variable: Annotated[str | None, WithoutEffect()] = "OPENAI_API_KEY"
    """Environment variable that holds the key; null for an endpoint that wants none. The key itself is never stored."""
    template: Annotated[str | None, SourcePath()] = None
    """File with the question, with {prompt}, {first} and {second} in it; without it the package's own."""
    logprobs: bool = True
    """Ask for the first token's log-probs: the logit is then log p(A) - log p(B). Set false where they are refused."""
    verdict_logit: PositiveFloat = 3.0
    """Logit of a verdict in words, where there are no log-probs (3: a win probability of .95)."""
    unparsable: Literal["tie", "error"] = "tie"
    """An answer that names neither response: a logit of 0 that is counted, or the end of the step."""
    text_max_characters: PositiveInt = 16_000
    """Longest prompt and longest response in characters; the rest is cut off and counted."""
    max_answer_tokens: PositiveInt = 16
    """Longest answer in tokens."""
    concurrency: Annotated[PositiveInt, WithoutEffect()] = 16
    """Requests that are under way at once, in each step."""
    retries: Annotated[NonNegativeInt, WithoutEffect()] = 6
    """Further attempts at a request that failed for the server's reasons (429, 5xx, timeouts, garbled answers)."""
    timeout_seconds: Annotated[PositiveFloat, WithoutEffect()] = 60.0
    """Longest wait for one answer in seconds."""
    max_requests: Annotated[PositiveInt, WithoutEffect()] = 10_000
    """Cap of the whole run: comparisons that are paid for, by all steps together. A step that plans more does not
    start."""
    max_tokens: Annotated[PositiveInt | None, WithoutEffect()] = None
    """Cap of the whole run: input and output tokens; of a question under way they are estimated."""
    max_dollars: Annotated[PositiveFloat | None, WithoutEffect()] = None
    """Cap of the whole run: what the tokens cost at the prices below."""
    dollars_per_million_input_tokens: Annotated[NonNegativeFloat | None, WithoutEffect()] = None
    """Price of input."""
    dollars_per_million_output_tokens: Annotated[NonNegativeFloat | None, WithoutEffect()] = None
    """Price of output."""
    extra: dict[str, Any] = {}
    """Further fields of the request body; null removes one (``{max_tokens: null, max_completion_tokens: 16}``)."""

    @model_validator(mode="after")
    def _priced(self) -> "LlmJudgeOracle":
        prices = (self.dollars_per_million_input_tokens, self.dollars_per_million_output_tokens)
        if self.max_dollars is not None and None in prices:
            raise ValueError("max_dollars needs dollars_per_million_input_tokens and dollars_per_million_output_tokens")
        return self


class PolicyJudgeOracle(Frozen):
    kind: Literal["policy_judge"] = "policy_judge"
    judge: Literal["current", "base"] = "current"
    """Who judges: the policy that the iteration starts from (Self-Rewarding, arXiv 2401.10020), or the run's first."""
    template: Annotated[str | None, SourcePath()] = None
    """File with the question, with {prompt}, {first} and {second} in it; without it the package's own."""
    context_tokens: PositiveInt = 4096
    """Longest question in tokens; texts of a longer one are cut, the longest first, and counted."""


class FunctionOracle(Frozen):
    kind: Literal["function"] = "function"
    function: Annotated[str, ImportPath()]
    """Import path ``package.module:function`` of a function with the signature that oracle/function.py states."""
    arguments: dict[str, Any] = {}
    """Keyword arguments passed on."""


Oracle = Annotated[
    PairRMOracle | RewardModelOracle | LlmJudgeOracle | PolicyJudgeOracle | FunctionOracle, Field(discriminator="kind")
]
