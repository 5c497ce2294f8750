"""What a PairRM's tokenizer must have: the markers under the ids that its weights know, and a row for every token.

The stage asks the loaded tokenizer, a dry run the tokenizer's files. No torch.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from nemo_sspo.artifacts.sources.weight_headers import tensor_headers
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.pairrm.checkpoint import (
    MARKER_ID_KEYS,
    MARKERS,
    SAFETENSORS,
    SOURCE_MARKER,
    WORD_EMBEDDINGS,
    PairRMCheckpoint,
)
from nemo_sspo.tokens.own_file import TokenizersFile, own_file
from nemo_sspo.tokens.vocabulary import Vocabulary, read_vocabulary


def refuse_other_markers(checkpoint: PairRMCheckpoint, found: Mapping[str, int | None], unknown: int | None) -> None:
    """Raise a UserError where a marker is no token of the tokenizer, or another one than config.json says.

    Args:
        found: the tokenizer's id of each marker.
        unknown: the id of what it does not know.
    """
    for marker, key in MARKER_ID_KEYS.items():
        configured = checkpoint.config.get(key, found[marker])
        if found[marker] in (None, unknown) or found[marker] != configured:
            raise UserError(
                f"oracle.path={checkpoint.path}: its tokenizer has {marker} as {found[marker]}, config.json says "
                f"{configured}; take the tokenizer that it was trained with"
            )


def refuse_without_row(checkpoint: PairRMCheckpoint, highest: int, rows: int) -> None:
    """Raise a UserError where the tokenizer's `highest` id is beyond the `rows` of the embedding."""
    if highest >= rows:
        raise UserError(
            f"oracle.path={checkpoint.path}: its tokenizer has {highest + 1} tokens, the model {rows} rows; take the "
            "tokenizer that it was trained with"
        )


def refuse_unframed(probe: Sequence[int], cls: int | None, marker: int, sep: int | None) -> None:
    """Raise a UserError where ``<|source|>`` is not encoded as the marker between [CLS] and [SEP]."""
    if list(probe) != [cls, marker, sep]:
        raise UserError(
            f"oracle: its tokenizer encodes {SOURCE_MARKER} as {list(probe)}, not as [CLS] marker [SEP]; it is not the "
            "tokenizer of a PairRM"
        )


def check_files(checkpoint: PairRMCheckpoint) -> None:
    """All of this by the files of a checkpoint, as far as they lie here.

    Raises:
        UserError: also for a tokenizer of a kind whose ids cannot be known.
    """
    directory = Path(checkpoint.backbone)
    if (vocabulary := read_vocabulary(directory)) is None:
        return
    ids = {**vocabulary.ids}
    if checkpoint.layout == "llm-blender":  # which adds its markers behind the backbone's tokens
        absent = [marker for marker in MARKERS if marker not in ids]
        ids |= {marker: vocabulary.highest[0] + 1 + place for place, marker in enumerate(absent)}
    unknown = vocabulary.named.get("unk_token")
    refuse_other_markers(checkpoint, {marker: ids.get(marker) for marker in MARKERS}, ids.get(unknown or ""))
    if checkpoint.weights.name == SAFETENSORS:
        refuse_without_row(checkpoint, max(ids.values()), tensor_headers(checkpoint.weights)[WORD_EMBEDDINGS].shape[0])
    if checkpoint.layout == "hf" and isinstance(file := own_file(directory), TokenizersFile):
        frame = (ids.get(_named(vocabulary, name)) for name in ("cls", "sep"))
        refuse_unframed(file.framed(SOURCE_MARKER), next(frame), ids[SOURCE_MARKER], next(frame))


def _named(vocabulary: Vocabulary, name: str) -> str:
    """A token by its name, or what DeBERTa's tokenizers call it where no file does."""
    return vocabulary.named.get(f"{name}_token", f"[{name.upper()}]")
