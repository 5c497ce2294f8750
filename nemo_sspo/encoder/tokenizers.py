"""Make the tokenizers of a sentence-transformers model follow their own files."""

from pathlib import Path
from typing import Any

from nemo_sspo.encoder.files import backbone_folders
from nemo_sspo.errors import UserError
from nemo_sspo.tokens.library import hold_to_file


def hold_tokenizers(model: Any, directory: Path, setting: str) -> None:
    """Replace the library's tokenizer rules by the files' where they differ. A StaticEmbedding reads its file itself.

    Raises:
        UserError: a tokenizer cannot be made to give its file's ids, or gives ids that its model has no row for.
    """
    # A Router, and the model itself, show a tokenizer of a module in them as theirs.
    loaded = [
        module
        for module in model.modules()
        if _has_tokenizer(module) and not any(_has_tokenizer(inner) for inner in list(module.modules())[1:])
    ]
    folders = list(backbone_folders(directory))
    if len(folders) != len(loaded):  # modules of the model's own code: their files lie beside it
        folders = [directory] * len(loaded)
    for module, folder in zip(loaded, folders, strict=True):
        tokenizer = hold_to_file(module.tokenizer, folder, setting, framed=True)
        rows = getattr(getattr(module, "auto_model", None), "get_input_embeddings", lambda: None)()
        token, id_ = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
        if (known := getattr(rows, "num_embeddings", None)) is not None and id_ >= known:
            raise UserError(f"{setting}: its tokenizer has {token} = {id_}, the model {known} rows; remove the token")


def _has_tokenizer(module: Any) -> bool:
    """Whether it holds one of transformers."""
    return hasattr(getattr(module, "tokenizer", None), "added_tokens_decoder")
