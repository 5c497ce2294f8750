"""A chat template that would not end, or fill the memory, is refused in seconds; one that fails says why."""

from pathlib import Path

import pytest

from nemo_sspo.errors import UserError
from nemo_sspo.tokens.chat_template import question_and_answer, template_renderer

FILE = Path("chat_template.jinja")
ENDLESS = {
    "loops": "{% for i in range(99999) %}" * 4 + "{% endfor %}" * 4,
    "a power": "{{ 10 ** (10 ** 10) }}",
    "a text": "{{ 'a' * 10 ** 10 }}",
    "doubling": "{% set n = namespace(s='aaaa') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
}
FAILING = {
    "{{ 1 / 0 }}": "ZeroDivisionError: division by zero",
    "{{ messages + 1 }}": "TypeError",
    "{{ raise_exception('no') }}": r"\(no\)",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}": "RecursionError",
    "{{ messages.nothing.at.all }}": "no attribute 'nothing'",
}
UNREADABLE = {
    "parentheses": "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
    "blocks": "{% if 1 %}" * 5_000 + "{% endif %}" * 5_000,
    "digits": "{{ " + "9" * 5_000 + " }}",
    "folded": "{{ 99999999 ** 99999 }}",
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_one_that_does_not_end(kind: str) -> None:
    with pytest.raises(UserError, match=r"chat_template\.jinja: the chat template does not come to an end within 5 s"):
        template_renderer(FILE, ENDLESS[kind], {}, {})


@pytest.mark.parametrize("text", FAILING)
def test_one_that_fails(text: str) -> None:
    render = template_renderer(FILE, text, {}, {})
    with pytest.raises(UserError, match=f"its template refuses a question with its answer .*{FAILING[text]}"):
        question_and_answer(render, "its template")


@pytest.mark.parametrize("kind", UNREADABLE)
def test_one_that_cannot_be_read(kind: str) -> None:
    with pytest.raises(UserError, match=r"chat_template\.jinja: the chat template cannot be read"):
        template_renderer(FILE, UNREADABLE[kind], {}, {})


def test_one_that_is_too_long() -> None:
    with pytest.raises(UserError, match="a chat template of 1100000 characters"):
        template_renderer(FILE, "x" * 1_100_000, {}, {})
