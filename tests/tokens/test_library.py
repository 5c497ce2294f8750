"""A tokenizer gives the ids of its own file, whatever the library of the environment makes of it, or is refused."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from tokenizers import Tokenizer

from nemo_sspo.errors import UserError
from nemo_sspo.tokens.library import load_tokenizer, require_same, token_ids_of
from nemo_sspo.tokens.own_file import SentencePieceFile
from nemo_sspo.tokens.probes import PROBES
from tests.json_edit import edit
from tests.tokens.spm import make_deberta, make_mistral
from tests.tokens.texts import unicode_texts


@pytest.fixture(scope="module")
def llama_class(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer.json under a class that stands for SentencePiece's rules (transformers 5 takes those)."""
    from tests.rollout.tiny_policy import make_policy

    policy = make_policy(tmp_path_factory.mktemp("llama"))
    edit(policy / "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")
    return policy


def test_a_byte_level_file_under_a_sentencepiece_class(llama_class: Path) -> None:
    file = Tokenizer.from_file(str(llama_class / "tokenizer.json"))
    tokenizer = load_tokenizer(llama_class, "policy=here")
    for text in [*PROBES, *unicode_texts(200)]:
        right = file.encode(text, add_special_tokens=False).ids
        assert token_ids_of(tokenizer, text) == right, text
        assert tokenizer.decode(right, skip_special_tokens=True) == file.decode(right)
    assert tokenizer.chat_template is not None
    assert tokenizer.eos_token_id == 2
    assert max(tokenizer.get_vocab().values()) == 287, "the class adds no token that the model has no row for"


def test_what_a_class_frames_a_text_with_is_compared_where_it_counts(tmp_path: Path, llama_class: Path) -> None:
    framed = tmp_path / "framed"
    shutil.copytree(llama_class, framed)
    content = json.loads((framed / "tokenizer.json").read_text())
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|user|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|user|>": {"id": "<|user|>", "ids": [3], "tokens": ["<|user|>"]}},
    }
    (framed / "tokenizer.json").write_text(json.dumps(content))
    assert load_tokenizer(framed, "oracle=here", framed=True)("a")["input_ids"][0] == 3


def test_a_token_of_the_configuration_alone_has_the_id_that_it_says(tmp_path: Path, llama_class: Path) -> None:
    added = tmp_path / "added"
    shutil.copytree(llama_class, added)
    known = json.loads((added / "tokenizer_config.json").read_text()).get("added_tokens_decoder", {})
    turn = {"content": "<|turn|>", "special": True, "lstrip": False, "rstrip": False, "normalized": False}
    edit(added / "tokenizer_config.json", added_tokens_decoder=known | {"288": turn | {"single_word": False}})
    assert token_ids_of(load_tokenizer(added, "policy=here"), "<|turn|>") == [288]
    edit(added / "tokenizer_config.json", added_tokens_decoder=known | {"300": turn | {"single_word": False}})
    with pytest.raises(UserError, match=r"<\|turn\|> = 300, but the next free id is 288"):
        load_tokenizer(added, "policy=here")


@pytest.mark.parametrize("make", [make_deberta, make_mistral])
def test_a_sentencepiece_file_alone(tmp_path: Path, make, capsys: pytest.CaptureFixture[str]) -> None:
    """The ids are SentencePiece's own: transformers 5 forgets the model's normalization, "…" is unknown to it."""
    pytest.importorskip("sentencepiece")
    directory = make(tmp_path / "model")
    name = next(directory.glob("*.model"))
    tokenizer = load_tokenizer(directory, "oracle=here")
    assert str(name) in capsys.readouterr().out, "it is said that the library was not followed"
    pieces = SentencePieceFile(name)
    for text in unicode_texts(500):
        assert pieces.same(token_ids_of(tokenizer, text), pieces.encode(text)), text
    for text, same in (
        ("Well… sauce", "Well... sauce"),
        ("\ufb01ne\uff0c\uff4f\ufb03ce", "fine,office"),
        ("a\u00a0cup\u200bof", "a cup of"),
    ):
        assert pieces.same(token_ids_of(tokenizer, text), pieces.encode(same))
    assert not pieces.same(pieces.encode("a cup"), pieces.encode("a cap"))
    batch = tokenizer(list(PROBES), add_special_tokens=False)["input_ids"]
    assert batch == [token_ids_of(tokenizer, text) for text in PROBES]


def test_what_cannot_be_made_exact_is_refused(tmp_path: Path, llama_class: Path, monkeypatch) -> None:
    """A tokenizer without the backend that could take the file's rules."""
    import transformers

    class Slow:
        def __init__(self, inner) -> None:
            self.inner = inner

        def __call__(self, text: str, **options: object) -> dict:
            return {"input_ids": [*self.inner(text, **options)["input_ids"], 7]}

        def __getattr__(self, name: str):
            if name == "backend_tokenizer":
                raise AttributeError(name)
            return getattr(self.inner, name)

    load = transformers.AutoTokenizer.from_pretrained
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *a, **o: Slow(load(*a, **o)))
    with pytest.raises(
        UserError, match=r"policy=here: transformers .* gives other tokens than .*tokenizer\.json: 'How"
    ):
        load_tokenizer(llama_class, "policy=here")


def test_pairrm_scores_what_the_file_says(tmp_path: Path) -> None:
    """A PairRM on a SentencePiece file alone: "…" is "..." to it, and a full-width comma a comma."""
    pytest.importorskip("sentencepiece")
    pytest.importorskip("torch")
    import torch
    from safetensors.torch import save_file
    from transformers import DebertaV2Model

    from nemo_sspo.config.oracles import PairRMOracle
    from nemo_sspo.oracle.pairrm.model import PairRM, PairRMModel
    from nemo_sspo.oracle.protocol import Row
    from tests.oracle.tiny_pairrm import _backbone_config

    make_deberta(tmp_path / "backbone")
    torch.manual_seed(0)
    config = _backbone_config(300)
    config.save_pretrained(tmp_path / "backbone")
    state = PairRMModel(DebertaV2Model(config), config.hidden_size, 1).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "model.safetensors")
    ranker = {"ranker_type": "pairranker", "model_type": "deberta", "model_name": "backbone"}
    (tmp_path / "config.json").write_text(json.dumps(ranker))
    pairs = [("Fine… sauce.", "Fine... sauce."), ("Sauce\uff0cplease.", "Sauce,please."), ("a\u00a0cup", "a cup")]
    rows = [Row("Pick one sauce.", text, "Flour.") for pair in pairs for text in pair]
    logits = PairRM(PairRMOracle(path=str(tmp_path))).compare(rows).logits_R
    assert logits[::2] == pytest.approx(logits[1::2], abs=1e-6)
    assert len(set(logits.round(5).tolist())) == len(pairs), "other texts have other scores"


def test_texts_beyond_the_probes_are_compared_too(llama_class: Path) -> None:
    tokenizer = load_tokenizer(llama_class, "policy=here")
    require_same(tokenizer, llama_class, "policy=here", ["a<|user|>b", *unicode_texts(20)])
    tokenizer.add_tokens(["town hall"])
    with pytest.raises(UserError, match=r"policy=here: .* 'the town hall' has town hall = 288"):
        require_same(tokenizer, llama_class, "policy=here", ["the town", "the town hall"])
