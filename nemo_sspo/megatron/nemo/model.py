"""`SSPOModel`: any of NeMo's GPT models, trained on preference pairs from its hidden states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from nemo.collections.llm.gpt.model.base import GPTConfig, GPTModel
from nemo.lightning import OptimizerModule
from torch import Tensor
from typing_extensions import override

from nemo_sspo.megatron.batches.microbatch_plan import PreparedMicrobatch
from nemo_sspo.megatron.checkpoints.weights import load_weights
from nemo_sspo.megatron.head.choice import Head
from nemo_sspo.megatron.layers.adapter import Adapters
from nemo_sspo.megatron.layers.lora import add_adapters
from nemo_sspo.megatron.loss.hidden_states import forward_to_hidden_states
from nemo_sspo.megatron.loss.loss import HeadLayout, PreferenceObjective
from nemo_sspo.megatron.loss.step import TrainingLoss, on_this_rank
from nemo_sspo.megatron.models.finite import StepPairs
from nemo_sspo.megatron.nemo.loss_reduction import LogpReduction, PreferenceLossReduction
from nemo_sspo.megatron.runtime.groups import Groups


class SSPOModel(GPTModel):
    """A NeMo GPT model whose last stage yields hidden states instead of logits, and whose loss is S-SPPO's.

    The family is the config's business (`LlamaConfig`, `Qwen2Config`, ...); this class serves all of them. ``fit``
    trains; ``test`` computes the log-probs of every pair's responses under the same forward pass.
    """

    groups: Groups
    """Given to every chunk by `PolicyStrategy`, once the ranks are connected."""

    def __init__(
        self,
        config: GPTConfig,
        weights: Path,
        vocab_size: int,
        head_chunk_tokens: int,
        head: Head = "recompute",
        objective: PreferenceObjective | None = None,
        repulsion_weight: Callable[[int], float] | None = None,
        optim: OptimizerModule | None = None,
        adapters: Adapters | None = None,
        step_pairs: StepPairs | None = None,
    ) -> None:
        """
        Args:
            config: architecture, layer spec and precision.
            weights: checkpoint (see `checkpoints/weights.py`) that the model starts from; `PolicyStrategy` loads it.
            vocab_size: tokens of the vocabulary, without padding.
            head_chunk_tokens: response tokens whose logits exist at once.
            head: when the gradient of the log-probs is computed; see `head/choice.py`.
            objective: what to optimize; only training needs it, as the next two.
            repulsion_weight: lambda at a 0-based optimizer step.
            optim: optimizer and learning-rate schedule.
            adapters: what to train in place of the weights, which are frozen then.
            step_pairs: records which pairs have NaN or Inf.
        """
        super().__init__(config, optim=optim)
        self.weights = weights
        self.vocab_size = vocab_size
        self.head_chunk_tokens = head_chunk_tokens
        self.head = head
        self.objective = objective
        self.repulsion_weight = repulsion_weight
        self.adapters = adapters
        self.step_pairs = step_pairs or StepPairs()

    @property
    def vp_stage(self) -> int | None:
        """Which of its rank's chunks this is. NeMo reads it before evaluation and crashes without it."""
        return getattr(self.module, "vp_stage", None)

    @override
    def data_step(self, dataloader_iter: Iterator[Any]) -> PreparedMicrobatch:
        """The next microbatch on this rank's device, cut to its part of the sequence under context parallelism."""
        batch, *_ = next(dataloader_iter)
        self.step_pairs.begin(batch.step, batch.rows)
        return on_this_rank(batch, self.groups.cp)

    @override
    def forward_step(self, batch: PreparedMicrobatch) -> Tensor:
        """This stage's activations; on the last stage the output layer's input."""
        return forward_to_hidden_states(self, batch.tensors)

    def test_step(self, batch: PreparedMicrobatch) -> Tensor:
        """The same forward pass as in training."""
        return self.forward_step(batch)

    @property
    @override
    def training_loss_reduction(self) -> PreferenceLossReduction:
        if self.objective is None or self.repulsion_weight is None:
            raise RuntimeError("a model without an objective and its repulsion weight is for reference log-probs only")
        return PreferenceLossReduction(
            TrainingLoss(self.objective, self.repulsion_weight, self._head_layout, self.groups.dp, self.step_pairs)
        )

    @property
    def test_loss_reduction(self) -> LogpReduction:
        """What ``test`` computes from the hidden states."""
        return LogpReduction(self._head_layout)

    @property
    def _head_layout(self) -> HeadLayout:
        return HeadLayout.of(
            self.config,
            self.groups,
            vocab_size=self.vocab_size,
            chunk_tokens=self.head_chunk_tokens,
            one_pass=self.head == "one_pass",
        )


def load_policy(chunks: Sequence[SSPOModel]) -> None:
    """Load the weights of all chunks of this rank, and adapt them. Collective; once all ranks have built theirs."""
    load_weights([chunk.module for chunk in chunks], chunks[0].weights)
    for chunk in chunks:
        if chunk.adapters is not None:
            add_adapters(chunk.module, chunk.adapters, chunk.groups.tp)
