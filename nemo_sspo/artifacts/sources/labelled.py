"""Read labelled comparisons, and say which line is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass

from nemo_sspo.artifacts.json_text import refuse_surrogates
from nemo_sspo.artifacts.sources.prompts import PROMPT_COLUMNS, Conversation, conversation_of
from nemo_sspo.artifacts.sources.records import read_records
from nemo_sspo.errors import UserError

_ANSWERS = ("response_a", "response_b", "label")
COLUMNS = (*PROMPT_COLUMNS, *_ANSWERS)


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two responses to a prompt, and the probability that the first is better."""

    conversation: Conversation
    first: str
    second: str
    label: float


def read_labelled(source: str, names: Mapping[str, str] | None = None) -> list[LabelledPair]:
    """Read every record. `names` are what the source calls fields of the prompt that have another name here.

    Raises:
        UserError: there is none, or one lacks a response or a label in [0, 1]; the line is named.
    """
    pairs = []
    for record in read_records(source, COLUMNS, setting="evaluation.labelled_pairs", names=names):
        conversation, where = conversation_of(record), record.where
        first, second, label = (record.value.get(name) for name in _ANSWERS)
        if not isinstance(first, str) or not isinstance(second, str):
            raise UserError(f"{where}: `response_a` and `response_b` must both be text")
        for name, text in zip(_ANSWERS, (first, second), strict=False):
            refuse_surrogates(f"{where}: `{name}`", text)
        if isinstance(label, bool) or not isinstance(label, int | float) or not 0 <= label <= 1:
            raise UserError(
                f"{where}: `label` is {label!r}; expected the probability in [0, 1] that response_a is better"
            )
        pairs.append(LabelledPair(conversation, first, second, float(label)))
    if not pairs:
        raise UserError(f"{source}: holds no comparison")
    return pairs
