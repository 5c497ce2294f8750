"""A scalar reward model as the oracle: l(a, b) = r(a) - r(b), so P(a beats b) = sigma(r(a) - r(b)) (Bradley-Terry).

Legend: R rows, U unique (conversation, response) texts, S padded length. K responses cost K forward passes, not
K (K - 1), and the order of presentation has no influence by construction: l(a, b) = -l(b, a) to the last bit.

What the model reads: the conversation's messages and the response as the assistant's, under the tokenizer's chat
template; a tokenizer without one encodes (prompt text, response) as a pair. A conversation over the limit loses its
beginning (the last token carries the reward, the response matters most); a pair is cut where it is longest.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nemo_sspo.artifacts.json_files import read_json_object
from nemo_sspo.artifacts.sources.models import CODE, MODEL_FILES, local_model
from nemo_sspo.artifacts.sources.weight_files import weight_files
from nemo_sspo.artifacts.sources.weight_headers import tensor_headers
from nemo_sspo.config.oracles import RewardModelOracle
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.batching import pack, torch_dtype
from nemo_sspo.oracle.deduplicated import Deduplicated
from nemo_sspo.oracle.protocol import OnProgress, OracleResources, Preferences, Row, Turn, silent
from nemo_sspo.oracle.reward_model_files import reward_model_problems
from nemo_sspo.tokens.control import ControlTokens, special_tokens
from nemo_sspo.tokens.library import load_tokenizer
from nemo_sspo.tokens.policy_files import row_problems
from nemo_sspo.tokens.vocabulary import read_vocabulary

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_NO_LIMIT = 10**6
"""Tokenizers that know no limit state one beyond this."""


class _Text(NamedTuple):
    """What one reward is given to."""

    prompt: str
    conversation: tuple[Turn, ...]
    response: str


class _Encoded(NamedTuple):
    columns: dict[str, list[int]]
    truncated: bool

    @property
    def length(self) -> int:
        return len(self.columns["input_ids"])


class RewardModel:
    """A sequence-classification reward model behind the `PreferenceOracle` protocol."""

    def __init__(
        self, settings: RewardModelOracle, device: str | None = None, *, resources: OracleResources | None = None
    ) -> None:
        """Load a model; `device` is the GPU where there is one."""
        del resources
        files = (*MODEL_FILES, CODE) if settings.trust_remote_code else MODEL_FILES
        directory = local_model(settings.path, "oracle.path", files)
        self._settings = settings
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if (vocabulary := read_vocabulary(directory)) is not None:
            for problem in row_problems(directory, "oracle.path", vocabulary):
                raise UserError(problem)
        self._tokenizer = load_tokenizer(
            directory, f"oracle.path={directory}", trust_remote_code=settings.trust_remote_code, framed=True
        )
        self._control = ControlTokens(special_tokens(self._tokenizer))
        dtype = torch_dtype(settings.precision, self._device)
        self._model = _load_model(directory, settings, dtype)
        if (exact := _stored_heads(directory, self._model)) is None:  # under other names: as it is, then rounded
            self._model = _load_model(directory, settings, torch.float32)
        place_in_precision(self._model, dtype, self._device, exact)
        self._limit = settings.max_tokens or _limit(self._model, self._tokenizer)
        self._pad = _pad_token(self._model, self._tokenizer)

    def compare(self, rows: Sequence[Row], on_progress: OnProgress = silent) -> Preferences:
        """See `PreferenceOracle.compare`."""
        firsts = [self._text(row, row.first) for row in rows]
        seconds = [self._text(row, row.second) for row in rows]
        unique = Deduplicated([*firsts, *seconds])
        encoded = [self._encode(text) for text in unique.items]
        rewards_U = np.empty(len(unique), dtype=np.float32)
        lengths_U = np.fromiter((text.length for text in encoded), dtype=np.int64, count=len(encoded))
        done = 0
        # Without a padding token the model cannot find the end of a padded row: one row at a time.
        for batch in pack(lengths_U, self._settings.batch_tokens if self._pad is not None else 1):
            rewards_U[batch] = self._forward([encoded[index] for index in batch])
            done += len(batch)
            on_progress(done * len(rows) // len(unique))
        truncated_U = np.fromiter((text.truncated for text in encoded), dtype=np.bool_, count=len(encoded))
        first_R, second_R = unique.places(firsts), unique.places(seconds)
        logits_R = rewards_U[first_R] - rewards_U[second_R]
        return Preferences(logits_R, truncated_U[first_R] | truncated_U[second_R], len(set(rows)))

    def _text(self, row: Row, response: str) -> _Text:
        """What is rewarded. A control token that a text spells is read as a space: a policy could learn to write it."""
        blanked = self._control.blanked
        conversation = tuple(Turn(turn.role, blanked(turn.content)) for turn in row.conversation)
        return _Text(blanked(row.prompt), conversation, blanked(response))

    def _encode(self, text: _Text) -> _Encoded:
        if self._tokenizer.chat_template is None:
            return self._encode_pair(text)
        messages = [turn._asdict() for turn in text.conversation]
        messages.append({"role": "assistant", "content": text.response})
        ids = cast("list[int]", _apply_template(self._tokenizer, messages, text.prompt))
        if len(ids) <= self._limit:
            return _Encoded({"input_ids": ids}, False)
        kept = 1 if ids[0] in self._tokenizer.all_special_ids else 0  # the token that begins every text
        return _Encoded({"input_ids": ids[:kept] + ids[kept - self._limit :]}, True)

    def _encode_pair(self, text: _Text) -> _Encoded:
        whole = self._tokenizer(text.prompt, text.response, verbose=False)
        if len(cast("list[int]", whole["input_ids"])) <= self._limit:
            return _Encoded(_columns(whole), False)
        cut = self._tokenizer(text.prompt, text.response, truncation="longest_first", max_length=self._limit)
        return _Encoded(_columns(cut), True)

    @torch.inference_mode()
    def _forward(self, rows: Sequence[_Encoded]) -> NDArray[np.float32]:
        """Rewards [R]."""
        shape = len(rows), max(row.length for row in rows)
        padded = {name: np.zeros(shape, dtype=np.int64) for name in rows[0].columns}
        padded["input_ids"][:] = self._pad or 0
        mask_RS = np.zeros(shape, dtype=np.int64)
        for index, row in enumerate(rows):
            mask_RS[index, : row.length] = 1
            for name, values in row.columns.items():
                padded[name][index, : row.length] = values
        tensors = {name: torch.from_numpy(values).to(self._device) for name, values in padded.items()}
        mask = torch.from_numpy(mask_RS).to(self._device)
        return self._model(**tensors, attention_mask=mask).logits[:, 0].float().cpu().numpy()


def _columns(encoding: Any) -> dict[str, list[int]]:
    """Token ids, and token types where the model has them; the mask is made with the padding."""
    return {name: values for name, values in encoding.items() if name != "attention_mask"}


def _apply_template(tokenizer: "PreTrainedTokenizerBase", messages: list[dict[str, str]], prompt: str) -> object:
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, return_dict=False)
    except TemplateError as error:
        raise UserError(
            f"oracle: the reward model's chat template refuses the prompt {prompt[:60]!r} ({error})"
        ) from None


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


def _limit(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Longest text that both the tokenizer and the positions of the model allow."""
    positions = getattr(model.config, "max_position_embeddings", None) or _NO_LIMIT
    return min(int(tokenizer.model_max_length), int(positions), _NO_LIMIT)


def _pad_token(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The padding token by which the model finds the end of a row."""
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.config.pad_token_id


def _reason(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
