"""Chat templates without transformers: which one a model directory has, its text for a conversation, and what follows
from two such texts, a question's with and without an answer."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from nemo_sspo.artifacts.json_files import json_or_empty
from nemo_sspo.artifacts.text_files import read_text
from nemo_sspo.errors import UserError
from nemo_sspo.tokens.control import ControlTokens
from nemo_sspo.tokens.template_trial import refuse_endless

QUESTION, ANSWER = "Q7zk question", "A9xw answer"
"""Texts that no template brings itself."""
Render = Callable[[Sequence[Mapping[str, str]], bool], str]
"""Text of messages, with or without the generation prompt."""


class _Generation(Extension):
    """``{% generation %}``, by which templates mark what an assistant said; its body is text as any other."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _refuse(message: str) -> None:
    raise TemplateError(message)


def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(
        value,
        ensure_ascii=False,
        **{name: options[name] for name in ("indent", "separators", "sort_keys") if name in options},
    )
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def find_template(directory: Path) -> tuple[Path, str] | None:
    """The file and the text of the chat template that a library takes: chat_template.jinja before
    tokenizer_config.json, of several the one that is called ``default``.

    Raises:
        UserError: the file is no text.
    """
    if (file := directory / "chat_template.jinja").is_file():
        try:
            return file, read_text(file)
        except UnicodeDecodeError as error:
            raise UserError(f"{file}: not UTF-8 ({error})") from None
    file = directory / "tokenizer_config.json"
    found = json_or_empty(file).get("chat_template")
    if isinstance(found, list):
        named = (each for each in found if isinstance(each, dict) and each.get("name") == "default")
        found = next(named, {}).get("template")
    return (file, found) if isinstance(found, str) and found else None


def compiled(text: str) -> Template:
    """A template that can be rendered. Raises what Jinja raises, and Python for what Jinja has made of it."""
    return _environment().from_string(text)


def rendered(
    template: Template, messages: Sequence[Mapping[str, str]], variables: Mapping[str, Any], *, prompting: bool
) -> str:
    """The text of messages, with or without the generation prompt; `variables` are further ones."""
    return template.render(
        messages=[dict(message) for message in messages],
        tools=None,
        documents=None,
        add_generation_prompt=prompting,
        **variables,
    )


def template_renderer(file: Path, text: str, names: Mapping[str, str], arguments: Mapping[str, Any]) -> Render:
    """A template as a function.

    Args:
        file: where it was found, for messages.
        names: named tokens (``bos_token``), which templates use as variables.
        arguments: further variables, of the user's.

    Raises:
        UserError: it cannot be read, it takes too long or too much memory for a question, or it has no variable of an
            argument's name.
    """
    refuse_endless(file, text, {**names, **arguments})
    try:
        tree, template = _environment().parse(text), compiled(text)
    except TemplateSyntaxError as error:
        raise UserError(
            f"{file}: the chat template cannot be read ({error.message}, its line {error.lineno}); correct it"
        ) from None
    except (ValueError, RecursionError, SyntaxError, MemoryError) as error:
        raise UserError(f"{file}: the chat template cannot be read ({_reason(error)}); correct it") from None
    read = {name.name for name in tree.find_all(nodes.Name) if name.ctx == "load"}
    for name in arguments:
        if name not in read:
            raise UserError(f"data.template_arguments.{name}: the chat template in {file} reads no such variable")

    def render(messages: Sequence[Mapping[str, str]], prompting: bool) -> str:
        return rendered(template, messages, {**names, **arguments}, prompting=prompting)

    return render


@dataclass(frozen=True)
class Turn:
    """How a template writes an assistant's turn."""

    prompt: str
    """A question with the generation prompt behind it."""
    end: str | None
    """The token that ends an answer; None where the template puts none."""


def question_and_answer(render: Render, what: str) -> tuple[str, str]:
    """A question with the generation prompt, and the question with its answer; `what` is the template's name.

    Raises:
        UserError: the template fails, or leaves out what was said.
    """
    question, answer = {"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}
    try:
        prompt, whole = render([question], True), render([question, answer], False)
    except Exception as error:  # a template is a program: it may divide by zero
        raise UserError(f"{what} refuses a question with its answer ({_reason(error)})") from None
    if QUESTION not in prompt or ANSWER not in whole:
        raise UserError(f"{what} leaves out what was said: a question renders as {_shown(prompt)}")
    return prompt, whole


def read_turn(render: Render, control: ControlTokens, added: ControlTokens, what: str) -> Turn:
    """Render a question without and with an answer, and see that the second goes on where the first ends.

    Args:
        control: the tokenizer's special tokens, which mark turns.
        added: these and its other added tokens, any of which may end an answer.
        what: the template's name in messages.

    Raises:
        UserError: the control tokens before an answer are not those of the generation prompt, or an answer ends with
            text that is no control token, so that nothing would stop a generation.
    """
    prompt, whole = question_and_answer(render, what)
    before, _, after = whole.rpartition(ANSWER)
    if control.all_in(before) != control.all_in(prompt):
        raise UserError(
            f"{what}: the generation prompt is not what stands before an answer: a question to answer ends with "
            f"{_shown(_behind(prompt))}, an answered one with {_shown(_behind(before))} before the answer; let "
            "add_generation_prompt add what is missing"
        )
    end = added.spelled(after)
    if text := after.partition(end)[0].strip() if end else after.strip():
        raise UserError(
            f"{what} ends an answer with {_shown(text)}, which is no added token of the tokenizer: nothing would end "
            "a response there; take the tokenizer that belongs to the template"
        )
    return Turn(prompt, end)


def refused(error: Exception) -> str:
    """What is said of a conversation for which a template fails."""
    return f"the policy's chat template refuses it ({_reason(error)})"


def _reason(error: BaseException) -> str:
    said = str(error).splitlines()[0] if str(error) else ""
    return said if isinstance(error, TemplateError) else f"{type(error).__name__}: {said}".removesuffix(": ")


def _behind(text: str) -> str:
    return text.rpartition(QUESTION)[2]


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"…{text[-80:]}")
