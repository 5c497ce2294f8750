"""Read labelled comparisons, and say which line is wrong."""

from dataclasses import dataclass

from nemo_sspo.artifacts.prompt_source import Conversation, conversation_of
from nemo_sspo.artifacts.records import read_records, without_surrogates
from nemo_sspo.errors import UserError

COLUMNS = ("prompt", "messages", "response_a", "response_b", "label")


@dataclass(frozen=True, slots=True)
class LabelledPair:
    """Two responses to a prompt, and the probability that the first is better."""

    conversation: Conversation
    first: str
    second: str
    label: float


def read_labelled(source: str) -> list[LabelledPair]:
    """Read every record.

    Raises:
        UserError: there is none, or one lacks a response or a label in [0, 1]; the line is named.
    """
    pairs = []
    for line, record, _ in read_records(source, COLUMNS, setting="evaluation.labelled_pairs"):
        where = f"{source} line {line}"
        conversation, _ = conversation_of(where, record, line)
        first, second, label = (record.get(name) for name in COLUMNS[2:])
        if not isinstance(first, str) or not isinstance(second, str):
            raise UserError(f"{where}: `response_a` and `response_b` must both be text")
        if isinstance(label, bool) or not isinstance(label, int | float) or not 0 <= label <= 1:
            raise UserError(
                f"{where}: `label` is {label!r}; expected the probability in [0, 1] that response_a is better"
            )
        pairs.append(LabelledPair(conversation, without_surrogates(first), without_surrogates(second), float(label)))
    if not pairs:
        raise UserError(f"{source}: holds no comparison")
    return pairs
