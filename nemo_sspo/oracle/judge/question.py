"""The question that a language model is asked, and what its answer means. No torch, no network.

The response shown first is A, the second B. A verdict is a logit: log p(A) - log p(B) of the answer's first token where
there are log-probs, else plus or minus a stated one for the letter that the answer names.
"""

import math
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import NoReturn

from nemo_sspo.artifacts.text_files import read_text
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.protocol import Row

FIRST, SECOND = "A", "B"
ANSWERS = (FIRST, SECOND)
PLACEHOLDERS = ("{prompt}", "{first}", "{second}")

_PLACEHOLDER = re.compile("|".join(map(re.escape, PLACEHOLDERS)))
_LETTER = r"[*_\"'(\[\s]*(?:(?i:response)\s+)?([AB])\b(?!')"
_CONCLUSION = re.compile(
    rf"\[\[([AB])\]\]|(?i:verdict|answer|choice|winner|better|best)(?i:\s+response)?\s*(?:is|:){_LETTER}"
)
_ALONE = re.compile(r"[\W_]*([AB])[\W_]*(?:$|\n|[-:.,;)*\]])")
_MENTIONED = re.compile(r"(?i:response|assistant|answer)\s+([AB])\b(?!')")
_TIE = re.compile(r"\W*(?:it's a |it is a )?(?:tie|draw|equal|neither|both|c)\b", re.IGNORECASE)


def read_template(path: str | None) -> str:
    """Text of a question template; the package's own without a path.

    Raises:
        UserError: the file cannot be read, or one of the placeholders is not in it.
    """
    if path is None:
        return _default_template()
    try:
        text = read_text(Path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"oracle.template={path}: cannot be read ({error})") from None
    if missing := [name for name in PLACEHOLDERS if name not in text]:
        raise UserError(f"oracle.template={path}: lacks {', '.join(missing)}; it needs {', '.join(PLACEHOLDERS)}")
    return text


@cache
def _default_template() -> str:
    return Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")


def question(template: str, row: Row) -> str:
    """Fill in a template, in one pass: text that spells a placeholder stays what it is."""
    values = dict(zip(PLACEHOLDERS, (row.prompt, row.first, row.second), strict=True))
    return _PLACEHOLDER.sub(lambda match: values[match[0]], template)


def refuse_over_context(context: int) -> NoReturn:
    """Raise a UserError for a question that is longer than its context even with its texts left out."""
    raise UserError(
        f"oracle.context_tokens={context}: the question alone is longer; raise it, or give a shorter oracle.template"
    )


def cut_row(row: Row, limit: int) -> Row:
    """Keep the first `limit` characters of each text."""
    return Row(row.prompt[:limit], row.first[:limit], row.second[:limit])


def parse_verdict(answer: str) -> int | None:
    """1 for A, -1 for B, 0 for a tie, None for an answer from which no verdict can be read.

    In this order: the last conclusion it states (``[[B]]``, ``Verdict: B``, ``the better response is B``), the letter
    that it consists of or begins with, a tie, the only response that it mentions.
    """
    if concluded := _CONCLUSION.findall(answer):
        return _sign("".join(concluded[-1]))
    if alone := _ALONE.match(answer):
        return _sign(alone[1])
    if _TIE.match(answer):
        return 0
    mentioned = set(_MENTIONED.findall(answer))
    return _sign(mentioned.pop()) if len(mentioned) == 1 else None


def _sign(letter: str) -> int:
    return 1 if letter.upper() == FIRST else -1


def first_token_logit(logprobs: Mapping[str, float]) -> float | None:
    """log p(A) - log p(B) from the likeliest first tokens, or None when neither letter is among them.

    Spellings of a letter (``A``, `` A``) are summed. A letter that is not listed is at most as likely as the last one
    that is: it gets that value, so that the preference is never overstated. NaN where a log-prob is NaN.
    """
    if any(map(math.isnan, logprobs.values())):
        return math.nan
    spellings: dict[str, list[float]] = {letter: [] for letter in ANSWERS}
    for token, logprob in logprobs.items():
        if token.strip() in spellings and logprob > -math.inf:
            spellings[token.strip()].append(logprob)
    if not any(spellings.values()):
        return None
    floor = min(value for value in logprobs.values() if value > -math.inf)
    first, second = (_log_sum(spellings[letter]) if spellings[letter] else floor for letter in ANSWERS)
    return first - second


def _log_sum(values: list[float]) -> float:
    top = max(values)
    return top + math.log(sum(math.exp(value - top) for value in values))
