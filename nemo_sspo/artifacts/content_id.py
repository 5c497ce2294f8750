"""Identity of prompts, responses and pairs."""

import hashlib
import json
from collections.abc import Sequence

_CANONICAL = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), sort_keys=True)


def content_id(*parts: str | Sequence[int] | Sequence[dict[str, str]]) -> str:
    """Identity of a prompt, response or pair: 32 hex digits of the SHA-256 of its canonical JSON."""
    return hashlib.sha256(_CANONICAL.encode(parts).encode()).hexdigest()[:32]
