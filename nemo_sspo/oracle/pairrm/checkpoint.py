"""A PairRM checkpoint on disk, in either published layout, checked before any weight is loaded. No torch.

``hf`` (llm-blender/PairRM-hf): config.json is a DeBERTa-v2 configuration that names the marker tokens' ids; tokenizer
and weights lie beside it. ``llm-blender`` (llm-blender/PairRM): config.json names a ranker type and a backbone, whose
configuration and tokenizer are taken from that backbone's directory or hub id, and gets the marker tokens added.
Both keep their weights under ``pretrained_model.*`` and ``head_layer.*``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nemo_sspo.artifacts.json_files import read_json_object
from nemo_sspo.artifacts.sources.models import is_hub_id, local_model
from nemo_sspo.artifacts.sources.weight_headers import (
    TensorHeader,
    tensor_headers,
    unmerged_adapter,
    weight_problems,
)
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.pairrm.deberta_tensors import deberta_tensors, embedding_size

SOURCE_MARKER, FIRST_MARKER, SECOND_MARKER, CANDIDATE_MARKER = (
    "<|source|>",
    "<|candidate1|>",
    "<|candidate2|>",
    "<|candidate|>",
)
MARKERS = (SOURCE_MARKER, FIRST_MARKER, SECOND_MARKER, CANDIDATE_MARKER)
"""In the order in which llm-blender adds them to a backbone's tokenizer."""
MARKER_ID_KEYS = dict(
    zip(MARKERS, ("source_prefix_id", "cand1_prefix_id", "cand2_prefix_id", "cand_prefix_id"), strict=True)
)

BACKBONE_PREFIX, HEAD_PREFIX = "pretrained_model.", "head_layer."
WORD_EMBEDDINGS = BACKBONE_PREFIX + "embeddings.word_embeddings.weight"
POSITION_IDS = BACKBONE_PREFIX + "embeddings.position_ids"
HEAD_HIDDEN, HEAD_OUTPUT = HEAD_PREFIX + "1.weight", HEAD_PREFIX + "4.weight"
SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"


SOURCE_MAX, CANDIDATE_MAX = 1224, 412
"""Of the published PairRM, in tokens."""
_LIMIT_KEYS = ("source_maxlength", "candidate_maxlength")


@dataclass(frozen=True)
class PairRMCheckpoint:
    """The paths of a checkpoint's parts, and its configuration."""

    path: Path
    layout: Literal["hf", "llm-blender"]
    config: dict[str, Any]
    backbone: str
    """Directory or hub id with the backbone's configuration and tokenizer (the checkpoint itself for ``hf``)."""
    weights: Path

    @property
    def limits(self) -> tuple[int, int]:
        """Longest prompt and longest response in tokens: the training limits where the checkpoint records them."""
        source, candidate = (self.config.get(key) for key in _LIMIT_KEYS)
        return source or SOURCE_MAX, candidate or CANDIDATE_MAX


def inspect_pairrm(path: str) -> PairRMCheckpoint:
    """Find and check a checkpoint (directory or hub id).

    Raises:
        UserError: a file is missing, or its configuration or weights are not those of a PairRM on DeBERTa-v2.
    """
    directory = local_model(path, "oracle.path", pickles=True)
    config = read_json_object(directory / "config.json", "give the directory of a PairRM checkpoint")
    checkpoint = _identify(directory, config)
    if checkpoint.weights.name == SAFETENSORS:
        _check_weights(checkpoint)
    return checkpoint


def _identify(directory: Path, config: dict[str, Any]) -> PairRMCheckpoint:
    if adapter := unmerged_adapter(directory):
        raise UserError(f"oracle.path={directory}: {adapter} asks for an adapter that is not merged; merge it first")
    for key in _LIMIT_KEYS:
        given = config.get(key)
        if given is not None and (isinstance(given, bool) or not isinstance(given, int) or given < 1):
            raise UserError(f"{directory / 'config.json'}: {key}={given!r} is no number of tokens")
    weights = next((directory / name for name in (SAFETENSORS, PICKLE) if (directory / name).is_file()), None)
    if weights is None:
        raise UserError(f"oracle.path={directory}: neither {SAFETENSORS} nor {PICKLE}; the checkpoint is incomplete")
    if "ranker_type" in config:
        return _identify_llm_blender(directory, config, weights)
    missing = [key for key in list(MARKER_ID_KEYS.values())[:3] if not isinstance(config.get(key), int)]
    if config.get("model_type") != "deberta-v2" or missing:
        found = config.get("architectures") or config.get("model_type")
        raise UserError(
            f"oracle.path={directory}: not a PairRM (found {found}); expected a DeBERTa-v2 config.json with "
            f"{', '.join(list(MARKER_ID_KEYS.values())[:3])}, or llm-blender's with ranker_type"
        )
    if not any((directory / name).is_file() for name in ("tokenizer.json", "spm.model", "tokenizer_config.json")):
        raise UserError(f"oracle.path={directory}: no tokenizer beside the weights")
    return PairRMCheckpoint(directory, "hf", config, str(directory), weights)


def _identify_llm_blender(directory: Path, config: dict[str, Any], weights: Path) -> PairRMCheckpoint:
    ranker, model = config["ranker_type"], str(config.get("model_type"))
    if ranker != "pairranker" or not model.startswith("deberta") or model == "deberta-rm":
        raise UserError(
            f"oracle.path={directory}: ranker_type={ranker!r} on {model!r}; only a pairranker on DeBERTa is a PairRM"
        )
    name = config.get("model_name")
    if not isinstance(name, str):
        raise UserError(f"{directory / 'config.json'}: model_name must name the backbone (a directory or a hub id)")
    backbone = _beside(directory, name)
    if not Path(backbone).is_dir() and not is_hub_id(backbone):
        raise UserError(f"{directory / 'config.json'}: model_name={name}: no such backbone directory")
    return PairRMCheckpoint(directory, "llm-blender", config, backbone, weights)


def _beside(directory: Path, name: str) -> str:
    """A backbone named by a path relative to the checkpoint travels with it."""
    return str(directory / name) if (directory / name).is_dir() else name


def _check_weights(checkpoint: PairRMCheckpoint) -> None:
    """The tensors are those of a PairRM, with the shapes that its backbone's configuration says."""
    weights, tensors = checkpoint.weights, tensor_headers(checkpoint.weights)
    if missing := {WORD_EMBEDDINGS, HEAD_HIDDEN, HEAD_OUTPUT} - set(tensors):
        raise UserError(f"{weights}: not the weights of a PairRM: no {', '.join(sorted(missing))}")
    file = Path(checkpoint.backbone) / "config.json"
    if file.is_file():  # a backbone on the hub is compared when its configuration is here
        config, named = read_json_object(file), "config.json" if checkpoint.layout == "hf" else str(file)
        for problem in (*weight_problems(tensors, config, named), *_shape_problems(tensors, config, named)):
            raise UserError(f"{weights}: {problem}")


def _shape_problems(tensors: Mapping[str, TensorHeader], config: Mapping[str, Any], named: str) -> Iterator[str]:
    """The first tensor that is missing, that has another shape, and that has no place."""
    known = {POSITION_IDS}
    for name, shape in _tensors(tensors, config, named):
        if name not in tensors:
            yield f"lacks {name}, which {named} has; the checkpoint is incomplete, or one of the two is another model's"
            return
        if (found := tensors[name].shape) != shape:
            yield f"{name} is {_product(found)}, {named} says {_product(shape)}; one of the two is another model's"
            return
        known.add(name)
    if unread := next((name for name in tensors if name not in known), None):
        yield f"holds {unread}, of which {named} knows nothing; one of the two is another model's"


def _tensors(
    tensors: Mapping[str, TensorHeader], config: Mapping[str, Any], named: str
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(name, shape) of all; how many words and tasks there are is the checkpoint's own."""
    words, tasks = (next(iter(tensors[name].shape), 0) for name in (WORD_EMBEDDINGS, HEAD_OUTPUT))
    yield WORD_EMBEDDINGS, (words, embedding_size(config, named))
    for name, shape in deberta_tensors(config, named):
        yield BACKBONE_PREFIX + name, shape
    hidden = tensors[BACKBONE_PREFIX + "embeddings.LayerNorm.weight"].shape[0]
    yield from ((HEAD_HIDDEN, (hidden, 2 * hidden)), (HEAD_PREFIX + "1.bias", (hidden,)))
    yield from ((HEAD_OUTPUT, (tasks, hidden)), (HEAD_PREFIX + "4.bias", (tasks,)))


def _product(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a number"
