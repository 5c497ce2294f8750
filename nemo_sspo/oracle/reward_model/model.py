"""A scalar reward model as the oracle: l(a, b) = r(a) - r(b), so P(a beats b) = sigma(r(a) - r(b)) (Bradley-Terry).

Legend: R rows, U unique (conversation, response) texts, S padded length. K responses cost K forward passes, not
K (K - 1), and the order of presentation has no influence by construction: l(a, b) = -l(b, a) to the last bit.

What the model reads: the conversation's messages and the response as the assistant's, under the tokenizer's chat
template; a tokenizer without one encodes (prompt text, response) as a pair. A conversation over the limit loses its
beginning (the last token carries the reward, the response matters most); a pair is cut where it is longest.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray

from nemo_sspo.artifacts.sources.models import CODE, MODEL_FILES, local_model
from nemo_sspo.config.oracles import RewardModelOracle
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.batching import pack
from nemo_sspo.oracle.deduplicated import Deduplicated
from nemo_sspo.oracle.protocol import OnProgress, OracleResources, Preferences, Row, Turn, silent
from nemo_sspo.oracle.reward_model.weights import load_classifier
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
        self._model = load_classifier(directory, settings, self._device)
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


def _limit(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int:
    """Longest text that both the tokenizer and the positions of the model allow."""
    positions = getattr(model.config, "max_position_embeddings", None) or _NO_LIMIT
    return min(int(tokenizer.model_max_length), int(positions), _NO_LIMIT)


def _pad_token(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """The padding token by which the model finds the end of a row."""
    if model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_token_id
    return model.config.pad_token_id
