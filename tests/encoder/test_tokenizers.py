"""An encoder's tokenizer gives the ids of its own file, whatever class the library takes for it."""

import json
from pathlib import Path

import pytest

pytest.importorskip("sentence_transformers")

from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.encoder.sentence import Sentence
from nemo_sspo.encoder.tokenizers import hold_tokenizers
from nemo_sspo.errors import UserError
from nemo_sspo.tokens.probes import PROBES
from tests.encoder.tiny_encoders import edit, make_backbone, make_router


def test_another_class_changes_no_id(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "backbone")
    right = Sentence(SentenceEncoder(path=str(backbone)), "cpu").encode(PROBES).vectors_ND
    edit(backbone, "tokenizer_config.json", tokenizer_class="LlamaTokenizerFast")
    model = SentenceTransformer(str(backbone), device="cpu")
    hold_tokenizers(model, backbone, "encoder.path=here")
    file = Tokenizer.from_file(str(backbone / "tokenizer.json"))
    file.no_truncation()
    file.no_padding()
    assert [model.tokenizer(text)["input_ids"] for text in PROBES[:5]] == [file.encode(text).ids for text in PROBES[:5]]
    found = Sentence(SentenceEncoder(path=str(backbone)), "cpu")
    assert found.encode(PROBES).vectors_ND == pytest.approx(right, abs=1e-5)


def test_every_route_has_the_ids_of_its_file(tmp_path: Path) -> None:
    model = make_router(tmp_path, default_route="query")
    right = Sentence(SentenceEncoder(path=str(model), task="document"), "cpu").encode(PROBES).vectors_ND
    for file in model.glob("*/tokenizer_config.json"):
        edit(file.parent, file.name, tokenizer_class="LlamaTokenizerFast")
    found = Sentence(SentenceEncoder(path=str(model), task="document"), "cpu").encode(PROBES).vectors_ND
    assert found == pytest.approx(right, abs=1e-5)


def test_a_vocabulary_alone_is_read_by_its_class_or_refused(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "backbone")
    right = Sentence(SentenceEncoder(path=str(backbone)), "cpu").encode(PROBES).vectors_ND
    content = json.loads((backbone / "tokenizer.json").read_text())["model"]["vocab"]
    (backbone / "tokenizer.json").unlink()
    (backbone / "vocab.txt").write_text("".join(f"{token}\n" for token in sorted(content, key=content.get)))
    found = Sentence(SentenceEncoder(path=str(backbone)), "cpu").encode(PROBES).vectors_ND
    assert found == pytest.approx(right, abs=1e-5)
    edit(backbone, "tokenizer_config.json", tokenizer_class="BertJapaneseTokenizer")
    with pytest.raises(UserError, match="the rules of BertJapaneseTokenizer"):
        Sentence(SentenceEncoder(path=str(backbone)), "cpu")
