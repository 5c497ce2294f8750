"""JSON files of models: what is wrong with one is said in one line that names it."""

import json
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.text_files import read_text
from nemo_sspo.errors import UserError


def read_json(path: Path, advice: str = "") -> Any:
    """The value of a JSON file. A key that is there twice has its last value, as for the libraries that load models.

    Args:
        path: the file.
        advice: what to do where there is none.

    Raises:
        UserError: there is no such file, it cannot be read, or it is not JSON.
    """
    try:
        return json.loads(read_text(path))
    except FileNotFoundError:
        raise UserError(f"{path.parent}: no {path.name}{advice and f'; {advice}'}") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def read_json_object(path: Path, advice: str = "") -> dict[str, Any]:
    """`read_json` of an object; a UserError where it is another value."""
    value = read_json(path, advice)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object")
    return value


def json_or_empty(path: Path) -> dict[str, Any]:
    """`read_json_object`; an empty one where there is no such file."""
    return read_json_object(path) if path.is_file() else {}
