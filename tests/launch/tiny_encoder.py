"""An installed package that is an encoder: its model lies where the run starts, or where TINY_ENCODER says."""

import json
import os
from pathlib import Path


def get_model_path() -> Path:
    return Path(os.environ.get("TINY_ENCODER", "encoder"))


def write(directory: Path) -> None:
    """A sentence-transformers model as far as a dry run looks."""
    directory.mkdir()
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "config.json").write_text("{}")
