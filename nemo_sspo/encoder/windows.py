"""Texts beyond an encoder's window, cut into windows of token ids that the encoder reads one by one.

A window is built like a text of its own: special tokens, the prompt, tokens of the text, special tokens. The first one
is what sentence-transformers itself makes of the text when it truncates it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from nemo_sspo.encoder.files import route
from nemo_sspo.errors import UserError

_NO_LIMIT = 10**6
"""Tokenizers that know no limit state one beyond this."""


class Window(NamedTuple):
    """Token ids of a part of a text, and how many of them are not the prompt's."""

    token_ids: list[int]
    weight: int


class Windows:
    """Cuts long texts for the module by which a sentence-transformers model reads a text."""

    def __init__(self, model: Any, prompt: str, task: str | None) -> None:
        self._prompt = prompt
        self._module = _input_module(model, task)
        self._tokenizer: Any = getattr(self._module, "tokenizer", None)
        self.size = _window(self._module, task)
        """Longest text in tokens; None: a text of any length is read whole."""
        self.can_cut = hasattr(self._tokenizer, "pad") and "text" in getattr(
            self._module, "modality_config", {"text": 0}
        )
        """Whether token ids can be given to the module."""

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text with prompt and special tokens; 0 where no text is too long."""
        if self.size is None or self._tokenizer is None:
            return [0] * len(texts)
        whole = [self._prompt + text for text in texts]
        if callable(self._tokenizer):
            return list(map(len, self._tokenizer(whole, add_special_tokens=True, verbose=False)["input_ids"]))
        return [len(self._tokenizer.tokenize(text)) for text in whole]

    def cut(self, text: str) -> Iterator[Window]:
        """Windows of one text.

        Raises:
            UserError: the prompt leaves no room.
        """
        encoded = self._tokenizer(self._prompt + text, return_special_tokens_mask=True, verbose=False)
        token_ids, special = encoded["input_ids"], encoded["special_tokens_mask"]
        lead = next((index for index, flag in enumerate(special) if not flag), 0)
        trail = next((index for index, flag in enumerate(reversed(special)) if not flag), 0)
        start, end = max(lead, self._prompt_length()), len(token_ids) - trail
        room = (self.size or len(token_ids)) - start - trail
        if room < 1:
            raise UserError(f"encoder: its prompt of {start - lead} tokens fills the window of {self.size}; shorten it")
        for first in range(start, end, room):
            part = token_ids[first : min(first + room, end)]
            yield Window([*token_ids[:start], *part, *token_ids[end:]], lead + len(part) + trail)

    def features(self, windows: Sequence[Window], device: torch.device) -> dict[str, Any]:
        """Inputs for the model in place of texts."""
        padded = self._tokenizer.pad({"input_ids": [window.token_ids for window in windows]}, return_tensors="pt")
        tensors: dict[str, Tensor] = {name: padded[name].to(device) for name in ("input_ids", "attention_mask")}
        prompt = {"prompt_length": self._prompt_length()} if self._prompt else {}
        modality = {"modality": "text"} if hasattr(self._module, "modality_config") else {}
        return {**tensors, **prompt, **modality}

    def _prompt_length(self) -> int:
        """Tokens at the beginning that pooling leaves out where it is to, as sentence-transformers counts them."""
        if not self._prompt:
            return 0
        token_ids = self._tokenizer(self._prompt)["input_ids"]
        return len(token_ids) - (token_ids[-1] in self._tokenizer.all_special_ids)


def _input_module(model: Any, task: str | None) -> Any:
    """The first module, or the first one of the route that a text takes."""
    module = model[0]
    if not hasattr(module, "sub_modules"):
        return module
    parameters = {name: getattr(module, name, None) for name in ("route_mappings", "default_route", "allow_empty_key")}
    return module.sub_modules[route(module.sub_modules, parameters, task)][0]


def _window(module: Any, task: str | None) -> int | None:
    given = (getattr(module, "processing_kwargs", None) or {}).get("text", {}).get("max_length")
    if task in ("query", "document"):
        given = given or getattr(module, f"{task}_length", None)
    tokenizer = getattr(module, "tokenizer", None)
    size = given or getattr(module, "max_seq_length", None) or getattr(tokenizer, "model_max_length", None)
    return None if size is None or size > _NO_LIMIT else int(size)
