"""Where a rank is in its layout, and how many layers it has."""

from __future__ import annotations

from dataclasses import dataclass

from tests.rehearsal.case import Case


@dataclass(frozen=True)
class Place:
    """Tensor-parallel ranks are neighbours, then context, data, and pipeline outermost."""

    context: int
    stage: int
    is_first: bool
    is_last: bool
    is_in_pipeline_of_0: bool

    @classmethod
    def of(cls, case: Case) -> Place:
        parallel = case.parallel
        ranks_of_stage = parallel.world_size // parallel.pipeline
        stage = case.rank // ranks_of_stage
        return cls(
            context=case.rank // parallel.tensor % parallel.context,
            stage=stage,
            is_first=stage == 0,
            is_last=stage == parallel.pipeline - 1,
            is_in_pipeline_of_0=case.rank % ranks_of_stage == 0,
        )


def chunks_of(case: Case) -> int:
    """Virtual stages of this rank."""
    return case.parallel.virtual_pipeline or 1


def layers_of(case: Case) -> int:
    """Of all chunks of this rank."""
    return case.model["num_hidden_layers"] // case.parallel.pipeline


def head_channels(case: Case) -> int:
    model = case.model
    return model.get("head_dim") or model["hidden_size"] // model["num_attention_heads"]
