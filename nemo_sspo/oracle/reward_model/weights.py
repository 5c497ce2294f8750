"""A reward model's weights in the precision of inference: all in one type but the layer that makes the reward."""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from nemo_sspo.artifacts.json_files import read_json_object
from nemo_sspo.artifacts.sources.weight_files import weight_files
from nemo_sspo.artifacts.sources.weight_headers import tensor_headers
from nemo_sspo.config.oracles import RewardModelOracle
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.batching import torch_dtype
from nemo_sspo.oracle.reward_model.files import reward_model_problems

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def load_classifier(directory: Path, settings: RewardModelOracle, device: torch.device) -> "PreTrainedModel":
    """The model of `directory` on `device`, in the precision of `settings`.

    Raises:
        UserError: it cannot be loaded, is no classifier with one output, or its weights do not fit its config.json.
    """
    dtype = torch_dtype(settings.precision, device)
    model = _load_model(directory, settings, dtype)
    if (exact := _stored_heads(directory, model)) is None:  # under other names: load them exactly, then round the rest
        model = _load_model(directory, settings, torch.float32)
    place_in_precision(model, dtype, device, exact)
    return model


def _load_model(directory: Path, settings: RewardModelOracle, dtype: torch.dtype) -> "PreTrainedModel":
    """Weights in `dtype` from safetensors; missing and surplus tensors are refused.

    Not in float32 first: of a 27B that would be 108 GB of host memory.
    """
    from transformers import AutoModelForSequenceClassification

    try:
        for problem in reward_model_problems(directory, read_json_object(directory / "config.json")):
            raise UserError(problem)
        model, info = AutoModelForSequenceClassification.from_pretrained(
            directory,
            use_safetensors=True,
            dtype=dtype,
            trust_remote_code=settings.trust_remote_code,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise UserError(f"oracle.path={directory}: not a reward model that can be loaded ({_reason(error)})") from None
    if model.config.num_labels != 1:
        raise UserError(
            f"oracle.path={directory}: a classifier of {model.config.num_labels} classes; a reward model has one output"
        )
    if missing := sorted(info["missing_keys"]):  # transformers would give them random values
        raise UserError(
            f"oracle.path={directory}: its weights lack {', '.join(missing[:3])}; this is a base model or incomplete"
        )
    if unread := sorted(info["unexpected_keys"]):
        raise UserError(
            f"oracle.path={directory}: its weights hold {', '.join(unread[:3])}, for which {type(model).__name__} of "
            "its config.json has no place; one of the two is another model's"
        )
    return model


def _heads(model: nn.Module) -> dict[str, nn.Linear]:
    """The layers that make the reward, by their names."""
    layers = model.named_modules()
    return {name: layer for name, layer in layers if isinstance(layer, nn.Linear) and layer.out_features == 1}


def _stored_heads(directory: Path, model: nn.Module) -> dict[str, dict[str, Tensor]] | None:
    """The parameters of `_heads` as the files have them, in float32; None where they have other names there."""
    from safetensors import safe_open

    places = {name: file for file in weight_files(directory) for name in tensor_headers(file)}
    found: dict[str, dict[str, Tensor]] = {}
    for layer, head in _heads(model).items():
        found[layer] = {}
        for parameter in head.state_dict():
            if (file := places.get(f"{layer}.{parameter}")) is None:
                return None
            with safe_open(file, "pt") as tensors:
                found[layer][parameter] = tensors.get_tensor(f"{layer}.{parameter}").float()
    return found


def place_in_precision(
    model: nn.Module,
    dtype: torch.dtype,
    device: torch.device,
    exact: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """Move a model to a device for inference in `dtype`, all but the layer that makes the reward.

    That one stays in float32: bfloat16 would round a reward of 8 to steps of 1/16. `exact`: its parameters, where the
    model has been loaded in `dtype` already.
    """
    heads = _heads(model)
    kept = exact or {name: deepcopy(layer.state_dict()) for name, layer in heads.items()}
    model.to(device=device, dtype=dtype).eval()

    def to_fp32(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(tensor.float() for tensor in inputs)

    for name, layer in heads.items():
        layer.float().load_state_dict(kept[name])
        layer.register_forward_pre_hook(to_fp32)


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
