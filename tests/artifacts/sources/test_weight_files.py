"""A policy's directory holds one whole set of plain weights, or the dry run and the import refuse it alike."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from nemo_sspo.artifacts.sources.weight_files import policy_weight_problems, weight_files
from nemo_sspo.artifacts.sources.weight_headers import INDEX, SINGLE, tensor_headers
from nemo_sspo.errors import UserError

CONFIG = {"model_type": "llama", "num_hidden_layers": 1}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
SIZES = {"F32": 4, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1, "I8": 1, "U8": 1, "I32": 4}


def weights(path: Path, dtype: str = "BF16", *names: str) -> None:
    size = 4 * SIZES[dtype]
    header = {
        name: {"dtype": dtype, "shape": [2, 2], "data_offsets": [size * place, size * (place + 1)]}
        for place, name in enumerate(names or ("model.layers.0.mlp.up_proj.weight",))
    }
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(size * len(header)))


def index(directory: Path, *files: str) -> None:
    (directory / INDEX).write_text(
        json.dumps({"weight_map": {f"w{number}": name for number, name in enumerate(files)}})
    )


def sharded(directory: Path) -> None:
    index(directory, *SHARDS)
    for number, name in enumerate(SHARDS):
        weights(directory / name, "BF16", f"w{number}")


def single(directory: Path) -> None:
    weights(directory / SINGLE)


def problems(directory: Path, **config: object) -> list[str]:
    try:
        return list(policy_weight_problems("policy=DIR", directory, CONFIG | config))
    except UserError as error:
        return [str(error)]


@pytest.mark.parametrize("layout", [single, sharded])
def test_one_set_of_plain_weights_is_fine(tmp_path: Path, layout: Callable[[Path], None]) -> None:
    layout(tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"")  # of transformers' Trainer
    assert problems(tmp_path) == []
    assert [path.name for path in weight_files(tmp_path)] == ([SINGLE] if layout is single else list(SHARDS))


def test_an_index_may_name_the_single_file(tmp_path: Path) -> None:
    single(tmp_path)
    index(tmp_path, SINGLE)
    assert problems(tmp_path) == []


@pytest.mark.parametrize("missing", [False, True])
def test_an_index_beside_a_single_file_is_refused(tmp_path: Path, missing: bool) -> None:
    """Also where its shards are gone, which removing the index mends."""
    sharded(tmp_path)
    single(tmp_path)
    if missing:
        (tmp_path / SHARDS[1]).unlink()
    (problem,) = problems(tmp_path)
    assert f"{INDEX} names other files than the {SINGLE} beside it" in problem
    assert f"remove the index if {SINGLE} is meant" in problem
    with pytest.raises(UserError, match="names other files"):
        weight_files(tmp_path)


@pytest.mark.parametrize(
    "other",
    [
        "pytorch_model.bin",
        "pytorch_model-00001-of-00002.bin",
        "consolidated.safetensors",
        "consolidated.00.pth",
        "adapter_model.safetensors",
        "model.fp16.safetensors",
        "model-00001-of-00003.safetensors",
    ],
)
@pytest.mark.parametrize("layout", [single, sharded])
def test_a_second_set_of_weights_is_refused(tmp_path: Path, layout: Callable[[Path], None], other: str) -> None:
    layout(tmp_path)
    weights(tmp_path / other)
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"policy=DIR: {other} lies beside model")


@pytest.mark.parametrize("method", ["fp8", "bitsandbytes", "gptq", "awq", "compressed-tensors", "mxfp4"])
def test_a_quantization_that_config_json_tells_of_is_refused(tmp_path: Path, method: str) -> None:
    """Whatever type the tensors have: without their scales fp8 weights are 2352 times too large."""
    single(tmp_path)
    (problem,) = problems(tmp_path, quantization_config={"quant_method": method})
    assert problem == (
        "policy=DIR: a quantized policy is not trained (quantization_config in config.json); give the bf16, fp16 or "
        "fp32 model it was made from"
    )
    assert problems(tmp_path, quantization_config=None) == []


@pytest.mark.parametrize("name", ["hf_quant_config.json", "quantize_config.json", "quant_config.json"])
def test_a_quantization_that_another_file_tells_of_is_refused(tmp_path: Path, name: str) -> None:
    single(tmp_path)
    (tmp_path / name).write_text("{}")
    assert f"({name})" in problems(tmp_path)[0]


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2", "I8", "U8", "I32"])
def test_quantized_tensors_are_refused_where_nothing_tells_of_them(tmp_path: Path, dtype: str) -> None:
    weights(tmp_path / SINGLE, dtype, "model.layers.0.mlp.up_proj.qweight")
    (problem,) = problems(tmp_path)
    assert problem.startswith(f"policy=DIR: its weights are quantized (model.layers.0.mlp.up_proj.qweight is {dtype})")


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path)
    weights(tmp_path / SHARDS[1], "BF16", "w0", "w1")
    assert "the tensor w0 is in more than one file" in problems(tmp_path)[0]


def test_layers_of_another_model_are_refused(tmp_path: Path) -> None:
    weights(tmp_path / SINGLE, "BF16", *(f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(3)))
    assert "its weights hold layer 2, config.json has 1 layers" in problems(tmp_path)[0]


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"weight_map": 3}', "[" * 9999])
def test_an_index_that_is_none_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / INDEX).write_text(text)
    assert problems(tmp_path) == [f"{tmp_path / INDEX}: not an index of weights; fetch it again"]


def test_a_header_that_is_nested_too_deeply_is_named(tmp_path: Path) -> None:
    header = b"[" * 100_000 + b"]" * 100_000
    file = tmp_path / SINGLE
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(UserError, match="not a safetensors file"):
        tensor_headers(file)
    assert any("not a safetensors file" in problem for problem in problems(tmp_path))


@pytest.mark.parametrize(
    "tensor",
    [
        {"dtype": ["F32"], "shape": [1], "data_offsets": [0, 4]},
        {"dtype": 3, "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": "12", "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1] * 99, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [0, float("inf")]},
        {"dtype": "F32", "shape": [1], "data_offsets": ["0", "4"]},
        {"dtype": "F32", "shape": [2**63], "data_offsets": [0, 4]},
        [1, 2],
    ],
)
def test_a_header_of_other_values_than_a_tensor_has(tmp_path: Path, tensor: object) -> None:
    text = json.dumps({"a": tensor}).encode()
    (tmp_path / SINGLE).write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(UserError, match=r"model\.safetensors: not a safetensors file"):
        tensor_headers(tmp_path / SINGLE)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    """Linux opens a process's own memory and refuses to read its first page."""
    (tmp_path / "model.safetensors").symlink_to("/proc/self/mem")
    with pytest.raises(UserError, match=r"model\.safetensors: cannot be read"):
        weight_files(tmp_path)
