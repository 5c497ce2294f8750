"""Whether a model directory holds one whole set of plain weights. No tensor is read.

The dry run and the import call the same functions, so both refuse the same directories.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.sources.weight_headers import (
    INDEX,
    SINGLE,
    indexed_files,
    model_headers,
    read_header,
    tensor_headers,
    weight_problems,
)
from nemo_sspo.errors import UserError

_OTHER_FORMATS = ("*.safetensors", "pytorch_model*.bin", "consolidated*.pth")
"""Files that some loader takes for the model's weights."""
_QUANTIZATION_KEYS = ("quantization_config", "compression_config")
_QUANTIZATION_FILES = ("hf_quant_config.json", "quantize_config.json", "quant_config.json", "quantization_config.json")
"""Keys and files by which ModelOpt, GPTQ and AWQ mark quantized weights."""
_PLAIN = ("F64", "F32", "F16", "BF16")
_GIVE_PLAIN = "give the bf16, fp16 or fp32 model it was made from"


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a model directory.

    Raises:
        UserError: there are none, one is missing or cut short, or it is unclear which are meant.
    """
    for problem in incomplete_weights(str(directory), directory):
        raise UserError(problem)
    return [directory / name for name in _names(directory)]


def weight_bytes(directory: Path) -> int:
    """Size of a model's weights on disk; 0 where none lie there, as of a model by its hub id."""
    return sum(path.stat().st_size for path in directory.glob("*.safetensors") if path.is_file())


def policy_weight_problems(what: str, directory: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a policy's weights: incomplete, of two kinds, quantized, or another model's.

    Args:
        what: how the message names the directory.
        config: the content of its config.json.
    """
    incomplete = list(incomplete_weights(what, directory))
    yield from incomplete
    yield from _quantized(what, directory, config)
    if incomplete:
        return
    files = [directory / name for name in _names(directory)]
    yield from _beside(what, directory, files)
    holders = Counter(name for file in files for name in tensor_headers(file))
    if repeated := next((name for name, count in holders.items() if count > 1), None):
        yield f"{what}: the tensor {repeated} is in more than one file, and which of them is meant is unclear"
    tensors = model_headers(files)
    plain = {name: tensor for name, tensor in tensors.items() if tensor.dtype in _PLAIN}
    if other := next((name for name in tensors if name not in plain), None):
        yield f"{what}: its weights are quantized ({other} is {tensors[other].dtype}); {_GIVE_PLAIN}"
    yield from (f"{what}: {problem}" for problem in weight_problems(plain, config, "config.json"))


def incomplete_weights(what: str, directory: Path) -> Iterator[str]:
    """What is wrong with the safetensors files of a model directory; `what` names it."""
    names = _names(directory)
    if not names:
        pickled = next(iter(sorted(path.name for path in directory.glob("*.bin"))), None)
        hint = f" ({pickled} is a pickle and is never loaded: convert it to safetensors)" if pickled else ""
        yield f"{what}: no {SINGLE} and no {INDEX}{hint}"
    for name in names:
        path = directory / name
        if not path.is_file():
            yield f"{what}: {name} is named in {INDEX} but is missing"
        else:
            yield from _damage(path)


def _names(directory: Path) -> list[str]:
    index, single = directory / INDEX, directory / SINGLE
    if not index.is_file():
        return [SINGLE] if single.is_file() else []
    names = indexed_files(index)
    if single.is_file() and SINGLE not in names:
        raise UserError(
            f"{directory}: {INDEX} names other files than the {SINGLE} beside it, and loaders differ in which they "
            f"take; remove the index if {SINGLE} is meant, else {SINGLE}"
        )
    return names


def _beside(what: str, directory: Path, files: list[Path]) -> Iterator[str]:
    """Another set of weights: vLLM reads a ``consolidated.safetensors`` before the index, transformers never does."""
    others = sorted({path for pattern in _OTHER_FORMATS for path in directory.glob(pattern)} - set(files))
    if others:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        yield (
            f"{what}: {others[0].name}{more} lies beside {files[0].name}, and loaders differ in which they take; "
            "remove what is not meant"
        )


def _quantized(what: str, directory: Path, config: Mapping[str, Any]) -> Iterator[str]:
    sign = next((f"{key} in config.json" for key in _QUANTIZATION_KEYS if config.get(key)), None)
    if sign := sign or next((name for name in _QUANTIZATION_FILES if (directory / name).is_file()), None):
        yield f"{what}: a quantized policy is not trained ({sign}); {_GIVE_PLAIN}"


def _damage(path: Path) -> Iterator[str]:
    """Why a file is not a whole safetensors file."""
    try:
        _, whole = read_header(path)
    except UserError as error:
        yield str(error)
        return
    if (size := path.stat().st_size) < whole:
        yield f"{path}: cut short: {size} bytes of {whole}; fetch it again"
