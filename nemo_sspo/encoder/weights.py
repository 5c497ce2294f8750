"""Check a loaded encoder's weights: each comes from a file, and each tensor of the files is used."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nemo_sspo.encoder.files import backbone_folders
from nemo_sspo.errors import UserError

_HEADS = ("cls.", "lm_head.", "vocab_", "predictions.", "discriminator_predictions.", "generator_")
"""Pre-training heads, which an encoder does not use."""
_UNUSED = ("pooler.",)
"""Outputs that some backbones compute from their first state and that no Pooling reads."""


def refuse_other_weights(model: Any, directory: Path, named: str) -> None:
    """Compare the backbones of a sentence-transformers model with the files they came from.

    transformers fills a weight that is missing with random values and drops one without a place, with a warning.

    Raises:
        UserError: a weight is missing, or one is left over.
    """
    for (module, backbone), folder in zip(_backbones(model), backbone_folders(directory), strict=False):
        if getattr(backbone.config, "auto_map", None):  # the loading of other code is its own
            continue
        _, info = type(backbone).from_pretrained(
            folder, config=backbone.config, dtype=backbone.dtype, output_loading_info=True
        )
        pooled = getattr(module, "module_output_name", "token_embeddings") != "token_embeddings"
        if missing := sorted(key for key in info["missing_keys"] if pooled or not key.startswith(_UNUSED)):
            raise UserError(f"{named}: its weights lack {', '.join(missing[:3])}; the model is incomplete")
        if unread := sorted(key for key in info["unexpected_keys"] if not key.startswith(_HEADS)):
            raise UserError(
                f"{named}: its weights hold {', '.join(unread[:3])}, for which {type(backbone).__name__} of its "
                "config.json has no place; one of the two is another model's"
            )


def _backbones(model: Any) -> Iterator[tuple[Any, Any]]:
    """Modules of sentence-transformers and the models of transformers that they hold."""
    from transformers import PreTrainedModel

    for module in model.modules():
        if not isinstance(module, PreTrainedModel) and type(module).__module__.startswith("sentence_transformers."):
            yield from ((module, child) for child in module.children() if isinstance(child, PreTrainedModel))
