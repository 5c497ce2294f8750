"""An encoder's tokenizer gives the ids of its own file, whatever class the library takes for it."""

import json
from pathlib import Path

import pytest

pytest.importorskip("sentence_transformers")

from tokenizers import Tokenizer

from nemo_sspo.config.variants import SentenceEncoder
from nemo_sspo.encoder.sentence import Sentence
from nemo_sspo.tokens.probes import PROBES
from tests.encoder.tiny_encoders import make_backbone


def test_another_class_changes_no_id(tmp_path: Path) -> None:
    backbone = make_backbone(tmp_path / "backbone")
    right = Sentence(SentenceEncoder(path=str(backbone)), "cpu").encode(PROBES).vectors_ND
    config = json.loads((backbone / "tokenizer_config.json").read_text())
    (backbone / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "LlamaTokenizerFast"}))
    found = Sentence(SentenceEncoder(path=str(backbone)), "cpu")
    file = Tokenizer.from_file(str(backbone / "tokenizer.json"))
    file.no_truncation()
    file.no_padding()
    tokenizer = found._model.tokenizer
    assert [tokenizer(text)["input_ids"] for text in PROBES[:5]] == [file.encode(text).ids for text in PROBES[:5]]
    assert found.encode(PROBES).vectors_ND == pytest.approx(right, abs=1e-5)
