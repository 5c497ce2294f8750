"""Settings of the stages that come in one kind only."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, field_validator, model_validator

from nemo_sspo.config.base import Frozen
from nemo_sspo.config.roles import Knob, SourcePath, WithoutEffect

RESERVED_ARGUMENTS = frozenset(
    {
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "conversation",
        "chat_template",
        "tokenize",
        "return_dict",
    }
)
"""Variables of a chat template that the code around it sets, and names of that code's own settings."""


class Columns(Frozen):
    """What files of prompts, responses and labelled comparisons call the fields that are read of them."""

    prompt: str | None = None
    """Field that holds the prompt, as text or a list of messages, where it is not called `prompt`."""
    messages: str | None = None
    """That of `messages`: a list of messages with `role` and `content`, the user's last."""
    conversations: str | None = None
    """That of `conversations` (ShareGPT): messages with `from` and `value`, or `role` and `content`. What comes after
    the user's last one is an answer and left out."""
    instruction: str | None = None
    """That of `instruction` (Alpaca), a prompt as text."""
    input: str | None = None
    """That of `input`, text that stands below `instruction`."""
    system: str | None = None
    """That of `system`, the text of the system message."""
    responses: str | None = None
    """That of `responses` in `rollout.source`."""
    chosen: str | None = None
    """That of `chosen` in `rollout.source`."""
    rejected: str | None = None
    """That of `rejected` in `rollout.source`."""

    @property
    def names(self) -> dict[str, str]:
        """The fields' own names by ours, where they are told."""
        return {ours: theirs for ours, theirs in self if theirs is not None}

    @model_validator(mode="after")
    def _one_field_each(self) -> "Columns":
        told = list(self.names.values())
        for theirs in told:
            if told.count(theirs) > 1:
                raise ValueError(f"{theirs!r} is named twice; a field holds one of them")
        return self


class Data(Frozen):
    columns: Columns = Columns()
    held_out_prompts: Annotated[str | None, SourcePath()] = None
    """Prompts for evaluation only (file or data set id). Without it, `held_out_count` prompts are split off."""
    held_out_count: PositiveInt = 200
    """Prompts kept for evaluation, never trained on; at most this many of `held_out_prompts`."""
    prompts_per_iteration: PositiveInt | None = None
    """At most this many prompts in an iteration's portion; without it the prompts are divided evenly."""
    max_prompt_tokens: PositiveInt = 512
    """Longest templated prompt in tokens (SPPO's official script: 512, to which it truncates; the papers have no
    limit)."""
    overlong_prompts: Literal["error", "drop"] = "error"
    """A prompt over the limit stops the run, or is dropped and counted."""
    duplicate_prompts: Literal["error", "drop"] = "error"
    """A repeated prompt stops the run, or its repetitions are dropped and counted."""
    control_tokens: Literal["error", "drop"] = "error"
    """A prompt or given response whose text spells a control token of the policy's (any special token) stops the run,
    or is dropped and counted. A pair of sampled responses of which one spells one is dropped and counted."""
    template_arguments: dict[str, Any] = {}
    """Further variables of the policy's chat template, such as `{enable_thinking: false}`."""

    @field_validator("template_arguments")
    @classmethod
    def _of_the_template(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        for name in RESERVED_ARGUMENTS & arguments.keys():
            raise ValueError(f"{name} is set by the run itself, it is no argument")
        return arguments


class Further(Frozen):
    after: PositiveInt | None = None
    """Iterations that the prompts were divided among when the run began. A run that goes on with more `iterations` has
    it set; those portions stay as they are, and each later iteration takes prompts that are in no set yet."""
    prompts: Annotated[str | None, SourcePath()] = None
    """Prompts of the iterations after them, read as `prompts` are; without it, what is left over of `prompts`."""
    prompts_per_iteration: PositiveInt | None = None
    """At most this many in each of them; without it, `data.prompts_per_iteration`, or as many as the largest portion
    that the run began with."""


class Rollout(Frozen):
    samples_per_prompt: int = Field(default=5, ge=2)
    """K, responses sampled per prompt (SPPO: 5)."""
    held_out_samples_per_prompt: PositiveInt = 2
    """Responses sampled per held-out prompt for evaluation."""
    temperature: PositiveFloat = 1.0
    """Sampling temperature (SPPO: 1.0; its official script: 0.7)."""
    top_p: float = Field(default=1.0, gt=0.0, le=1.0)
    """Nucleus mass (SPPO: 1.0; its official script: 0.9)."""
    max_response_tokens: PositiveInt = 2048
    """Longest response in tokens; one that does not end by then is kept as unfinished."""
    source: Annotated[str | None, SourcePath()] = None
    """Responses that iteration 1 takes instead of sampling: a file or directory as of `prompts`, or a data set id, with
    a prompt and `responses`, or `chosen` and `rejected`. Their number is K of that iteration. A response whose
    `finish_reasons` (or `finish_reason_chosen`, `_rejected`) is `length` was cut, and gets no end."""
    shards: PositiveInt = 1
    """Parts into which the prompts are cut; each is sampled, scored and embedded by steps of its own. One process takes
    several, with its model loaded once."""


class Judging(Frozen):
    reasoning: Literal["judged", "left_out"] = "judged"
    """Whether oracle and encoder read what a response says before its answer, or the answer alone. Training reads all
    of it. A response whose reasoning never ends has an empty answer, and a pair with one is dropped as such."""
    reasoning_tags: tuple[str, str] = ("<think>", "</think>")
    """Text that begins and text that ends a reasoning, as the policy writes them."""

    @field_validator("reasoning_tags")
    @classmethod
    def _not_empty(cls, tags: tuple[str, str]) -> tuple[str, str]:
        if not all(tags) or tags[0] == tags[1]:
            raise ValueError("two different texts, neither of them empty")
        return tags


class Pairs(Frozen):
    symmetrize: Literal["half", "sum", "none"] = "half"
    """How the oracle's logits of a pair's two orders are combined: ``half`` (l_ij - l_ji) / 2, ``sum`` without the
    half, ``none`` l_ij alone. Win rates of the default deviate from the papers, which take PairRM's logit as it is:
    ``none``, as method=s-sppo-paper does."""
    estimator: Literal["pairwise", "bt_mean_score"] = "pairwise"
    """``pairwise``: the mean of a response's win probabilities (SPPO eq. 4.5, S-SPPO eq. B.1); ``bt_mean_score``: that
    of SPPO's official script, which deviates from both papers."""
    include_self: bool = True
    """Whether a response's win rate counts the 1/2 against itself. SPPO does; win rates of the default deviate from
    S-SPPO (B.2), which averages over all *other* responses: false."""
    estimated_from: int | None = Field(default=None, ge=2)
    """Responses that estimate a win rate, the pair among them (SPPO's ablation of K: 2, 3 or all 5 that are sampled);
    without it all of them."""
    unfinished: Literal["keep", "drop"] = "keep"
    """Responses cut at `rollout.max_response_tokens`: eligible for pairs, or the pair is dropped and counted."""
    max_tokens: PositiveInt | None = None
    """Longest prompt + response that training takes; a longer pair is dropped and counted, never truncated."""

    @model_validator(mode="after")
    def _estimates_what_can_be_of_fewer(self) -> "Pairs":
        if self.estimated_from is not None and self.estimator == "bt_mean_score":
            raise ValueError("estimated_from takes a mean of few win probabilities: bt_mean_score reads all responses")
        return self


class Train(Frozen):
    learning_rate: PositiveFloat = 5e-7
    """Peak learning rate (SPPO: 5e-7)."""
    min_learning_rate: NonNegativeFloat = 0.0
    """Learning rate at the end of the schedule."""
    lr_schedule: Literal["linear", "cosine", "constant"] = "linear"
    """Decay after warm-up (papers: linear)."""
    warmup_fraction: float = Field(default=0.1, ge=0.0, lt=1.0)
    """Share of the scheduled steps that warm up (papers: 0.1)."""
    train_epochs: PositiveInt = 1
    """Epochs trained. SPPO takes the first of 18 scheduled; S-SPPO writes that it trains 18 (B.1), for which the 16
    minutes of its Table 7 are too short."""
    schedule_epochs: PositiveInt | None = None
    """Epochs the learning-rate schedule is laid out for (papers: 18; SPPO's official script: those it trains); without
    it, `train_epochs`."""
    global_batch_size: PositiveInt = 64
    """Pairs per optimizer step (papers: 64)."""
    micro_batch_size: Annotated[PositiveInt, Knob()] = 1
    """Pairs per microbatch of one data-parallel rank."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """Optimizer (SPPO's official script: RMSprop; Megatron has none, AdamW is the usual replacement). ``sgd`` has the
    momentum `sgd_momentum`."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay."""
    adam_beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    """First-moment decay."""
    adam_beta2: float = Field(default=0.95, ge=0.0, lt=1.0)
    """Second-moment decay."""
    adam_epsilon: PositiveFloat = 1e-8
    """Denominator offset."""
    sgd_momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    """Momentum of `optimizer=sgd` (Megatron's default)."""
    clip_grad: NonNegativeFloat = 1.0
    """Largest global gradient norm; 0 does not clip."""
    reference: Literal["previous", "base"] = "previous"
    """The policy that log-ratios are taken against: the one that the iteration starts from, or the run's first one."""
    reference_source: Literal["recompute", "rollout_checked"] = "recompute"
    """What computes the reference log-probs. ``recompute``: Megatron. ``rollout_checked``: the engine that sampled the
    responses, if Megatron finds the same for a sample of the pairs; otherwise Megatron computes them all."""
    reference_check_share: float = Field(default=0.02, gt=0.0, le=1.0)
    """Share of the pairs in that sample, and in the one (at least 64) whose stored log-probs are computed again before
    a training's first step."""
    reference_tolerance: PositiveFloat = 0.5
    """Largest difference of a sampled response's log-prob, in nats, that passes. It shifts a log-ratio by as much:
    SPPO's are moved by up to eta / 2, 500."""
    packing: Annotated[bool, Knob()] = False
    """Lay whole pairs end to end in one row (THD attention) instead of padding each response."""
    pack_tokens: Annotated[PositiveInt, Knob()] = 8192
    """Token budget of a packed microbatch."""
    share_prompt: Annotated[bool, Knob()] = False
    """Compute a pair's prompt once for both responses, in packed rows. On a GPU attention is flex-attention's then."""
    layers: Literal["auto", "local"] = "auto"
    """``auto``: Transformer Engine's layers on a GPU, where a training without it is refused, and Megatron's local ones
    on a CPU; ``local``: the local ones on a GPU too, with flex-attention and without fused kernels."""
    recompute: Annotated[Literal["none", "selective", "full"], Knob()] = "none"
    """Activation recomputation."""
    checkpoint_every_steps: Annotated[PositiveInt | None, WithoutEffect()] = None
    """Optimizer steps between checkpoints to resume from; without it only the final one is written."""
    keep_states: Annotated[PositiveInt, WithoutEffect()] = 2
    """Checkpoints to resume from that are kept: where the newest is found damaged, the one before it is taken."""
    head_chunk_tokens: Annotated[PositiveInt | None, Knob()] = None
    """Response tokens whose logits exist at once; None: 4096 on a GPU, 1024 on a CPU. Smaller tiles
    use less memory and accumulate the output weight's gradient more often."""
    head: Annotated[Literal["auto", "recompute"], Knob()] = "auto"
    """``auto``: gradients are computed while the logits exist, where the loss allows it (the forms of SPPO), and from
    logits computed again elsewhere; ``recompute``: always the latter."""
    peft: Literal["lora"] | None = None
    """Train low-rank adapters on the layers' matrices instead of all weights; the new policy has them merged in."""
    lora_rank: PositiveInt = 32
    """Rank of the adapters; a multiple of `parallel.tensor`."""
    lora_alpha: PositiveFloat = 32.0
    """The adapters' output is scaled by lora_alpha / lora_rank (NeMo: 32, a scale of 1 at rank 32)."""
    export_adapter: Annotated[bool, WithoutEffect()] = False
    """Export LoRA's adapter too, in PEFT's format, for the run's base policy: rank `lora_rank` times the iterations."""
    loggers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], WithoutEffect()] = ("tensorboard",)
    """Where training metrics go besides metrics.jsonl."""

    @model_validator(mode="after")
    def _has_an_adapter_to_export(self) -> "Train":
        if self.export_adapter and self.peft is None:
            raise ValueError("export_adapter exports LoRA's adapter: set train.peft=lora, or leave it out")
        return self


class Parallel(Frozen):
    tensor: PositiveInt = 1
    """Ranks that share each layer's matrices (TP)."""
    pipeline: PositiveInt = 1
    """Stages the layers are cut into (PP)."""
    virtual_pipeline: PositiveInt | None = None
    """Model chunks per pipeline stage (interleaved schedule)."""
    context: PositiveInt = 1
    """Ranks that share each sequence (CP)."""
    data: PositiveInt = 1
    """Replicas of the model (DP)."""
    expert: PositiveInt = 1
    """Ranks that share each layer's experts, whole ones each (EP): a part of the tensor x context x data ranks. With 1
    an expert's matrices are cut over the tensor ranks, as all others are."""
    sequence: bool = False
    """Sequence parallelism of the norms over the tensor-parallel ranks."""
    distributed_optimizer: bool = True
    """Shard the optimizer's state over the data-parallel ranks."""
    overlap_communication: bool = False
    """Overlap gradient reduction and parameter gathering with computation."""

    @property
    def world_size(self) -> int:
        """Ranks of a training job."""
        return self.tensor * self.pipeline * self.context * self.data

    @property
    def expert_tensor(self) -> int:
        """Ranks that share one expert's matrices. In these two cases alone does every megatron-core sum an expert's
        gradients over the tensor-parallel ranks."""
        return 1 if self.expert > 1 else self.tensor

    @model_validator(mode="after")
    def _consistent(self) -> "Parallel":
        if self.sequence and self.tensor == 1:
            raise ValueError("sequence parallelism shares the tensor-parallel ranks: it needs tensor > 1")
        if self.virtual_pipeline is not None and self.pipeline == 1:
            raise ValueError("virtual_pipeline interleaves pipeline stages: it needs pipeline > 1")
        if (ranks := self.tensor * self.context * self.data) % self.expert:
            raise ValueError(f"expert={self.expert} does not divide tensor x context x data ({ranks} ranks)")
        return self


class Evaluation(Frozen):
    bootstrap_samples: PositiveInt = 2000
    """Resamples of the held-out prompts behind every confidence interval."""
    confidence: float = Field(default=0.95, gt=0.0, lt=1.0)
    """Coverage of the intervals."""
    best_of_n: int | None = Field(default=None, ge=2)
    """Samples of the new policy per held-out prompt, of which the oracle keeps the best to meet the base (SPPO: 16).
    That many are sampled; the other win rates take the first `rollout.held_out_samples_per_prompt`."""
    labelled_pairs: Annotated[str | None, SourcePath()] = None
    """Comparisons with known outcomes, to measure the oracle's calibration once: a file or data set id with `prompt`,
    `response_a`, `response_b` and `label`, the probability in [0, 1] that a is better."""


class Selection(Frozen):
    candidates: PositiveInt = 1
    """Checkpoints of an iteration that the oracle chooses from, evenly spaced over its optimizer steps, the last one
    included. S-SPPO chooses in every iteration (B.1), SPPO takes the end of the first epoch: 1. As many as
    `train.train_epochs` are the ends of the epochs: with 3 of either, the best of three epochs."""
    prompts: PositiveInt = 200
    """Prompts split off to choose by, where there is a choice. Not those of the evaluation, whose win rate of a policy
    that was chosen by them would be too high."""
    criterion: Literal["win_rate", "length_controlled"] = "win_rate"
    """What is best: the oracle win rate against the policy that the iteration started from, or the same at equal
    length."""
    early_stop: bool = False
    """End the run after an iteration in which no candidate's interval (`evaluation.confidence`) lies above 1/2; its
    result is then the policy that this iteration started from."""

    @property
    def is_on(self) -> bool:
        """Whether there is anything to decide after a training."""
        return self.candidates > 1 or self.early_stop
