"""An installed package that is an encoder: what `encoder.path=package:...` names. Its model lies where the run starts."""

import json
from pathlib import Path


def get_model_path() -> Path:
    return Path("encoder")


def write(directory: Path) -> None:
    """A sentence-transformers model as far as a dry run looks."""
    directory.mkdir()
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds.items()]
    (directory / "modules.json").write_text(json.dumps(modules))
    (directory / "config.json").write_text("{}")
