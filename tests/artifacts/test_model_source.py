"""What is fetched of a hub repository: what is read here, and not the same weights once more."""

from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

import huggingface_hub

from nemo_sspo.artifacts.model_source import OLD_WEIGHTS, local_model
from nemo_sspo.errors import UserError

LLAMA = {
    "config.json": "text",
    "generation_config.json": "text",
    "tokenizer.json": "text",
    "tokenizer_config.json": "text",
    "chat_template.jinja": "text",
    "model.safetensors.index.json": "text",
    "model-00001-of-00002.safetensors": "weights",
    "model-00002-of-00002.safetensors": "weights",
    "pytorch_model.bin": "pickle",
    "original/consolidated.00.pth": "copy",
    "original/params.json": "copy",
    "consolidated.safetensors": "copy",  # Mistral's
    "onnx/model.onnx": "copy",
    "openvino/openvino_model.bin": "copy",
    "1_Pooling/config.json": "text",  # of a sentence encoder
    "README.md": "other",
}


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Names of the files that a download would have fetched, by the hub's own rule."""
    names: list[str] = []

    def download(repository: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        from huggingface_hub.utils import filter_repo_objects

        names.extend(filter_repo_objects(LLAMA, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return names


@pytest.mark.parametrize(
    ("weights", "kinds"),
    [({}, {"text", "weights"}), ({"weights": ()}, {"text"}), ({"weights": OLD_WEIGHTS}, {"text", "weights", "pickle"})],
)
def test_a_hub_repository_is_fetched_as_far_as_it_is_read(fetched: list[str], weights: dict, kinds: set[str]) -> None:
    local_model("meta-llama/Meta-Llama-3-8B-Instruct", "policy", **weights)
    assert set(fetched) == {name for name, kind in LLAMA.items() if kind in kinds}


def test_a_directory_is_taken_as_it_is(fetched: list[str], tmp_path: Path) -> None:
    assert local_model(str(tmp_path), "policy") == tmp_path
    assert fetched == []
    with pytest.raises(UserError, match=r"policy=.*/absent: no such directory, and not a hub id"):
        local_model(str(tmp_path / "absent"), "policy")
