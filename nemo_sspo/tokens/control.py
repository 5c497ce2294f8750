"""Text that spells a control token: read back as tokens it would be one, a forged turn or end."""

import re
from collections.abc import Iterable
from typing import Any


class ControlTokens:
    """The control tokens of a tokenizer, looked for in texts."""

    def __init__(self, tokens: Iterable[str]) -> None:
        """`tokens`: their spellings. The longest is found where one begins with another."""
        self.tokens = frozenset(tokens)
        ordered = sorted(self.tokens, key=lambda token: (-len(token), token))
        self._pattern = re.compile("|".join(map(re.escape, ordered)) if ordered else "(?!)")

    def with_end(self, end: str | None) -> "ControlTokens":
        """These tokens and the one that ends a turn, which need not be a special one."""
        return self if end is None or end in self.tokens else ControlTokens({*self.tokens, end})

    def spelled(self, text: str) -> str | None:
        """The first control token that `text` spells, if any."""
        found = self._pattern.search(text)
        return found.group() if found else None

    def all_in(self, text: str) -> list[str]:
        """Every control token of `text`, in order."""
        return self._pattern.findall(text)

    def blanked(self, text: str) -> str:
        """`text` with a space in the place of every control token."""
        return self._pattern.sub(" ", text)


def special_tokens(tokenizer: Any) -> list[str]:
    """Every special token of a tokenizer of transformers, whether or not it has a name."""
    added = tokenizer.added_tokens_decoder.values()
    return [*tokenizer.all_special_tokens, *(str(token) for token in added if token.special)]
