"""What is downloaded of a hub repository: what our loaders read, by the hub client's own filter of names."""

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from nemo_sspo.artifacts.sources.models import CODE, MODEL_FILES, SIDE_FILES, local_model
from nemo_sspo.encoder import files
from nemo_sspo.errors import UserError
from nemo_sspo.rollout.tokenizer import context_tokens, load_policy_tokenizer

TOKENIZER = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"}
SHARDS = {"model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"}
LLAMA = {*TOKENIZER, *SHARDS, "README.md", "original/consolidated.00.pth", "original/params.json"}
MISTRAL = {*TOKENIZER, *SHARDS, "consolidated.safetensors", "pytorch_model-00001-of-00001.bin", "chat_template.jinja"}
ENCODER = {"modules.json", "config.json", "vocab.txt", "1_Pooling/config.json", "2_Dense/pytorch_model.bin"}
COPIES = {"onnx/model.onnx", "openvino/openvino_model.bin", "tf_model.h5", "flax_model.msgpack", "custom_st.py"}

Fetch = Callable[..., set[str]]


@pytest.fixture
def fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fetch:
    """The files that a snapshot of a repository then has."""

    def fetch(repository: set[str], *arguments: object, **options: bool) -> set[str]:
        def snapshot_download(name: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
            names = filter_repo_objects(
                sorted(repository), allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
            )
            for path in (tmp_path / name / each for each in names):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            return str(tmp_path / name)

        monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
        root = local_model("owner/name", "policy", *arguments, **options)
        return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}

    return fetch


def test_a_model_comes_once(fetched: Fetch) -> None:
    assert fetched(LLAMA) == TOKENIZER | SHARDS


def test_neither_for_other_programs_nor_as_a_pickle(fetched: Fetch) -> None:
    assert fetched(MISTRAL, pickles=True) == TOKENIZER | SHARDS | {"chat_template.jinja"}


def test_a_tokenizer_comes_without_weights(fetched: Fetch) -> None:
    assert fetched(LLAMA, SIDE_FILES) == TOKENIZER


@pytest.mark.parametrize("reads", [load_policy_tokenizer, context_tokens])
def test_prompts_are_prepared_without_the_weights(
    reads: Callable[[str], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def snapshot_download(name: str, *, allow_patterns: list[str], **_: object) -> str:
        asked.extend(allow_patterns)
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(UserError, match="not found on the hub"):
        reads("owner/name")
    assert asked == list(SIDE_FILES)


def test_a_pickle_comes_where_there_is_nothing_else_and_its_loader_takes_it(fetched: Fetch) -> None:
    assert fetched({"config.json", "pytorch_model.bin"}) == {"config.json"}
    assert fetched({"config.json", "pytorch_model.bin"}, pickles=True) == {"config.json", "pytorch_model.bin"}


def test_an_encoder_has_its_layers_and_code_by_consent_only(fetched: Fetch, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(files, "local_model", lambda path, key, names, *, pickles: asked.append((names, pickles)))
    for code in (False, True):
        files.model_directory("owner/encoder", code=code)
    (plain, pickles), (with_code, _) = asked
    repository = {*ENCODER, *COPIES, "model.safetensors"}
    assert fetched(repository, plain, pickles=pickles) == {*ENCODER, "model.safetensors"}
    assert fetched(repository, with_code, pickles=pickles) == {*ENCODER, "model.safetensors", "custom_st.py"}
    assert CODE not in MODEL_FILES
