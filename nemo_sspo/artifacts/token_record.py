"""The schema of tokens.json: what the tokenizer that made a run's prompts made of some texts.

A stage that loads the tokenizer in another environment, or another policy's, recomputes it before it loads a model.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from nemo_sspo.errors import UserError


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class TokenizedText(_Facts):
    """A text and its token ids."""

    text: str
    token_ids: list[int]


class TokenRecord(_Facts):
    """A tokenizer, by what it does."""

    vocabulary: str
    """Digest of its tokens and their ids."""
    chat_template: str
    """Digest of the chat template."""
    arguments: dict[str, Any]
    """Arguments of the template (`data.template_arguments`)."""
    texts: list[TokenizedText]
    """The probes, and the first prompts as the template writes them."""


def read_token_record(path: Path) -> TokenRecord:
    """Read tokens.json.

    Raises:
        UserError: it is not there, or not what this version writes.
    """
    try:
        return TokenRecord.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise UserError(
            f"{path.parent}: no {path.name}; the prompts are of an older version: begin a new run"
        ) from None
    except ValidationError as error:
        raise UserError(
            f"{path}: not a record of token ids ({error.error_count()} problems); begin a new run"
        ) from None
