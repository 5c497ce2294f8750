"""Tokenizers kept as vocab.txt, or as vocab.json and merges.txt, are held to the rules of their class, or refused."""

import unicodedata
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tokenizers import normalizers
from transformers import AutoTokenizer

from nemo_sspo.errors import UserError
from nemo_sspo.tokens import check
from nemo_sspo.tokens.library import load_tokenizer, token_ids_of
from nemo_sspo.tokens.probes import PROBES
from nemo_sspo.tokens.vocabulary import read_vocabulary
from tests.json_edit import edit
from tests.tokens.plain import CASED, UNCASED, byte_level, wordpiece
from tests.tokens.texts import unicode_texts


def tokens_of(directory: Path, text: str) -> list[str]:
    tokenizer = load_tokenizer(directory, "oracle=here", framed=True)
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def words(directory: Path, text: str) -> str:
    return " ".join(tokens_of(directory, text))


@pytest.mark.parametrize("name", ["BertTokenizer", "DistilBertTokenizerFast", "ElectraTokenizer", None])
def test_an_uncased_vocabulary(tmp_path: Path, name: str | None) -> None:
    """Words are lower-cased and stripped of accents, then cut into the longest pieces from the left."""
    model = wordpiece(tmp_path, UNCASED, tokenizer_class=name)
    assert words(model, "Sorting Café!日本") == "[CLS] sort ##ing cafe [UNK] 日 本 [SEP]"
    assert words(model, "sorts a[MASK]") == "[CLS] sort ##s a [MASK] [SEP]"


def test_a_cased_vocabulary(tmp_path: Path) -> None:
    model = wordpiece(tmp_path, CASED, tokenizer_class="BertTokenizer", do_lower_case=False)
    assert words(model, "Sorting sorting Café cafe") == "[CLS] Sort ##ing sort ##ing Café [UNK] [SEP]"


def test_settings_of_a_wordpiece_class_count(tmp_path: Path) -> None:
    kept = {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False}
    model = wordpiece(tmp_path, UNCASED, tokenizer_class="BertTokenizer", **kept)
    assert words(model, "CAFE Café 日本") == "[CLS] cafe [UNK] [UNK] [SEP]"


def test_a_cased_vocabulary_that_would_be_lower_cased_for_want_of_a_word_is_refused(tmp_path: Path) -> None:
    model = wordpiece(tmp_path, CASED, tokenizer_class="BertTokenizer")
    with pytest.raises(UserError, match=r"vocab\.txt: has 'Sort', .* does not say do_lower_case"):
        load_tokenizer(model, "oracle=here")


GPT2 = {"tokenizer_class": "GPT2Tokenizer"}
ROBERTA = {"tokenizer_class": "RobertaTokenizer"}
QWEN2 = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_end|>"]}


@pytest.mark.parametrize(
    ("special", "config", "text", "expected"),
    [
        (["<|endoftext|>"], GPT2, "the 12the", ["the", "Ġ", "1", "2", "the"]),
        (["<|endoftext|>"], GPT2 | {"add_prefix_space": True}, "the the", ["Ġthe", "Ġthe"]),
        (["<|endoftext|>"], GPT2 | {"add_bos_token": True}, "the", ["<|endoftext|>", "the"]),
        (
            ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
            ROBERTA,
            "the <mask> the",
            ["<s>", "the", "<mask>", "Ġthe", "</s>"],
        ),
        (["<|endoftext|>", "<|im_end|>"], QWEN2, "the e\u0301<|im_end|>", ["the", "Ġ", "Ã", "©", "<|im_end|>"]),
        (["<|endoftext|>"], QWEN2, "12 the<|im_end|>", ["1", "2", "Ġthe", "<|im_end|>"]),
    ],
    ids=["gpt2", "gpt2 with a space", "gpt2 with a beginning", "roberta", "qwen2", "qwen2 with an added token"],
)
def test_a_byte_level_vocabulary(tmp_path: Path, special: list[str], config: dict, text: str, expected: list) -> None:
    model = byte_level(tmp_path, special, **config)
    assert tokens_of(model, text) == expected
    tokenizer = load_tokenizer(model, "policy=here")
    vocabulary = read_vocabulary(model)
    assert vocabulary is not None
    assert vocabulary.ids == tokenizer.get_vocab()
    assert set(tokenizer.all_special_tokens) <= vocabulary.control
    for each in [*PROBES, *unicode_texts(100)]:
        read = tokenizer.decode(token_ids_of(tokenizer, each), clean_up_tokenization_spaces=False)
        meant = unicodedata.normalize("NFC", each) if config is QWEN2 else each  # GPT-2 keeps what it reads
        assert read.replace(" ", "") == meant.replace(" ", "")
        assert special[-1] == "<mask>" or read.removeprefix(" ") == meant.removeprefix(" ")


def test_a_library_that_reads_a_vocabulary_otherwise_is_corrected(tmp_path: Path, monkeypatch, capsys) -> None:
    """A release that forgets to lower-case."""
    load = AutoTokenizer.from_pretrained

    def forgetful(*args, **options):
        tokenizer = load(*args, **options)
        tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
        return tokenizer

    model = wordpiece(tmp_path, UNCASED, tokenizer_class="BertTokenizer")
    right = token_ids_of(load_tokenizer(model, "oracle=here"), "Sorting Café")
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", forgetful)
    assert token_ids_of(AutoTokenizer.from_pretrained(model), "Sorting Café") != right
    assert check.main([str(model)]) == 2
    assert "gives other tokens than" in capsys.readouterr().err
    assert token_ids_of(load_tokenizer(model, "oracle=here", framed=True), "Sorting Café") == right
    assert f"reads {model / 'vocab.txt'} otherwise than it is meant" in capsys.readouterr().out


def test_rules_that_are_not_known_are_refused(tmp_path: Path) -> None:
    model = wordpiece(tmp_path, UNCASED, tokenizer_class="BertTokenizer")
    for changes, message in (
        ({"tokenizer_class": "BertJapaneseTokenizer"}, "the rules of BertJapaneseTokenizer for it"),
        ({"tokenizer_class": "GPT2Tokenizer"}, "the rules of GPT2Tokenizer for it"),
        ({"auto_map": {"AutoTokenizer": ["own.Tokenizer", None]}}, "the rules of the model's own"),
        ({"do_basic_tokenize": False}, "what do_basic_tokenize=False makes of it"),
        ({"never_split": ["sorting"]}, "what never_split makes of it"),
        ({"do_lower_case": "no"}, "do_lower_case is 'no', not true or false"),
        ({"cls_token": "<cls>"}, "lacks the cls_token '<cls>'"),
    ):
        before = (model / "tokenizer_config.json").read_text()
        edit(model / "tokenizer_config.json", **changes)
        with pytest.raises(UserError) as refused:
            load_tokenizer(model, "oracle=here", framed=True)
        assert message in str(refused.value)
        assert "\n" not in str(refused.value)
        (model / "tokenizer_config.json").write_text(before)
    edit(model / "tokenizer_config.json", tokenizer_class=None)
    edit(model / "config.json", model_type="llama")
    with pytest.raises(UserError, match=r"a class that tokenizer_config\.json does not name .*save_pretrained"):
        read_vocabulary(model)


def test_merges_that_a_release_would_leave_out_are_refused(tmp_path: Path) -> None:
    model = byte_level(tmp_path, ["<|endoftext|>"], **GPT2)
    merges = (model / "merges.txt").read_text()
    for damaged in (merges.partition("\n")[2], merges.removesuffix("\n")):
        (model / "merges.txt").write_text(damaged)
        with pytest.raises(UserError, match=r"merges\.txt: has to begin with a line `#version: 0\.2`"):
            load_tokenizer(model, "policy=here")
    (model / "merges.txt").write_text(merges + "q q\n")
    with pytest.raises(UserError, match=r"merges\.txt: not the merges of vocab\.json"):
        load_tokenizer(model, "policy=here")
    (model / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"merges\.txt: absent"):
        load_tokenizer(model, "policy=here")


@pytest.mark.parametrize("name", ["tekken.json", "qwen.tiktoken", "tokenizer.model", "source.spm"])
def test_a_kind_that_nothing_here_reads_is_refused(tmp_path: Path, name: str) -> None:
    """`tokenizer.model` of Llama 3 is tiktoken's: words in base64, and their ranks."""
    (tmp_path / name).write_text("IQ== 0\nIg== 1\n")
    with pytest.raises(UserError, match=rf"{name}: how it splits a text cannot be checked here; .* save_pretrained"):
        read_vocabulary(tmp_path)
