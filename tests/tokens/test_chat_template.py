"""How the templates of known families write a turn; the structure is theirs, tools and default texts are left out."""

import pytest

from nemo_sspo.errors import UserError
from nemo_sspo.tokens.chat_template import read_turn, template_renderer
from nemo_sspo.tokens.control import ControlTokens

CHATML = (
    "{%- for m in messages %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>' + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
FAMILIES = {
    "llama3": (
        "{% for m in messages %}{% set content = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n'"
        "+ m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
        "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"},
        ["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        "<|eot_id|>",
    ),
    "mistral": (
        "{{ bos_token }}{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{% if m['role'] == 'user' %}"
        "{{ '[INST] ' + m['content'] + '[/INST]' }}{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}"
        "{% endfor %}",
        {"bos_token": "<s>", "eos_token": "</s>"},
        ["[INST]", "[/INST]"],
        "</s>",
    ),
    "gemma2": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}"
        "{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}",
        {"bos_token": "<bos>", "eos_token": "<eos>"},
        ["<start_of_turn>", "<end_of_turn>"],
        "<end_of_turn>",
    ),
    "qwen2": (CHATML, {"eos_token": "<|im_end|>"}, ["<|im_start|>"], "<|im_end|>"),
    "qwen3": (
        CHATML.replace(
            "+ m.content +", "+ ('<think>\\n\\n</think>\\n\\n' if m.role == 'assistant' else '') + m.content +"
        ),
        {"eos_token": "<|im_end|>"},
        ["<|im_start|>"],
        "<|im_end|>",
    ),
    "zephyr": (
        "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}\n"
        "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}",
        {"eos_token": "</s>"},
        [],
        "</s>",
    ),
    "r1": (
        "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '<User>' + m['content'] }}{% else %}"
        "{{ '<Assistant>' + m['content'].split('</think>')[-1] + eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<Assistant><think>\\n' }}{% endif %}",
        {"bos_token": "<bos>", "eos_token": "<eos>"},
        ["<User>", "<Assistant>"],
        "<eos>",
    ),
    "no end": ("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}", {}, [], None),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_of_a_turn(family: str, tmp_path) -> None:
    template, named, special, end = FAMILIES[family]
    control = ControlTokens([*named.values(), *special])
    render = template_renderer(tmp_path / "chat_template.jinja", template, named, {})
    turn = read_turn(render, control, control, family)
    assert turn.end == end
    whole = render([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], False)
    assert end is None or whole.rstrip().endswith(f"b{end}")


def test_an_end_that_is_added_and_not_special(tmp_path) -> None:
    """Some models have <|im_end|> as an added token that is not marked as special: it ends a turn all the same."""
    render = template_renderer(tmp_path / "t", CHATML, {}, {})
    control, added = ControlTokens([]), ControlTokens(["<|im_start|>", "<|im_end|>"])
    turn = read_turn(render, control, added, "here")
    assert turn.end == "<|im_end|>"
    assert control.with_end(turn.end).spelled("a<|im_end|>") == "<|im_end|>"
    with pytest.raises(UserError, match=r"ends an answer with '<\|im_end\|>', which is no added token"):
        read_turn(render, control, control, "here")


def test_a_header_that_add_generation_prompt_leaves_out(tmp_path) -> None:
    template = CHATML.partition("{%- if add")[0]
    control = ControlTokens(["<|im_start|>", "<|im_end|>"])
    render = template_renderer(tmp_path / "t", template, {}, {})
    with pytest.raises(UserError, match="the generation prompt is not what stands before an answer"):
        read_turn(render, control, control, "here")


def test_a_template_cannot_leave_its_sandbox(tmp_path) -> None:
    render = template_renderer(tmp_path / "t", "{{ messages.append(1) }}", {}, {})
    with pytest.raises(UserError, match="refuses a question"):
        read_turn(render, ControlTokens([]), ControlTokens([]), "here")
