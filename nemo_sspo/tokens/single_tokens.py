"""Tokens that are a whole answer."""

from collections.abc import Callable

from nemo_sspo.errors import UserError


def single_tokens(
    encode: Callable[[str], list[int]], decode: Callable[[list[int]], str], policy: str, answer: str
) -> list[int]:
    """Tokens that spell an answer, with and without a space before it.

    Args:
        encode: ids of a text without those that frame one, by a tokenizer or by its file.
        decode: the text of ids; that of an unknown token is another one.
        policy: whose tokenizer it is.

    Raises:
        UserError: no spelling is one token.
    """
    encoded = [encode(text) for text in (answer, f" {answer}")]
    if not (single := sorted({ids[0] for ids in encoded if len(ids) == 1 and decode(ids).strip() == answer})):
        raise UserError(f"policy={policy}: its tokenizer has no single token for {answer!r}, so it cannot judge")
    return single
