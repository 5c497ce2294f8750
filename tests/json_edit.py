"""Change JSON files that a test has written or copied."""

import json
from pathlib import Path


def edit(path: Path, **changes: object) -> None:
    """Change keys of a JSON file; None takes one out."""
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
