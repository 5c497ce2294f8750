"""A policy's files against each other: tokens and rows, ids of the configuration, the template and what ends a turn."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from nemo_sspo.errors import UserError
from nemo_sspo.tokens.policy_files import policy_problems, read_policy_tokens, stop_ids
from tests.json_edit import edit
from tests.tokens.spm import make_mistral

SPECIAL = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"]
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
QWEN3 = TEMPLATE.replace(
    "{{ '<|assistant|>' }}",
    "{{ '<|assistant|>' }}{% if enable_thinking is defined and enable_thinking is false %}"
    "{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}",
)


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    """A byte-level tokenizer with four special tokens, of which only the end of a turn has a name."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={token: id_ for id_, token in enumerate([*SPECIAL, *alphabet])}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    write(tmp_path / "tokenizer_config.json", eos_token="<|end|>", chat_template=TEMPLATE)
    write(
        tmp_path / "config.json", model_type="llama", vocab_size=260, eos_token_id=1, pad_token_id=0, bos_token_id=None
    )
    return tmp_path


def write(path: Path, **content: object) -> None:
    path.write_text(json.dumps(content))


def test_a_right_policy(policy: Path) -> None:
    tokens = read_policy_tokens(policy, {})
    assert tokens is not None
    assert tokens.end_of_turn == 1
    assert tokens.turn.prompt.endswith("<|end|><|assistant|>")
    assert tokens.vocabulary.control == set(SPECIAL), "also those without a name"
    assert stop_ids(policy, tokens.end_of_turn, tokens.vocabulary) == [1]


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "a token without a row": (
        lambda p: edit(p / "config.json", vocab_size=259),
        "its tokenizer has 260 tokens, the model 259 rows",
    ),
    "a token of the configuration without a row": (
        lambda p: edit(
            p / "tokenizer_config.json", added_tokens_decoder={"260": {"content": "<|t|>", "special": True}}
        ),
        "its tokenizer has 261 tokens, the model 260 rows: <|t|> = 260 has no embedding",
    ),
    "a named token that the vocabulary lacks": (
        lambda p: edit(p / "tokenizer_config.json", eos_token="<|im_end|>"),
        "<|im_end|> = 260 has no embedding",
    ),
    "an id beyond the rows": (lambda p: edit(p / "config.json", pad_token_id=400), "pad_token_id 400 is beyond"),
    "an id that is no token": (
        lambda p: edit(p / "config.json", vocab_size=512, bos_token_id=300),
        "bos_token_id 300 is no token of the tokenizer",
    ),
    "an ordinary token ends a text": (
        lambda p: write(p / "generation_config.json", eos_token_id=[1, 40]),
        "generation_config.json: eos_token_id 40 is",
    ),
    "an id beyond the rows in generation_config.json": (
        lambda p: write(p / "generation_config.json", eos_token_id=[1, 260]),
        "generation_config.json: eos_token_id 260 is beyond the model's 260 rows",
    ),
    "an id that is text": (
        lambda p: write(p / "generation_config.json", eos_token_id="1"),
        'generation_config.json: eos_token_id is "1", not an id, a list of ids or null',
    ),
    "a list of ids that holds something else": (
        lambda p: write(p / "generation_config.json", eos_token_id=[1, None]),
        "generation_config.json: eos_token_id is [1, null], not an id",
    ),
    "an id that is true": (lambda p: edit(p / "config.json", eos_token_id=True), "config.json: eos_token_id is true"),
    "an id below none": (lambda p: edit(p / "config.json", pad_token_id=-2), "config.json: pad_token_id is -2"),
    "no JSON": (
        lambda p: (p / "generation_config.json").write_text('{"eos_token_id": 1'),
        "generation_config.json: not valid JSON",
    ),
    "no JSON object": (
        lambda p: (p / "generation_config.json").write_text("[1]"),
        "generation_config.json: expected a JSON object",
    ),
    "no generation prompt": (
        lambda p: edit(p / "tokenizer_config.json", chat_template=TEMPLATE.partition("{% if add")[0]),
        "the generation prompt is not what stands before an answer",
    ),
    "an end that is no token": (
        lambda p: edit(p / "tokenizer_config.json", chat_template=TEMPLATE.replace("<|end|>", "<|im_end|>")),
        "ends an answer with '<|im_end|>', which is no added token",
    ),
    "an answer left out": (
        lambda p: edit(p / "tokenizer_config.json", chat_template="{{ messages[0]['content'] + eos_token }}"),
        "leaves out what was said",
    ),
    "an answer refused": (
        lambda p: edit(p / "tokenizer_config.json", chat_template="{{ raise_exception('no') }}"),
        "refuses a question with its answer (no)",
    ),
    "no template": (lambda p: edit(p / "tokenizer_config.json", chat_template=None), "no chat template"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_by_dry_run_and_stage_alike(policy: Path, case: str) -> None:
    damage, message = WRONG[case]
    damage(policy)
    with pytest.raises(UserError) as refused:
        read_policy_tokens(policy, {})
    assert message in str(refused.value)
    try:
        found = list(policy_problems(policy, {}))
    except UserError as error:
        found = [str(error)]
    assert str(refused.value) in found


def test_the_end_of_a_turn_stops_a_generation_whatever_the_names_say(policy: Path) -> None:
    """The template ends turns with <|end|>; eos_token and config.json name <|pad|>."""
    edit(policy / "tokenizer_config.json", eos_token="<|pad|>")
    edit(policy / "config.json", eos_token_id=0)
    tokens = read_policy_tokens(policy, {})
    assert tokens is not None
    assert tokens.end_of_turn == 1
    assert stop_ids(policy, tokens.end_of_turn, tokens.vocabulary) == [0, 1]


def test_arguments_of_the_template(policy: Path) -> None:
    edit(policy / "tokenizer_config.json", chat_template=QWEN3)
    default, silent = read_policy_tokens(policy, {}), read_policy_tokens(policy, {"enable_thinking": False})
    assert default is not None
    assert silent is not None
    assert default.turn.prompt.endswith("<|assistant|>")
    assert silent.turn.prompt.endswith("<|assistant|><think>\n\n</think>\n\n")
    assert default.end_of_turn == silent.end_of_turn == 1
    with pytest.raises(UserError, match=r"data\.template_arguments\.enable_thinkin: .* reads no such variable"):
        read_policy_tokens(policy, {"enable_thinkin": False})


def test_a_sentencepiece_file_alone_is_read_without_transformers(tmp_path: Path) -> None:
    pytest.importorskip("sentencepiece")
    policy = make_mistral(tmp_path / "policy")
    tokens = read_policy_tokens(policy, {})
    assert tokens is not None
    assert tokens.end_of_turn == 2
    assert tokens.control.spelled("a <s>b</s>") == "<s>"
    edit(policy / "config.json", vocab_size=400)
    with pytest.raises(UserError, match="its tokenizer has 420 tokens, the model 400 rows"):
        read_policy_tokens(policy, {})


def test_the_template_is_the_one_that_transformers_renders(policy: Path) -> None:
    transformers = pytest.importorskip("transformers")
    edit(policy / "tokenizer_config.json", chat_template=QWEN3)
    tokenizer = transformers.AutoTokenizer.from_pretrained(policy)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    for arguments in ({}, {"enable_thinking": False}):
        tokens = read_policy_tokens(policy, arguments)
        assert tokens is not None
        for count, prompting in ((1, True), (2, False)):
            theirs = tokenizer.apply_chat_template(
                messages[:count], add_generation_prompt=prompting, tokenize=False, **arguments
            )
            assert tokens.render(messages[:count], prompting) == theirs
