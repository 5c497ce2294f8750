"""How fast a GPU and what is around it are: files of figures, a published one among them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import Field, NonNegativeFloat, PositiveFloat, ValidationError

from nemo_sspo.config.base import Frozen
from nemo_sspo.config.yaml_files import refuse_unreadable
from nemo_sspo.errors import UserError, one_line

PUBLISHED = Path(__file__).parent / "h100.yaml"

_File = TypeVar("_File", bound=Frozen)
Rate = Annotated[PositiveFloat, Field(le=1e20)]


class ByPrecision(Frozen):
    bf16: Rate
    fp8: Rate
    fp32: Rate

    def of(self, kind: str) -> float:
        """Of a precision's kind."""
        return float(getattr(self, kind))


class Starting(Frozen):
    """Seconds from a process's start to its first work, its weights' reading left out."""

    engine: NonNegativeFloat
    """vLLM's: imports, compilation, capture of graphs."""
    training: NonNegativeFloat
    """Of ranks: imports, NCCL."""
    other: NonNegativeFloat


class Speeds(Frozen):
    """Of one GPU, where nothing else is said; a second and bytes, FLOP and tokens are the units."""

    gpu: str
    published: bool = False
    """Whether the figures are others' rather than measured."""
    memory_gib: Rate
    products: ByPrecision
    """FLOP/s of a training step's products by precision, with the norms and activation functions between them."""
    attention: Rate
    """FLOP/s of attention in training, of the half that a causal mask leaves."""
    forward: Rate
    """FLOP/s in bf16 of oracle, encoder and reference."""
    memory_bandwidth: Rate
    """Bytes/s of the GPU's memory."""
    in_node: Rate
    """Bytes/s that a GPU sends to others of its node."""
    between_nodes: Rate
    """Bytes/s that a GPU sends to other nodes."""
    generation: ByPrecision
    """Tokens/s of an engine at full batches, times the parameters that a token meets, for each of its GPUs."""
    storage: Rate
    """Bytes/s that one process reads or writes."""
    to_host: Rate
    """Bytes/s from a GPU into its host's memory."""
    starting: Starting
    failures_per_gpu_hour: NonNegativeFloat
    sources: dict[str, str] = {}
    """Where each figure is from."""


class Network(Frozen):
    """What `nemo_sspo.estimate.profiling.network` printed; one GPU has no figure, one node has the first."""

    in_node: Rate | None = None
    between_nodes: Rate | None = None


def read_speeds(path: Path = PUBLISHED) -> Speeds:
    """Raises UserError for a file that cannot be read, or that lacks a figure."""
    return _read(path, Speeds, "`nemo-sspo profile` writes such a file")


def read_network(path: Path) -> dict[str, float]:
    """The figures that are there. Raises UserError for a file that cannot be read, or of anything else."""
    found = _read(path, Network, "it has the line of JSON that nemo_sspo.estimate.profiling.network prints")
    return found.model_dump(exclude_none=True)


def _read(path: Path, kind: type[_File], advice: str) -> _File:
    refuse_unreadable([path])
    try:
        return kind.model_validate(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise UserError(one_line(f"{path}: no YAML ({error})")) from None
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}; {advice}") from None
