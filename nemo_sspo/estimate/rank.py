"""What is estimated: one rank of a training, and where it is in its layout. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace

from nemo_sspo.config.precisions import Precision
from nemo_sspo.config.stages import Parallel, Train
from nemo_sspo.config.trainers import Trainer
from nemo_sspo.megatron.models.layout import padded_vocab_size
from nemo_sspo.megatron.models.shape import Shape


@dataclass(frozen=True)
class StepPairs:
    """The preference pairs of one optimizer step, all of one size, in tokens."""

    count: int
    prompt: int
    response: int


@dataclass(frozen=True)
class TrainingRank:
    """Tensor-parallel ranks are neighbours, then context, data, and pipeline outermost."""

    model: Shape
    parallel: Parallel
    train: Train
    precision: Precision
    separable: bool
    """Of the loss: whether the one-pass head can train it."""
    pairs: StepPairs
    number: int = 0
    trainer: Trainer = "auto"

    def at(self, number: int) -> TrainingRank:
        """Another rank of the same training."""
        return replace(self, number=number)

    @property
    def stage(self) -> int:
        """Of the pipeline."""
        return self.number // self._ranks_of_stage

    @property
    def is_first(self) -> bool:
        """Whether it embeds."""
        return self.stage == 0

    @property
    def is_last(self) -> bool:
        """Whether it has the head."""
        return self.stage == self.parallel.pipeline - 1

    @property
    def is_in_pipeline_of_0(self) -> bool:
        return self.number % self._ranks_of_stage == 0

    @property
    def context_rank(self) -> int:
        return self.number // self.parallel.tensor % self.parallel.context

    @property
    def chunks(self) -> int:
        """Virtual stages of this rank."""
        return self.parallel.virtual_pipeline or 1

    @property
    def layers(self) -> int:
        """Of all chunks of this rank."""
        return self.model.layers // self.parallel.pipeline

    def mixtures(self, chunk: int) -> int:
        """Layers of a chunk that are mixtures of experts."""
        if self.model.mixture is None:
            return 0
        count = self.layers // self.chunks
        first = (chunk * self.parallel.pipeline + self.stage) * count
        return sum(self.model.mixture.layers[first : first + count])

    @property
    def mixed_layers(self) -> int:
        """Mixtures of experts among all layers of this rank."""
        return sum(map(self.mixtures, range(self.chunks)))

    @property
    def queries(self) -> int:
        """Channels of all queries of a token that this rank has."""
        return self.model.groups * self.model.heads_per_group * self.model.head_dim // self.parallel.tensor

    @property
    def keys(self) -> int:
        """Channels of all keys of a token that this rank has, and of all values."""
        return self.model.groups * self.model.head_dim // self.parallel.tensor

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding that this rank has, and of the head."""
        return padded_vocab_size(self.model.vocab_size) // self.parallel.tensor

    @property
    def one_pass(self) -> bool:
        """Whether the head computes gradients while the logits exist."""
        return self.separable and self.train.head == "auto"

    @property
    def is_frozen(self) -> bool:
        """Whether only adapters are trained."""
        return self.train.peft is not None

    @property
    def fp8(self) -> str | None:
        """How Transformer Engine scales FP8, where it computes in it."""
        return self.precision.recipe if self.precision.kind == "fp8" else None

    @property
    def takes_flex_attention(self) -> bool:
        """Whether attention is flex-attention's, where Transformer Engine's has no kernel."""
        windows_reach_over_ranks = self.model.has_windows and self.parallel.context > 1
        return self.train.share_prompt or self.model.family.model_type == "gemma2" or windows_reach_over_ranks

    @property
    def is_fused(self) -> bool:
        """Whether rotary positions and the activation function are fused kernels: with NeMo Llama's alone are."""
        return self.trainer == "core" or self.model.family.model_type == "llama"

    @property
    def is_fused_gradient(self) -> bool:
        """Whether products add up the weights' gradients in fp32 themselves."""
        return not self.is_frozen and self.model.family.model_type != "gemma2"

    @property
    def shares_embedding(self) -> bool:
        """Whether the first and the last stage have one embedding between them."""
        return self.model.tied and self.parallel.pipeline > 1

    @property
    def _ranks_of_stage(self) -> int:
        return self.parallel.world_size // self.parallel.pipeline


def distinct_ranks(rank: TrainingRank) -> tuple[TrainingRank, ...]:
    """One of each stage and part of the sequences, which may have other response tokens to score: the tensor- and
    data-parallel ranks beside it hold, compute and send as much."""
    parallel = rank.parallel
    per_stage = parallel.world_size // parallel.pipeline
    starts = range(0, parallel.world_size, per_stage)
    return tuple(rank.at(start + part * parallel.tensor) for start in starts for part in range(parallel.context))
