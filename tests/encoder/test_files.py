"""What is told of an encoder by its files alone, before a model is loaded."""

import json
from pathlib import Path

import pytest

from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.encoder.files import encoder_problems, route
from nemo_sspo.errors import UserError
from tests.launch.tiny_models import write_safetensors

POOLED = ["Transformer", "Pooling"]


def write(folder: Path, modules: list[str] | None = None, **files: object) -> Path:
    """A sentence-transformers model of these modules; `files` have _ for a dot before json."""
    folder.mkdir(parents=True, exist_ok=True)
    chain = [
        {"path": "" if index == 0 else f"{index}_{kind}", "type": f"sentence_transformers.models.{kind}"}
        for index, kind in enumerate(POOLED if modules is None else modules)
    ]
    contents = {"modules": chain, "config": {"model_type": "bert", "num_hidden_layers": 2}} | files
    for name, content in contents.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def problems(folder: Path, **settings: object) -> list[str]:
    return list(encoder_problems(folder, SentenceEncoder(path="E", **settings)))


def only(folder: Path, **settings: object) -> str:
    (problem,) = problems(folder, **settings)
    return problem


def test_a_right_encoder(tmp_path: Path) -> None:
    assert problems(write(tmp_path)) == []
    (tmp_path / "modules.json").unlink()
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("modules", "files", "message"),
    [
        (["Transformer"], {}, "modules.json has no Pooling"),
        (["Transformer", "Dense", "Normalize"], {}, "modules.json has no Pooling"),
        ([], {}, "not a list of modules"),
        (None, {"config_sentence_transformers": {"model_type": "SparseEncoder"}}, "encoder.path=E: a SparseEncoder"),
        (
            None,
            {"config_sentence_transformers": {"prompts": {"a": "b"}, "default_prompt_name": "sts"}},
            "default_prompt_name is sts, which is none of its prompts (a)",
        ),
        (None, {"adapter_config": {}}, "adapter_config.json asks for an adapter that is not merged"),
    ],
)
def test_what_cannot_encode(tmp_path: Path, modules: list[str] | None, files: dict, message: str) -> None:
    assert message in only(write(tmp_path, modules, **files))


def test_what_makes_one_vector_of_a_text(tmp_path: Path) -> None:
    for number, modules in enumerate(
        (["StaticEmbedding"], ["BoW"], ["CLIPModel"], ["WordEmbeddings", "LSTM", "Pooling"])
    ):
        assert problems(write(tmp_path / str(number), modules)) == []
    own = {"sentence_bert_config": {"module_output_name": "sentence_embedding"}}
    assert problems(write(tmp_path / "own", ["Transformer"], **own)) == []
    write(tmp_path / "code", [])
    (tmp_path / "code" / "modules.json").write_text(json.dumps([{"type": "custom_st.Transformer", "path": ""}]))
    assert problems(tmp_path / "code") == [], "what modules of other code do, they alone know"


def test_settings_that_the_model_does_not_know(tmp_path: Path) -> None:
    write(tmp_path, config_sentence_transformers={"prompts": {"sts": "x"}})
    assert "prompt_name=query: the model has no such prompt; it has sts" in only(tmp_path, prompt_name="query")
    assert problems(tmp_path, prompt_name="sts") == []
    assert "encoder.task=query: the model knows no tasks" in only(tmp_path, task="query")


def test_more_tokens_than_positions(tmp_path: Path) -> None:
    write(tmp_path, sentence_bert_config={"max_seq_length": 3})
    write_safetensors(tmp_path / "model.safetensors", "embeddings.position_embeddings.weight")  # 2 x 2
    assert "reads up to 3 tokens of a text, and its weights have 2 positions" in only(tmp_path)
    write(tmp_path, sentence_bert_config={"max_seq_length": 2})
    assert problems(tmp_path) == []
    padded = {"model_type": "roberta", "pad_token_id": 0, "num_hidden_layers": 2}
    write(tmp_path, config=padded, sentence_bert_config={"max_seq_length": 2})
    assert "its weights have 1 positions" in only(tmp_path)
    write(tmp_path, sentence_bert_config={}, tokenizer_config={"model_max_length": 1e30})
    assert problems(tmp_path) == [], "without a limit sentence-transformers takes the config's, or none"
    config = {"model_type": "bert", "num_hidden_layers": 2, "max_position_embeddings": 4}
    write(tmp_path, config=config, sentence_bert_config={}, tokenizer_config={"model_max_length": 512})
    assert "reads up to 4 tokens" in only(tmp_path)


def test_other_weights(tmp_path: Path) -> None:
    write(tmp_path)
    write_safetensors(tmp_path / "model.safetensors", *(f"encoder.layer.{n}.output.dense.weight" for n in range(3)))
    assert "its weights hold layer 2, config.json has 2 layers" in only(tmp_path)
    write(tmp_path / "static", ["StaticEmbedding"])
    write_safetensors(tmp_path / "static" / "model.safetensors", "embedding.weight")
    assert problems(tmp_path / "static") == []
    write_safetensors(tmp_path / "static" / "model.safetensors", "embedding.weight", "scale")
    assert "holds embedding.weight, scale, which is no StaticEmbedding" in only(tmp_path / "static")


def test_routes(tmp_path: Path) -> None:
    """As sentence-transformers' Router chooses: a mapping, the task, the text's own, then the default."""
    both = {"query": ["q"], "document": ["d"]}
    assert route(both, {}, None) == "query"
    assert route(both, {"default_route": "document"}, None) == "document"
    assert route(both, {"allow_empty_key": False}, None) is None
    assert route(both, {}, "other") is None
    assert route(both, {"default_route": "document"}, "query") == "query"
    assert route(both | {"text": ["t"]}, {}, "other") == "text"
    assert route(both, {"route_mappings": {"(None, 'text')": "document"}}, None) == "document"
    assert route(both, {"route_mappings": {("query", None): "document"}}, "query") == "document"

    types = {name: f"sentence_transformers.models.{kind}" for name, kind in (("q", "Transformer"), ("d", "BoW"))}
    router = {"types": types, "structure": both, "parameters": {"allow_empty_key": False}}
    write(tmp_path, ["Router"], router_config=router)
    assert "by one of its routes (query, document); set encoder.task to one" in only(tmp_path)
    assert "modules.json has no Pooling" in only(tmp_path, task="query")
    assert problems(tmp_path, task="document") == []


@pytest.mark.parametrize("text", ['{"a": ', "[" * 100_000], ids=["cut", "deep"])
def test_modules_that_cannot_be_read_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "modules.json").write_text(text)
    with pytest.raises(UserError, match=r"modules\.json: not valid JSON"):
        problems(tmp_path)
