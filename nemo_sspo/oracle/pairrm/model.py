"""PairRM (Jiang et al., 2023, LLM-Blender): a DeBERTa-v2 that reads a prompt and two responses and prefers one.

Legend: R rows of a batch, S padded length, H hidden size. Where llm-blender runs K (K - 1) forward passes per prompt,
this scorer pools the rows it is given, computes equal ones once, and packs them by length, in windows, so that its
memory does not grow with their number.
"""

from collections.abc import Sequence
from pickle import UnpicklingError
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from nemo_sspo.artifacts.sources.models import SIDE_FILES, local_model
from nemo_sspo.config.oracles import PairRMOracle
from nemo_sspo.errors import UserError
from nemo_sspo.oracle.batching import pack, token_budget, torch_dtype, windows
from nemo_sspo.oracle.deduplicated import Deduplicated
from nemo_sspo.oracle.pairrm.checkpoint import (
    HEAD_OUTPUT,
    MARKERS,
    POSITION_IDS,
    SAFETENSORS,
    WORD_EMBEDDINGS,
    PairRMCheckpoint,
    inspect_pairrm,
)
from nemo_sspo.oracle.pairrm.deberta_attention import WantedStates
from nemo_sspo.oracle.pairrm.rows import EncodedRow, MarkerIds, RowEncoder
from nemo_sspo.oracle.pairrm.tokens import refuse_other_markers, refuse_without_row
from nemo_sspo.oracle.protocol import OnProgress, OracleResources, Preferences, Row, silent
from nemo_sspo.tokens.library import load_tokenizer

if TYPE_CHECKING:
    from transformers import DebertaV2Model, PreTrainedTokenizerBase

WINDOW_ROWS = 4096
"""Rows that are pooled at once: enough for batches of one length, few enough to take no memory to speak of."""


class PairRMModel(nn.Module):
    """Backbone and head, with the published checkpoints' parameter names."""

    def __init__(self, backbone: nn.Module, hidden_size: int, n_tasks: int) -> None:
        super().__init__()
        self.pretrained_model = backbone
        self.on_cpu: WantedStates | None = None
        # Positions 0 and 3 are the dropouts of training; keeping them keeps the published names 1 and 4.
        self.head_layer = nn.Sequential(
            nn.Identity(),
            nn.Linear(2 * hidden_size, hidden_size),
            nn.Tanh(),
            nn.Identity(),
            nn.Linear(hidden_size, n_tasks),
        )

    def forward(self, token_ids_RS: Tensor, mask_RS: Tensor, markers_R3: Tensor) -> Tensor:
        """Raw logits [R]: the mean over tasks of head(source, first) - head(source, second), in fp32."""
        states_R3H = self.states(token_ids_RS, mask_RS, markers_R3)
        source_RH, first_RH, second_RH = states_R3H.float().unbind(dim=1)
        left = self.head_layer(torch.cat([source_RH, first_RH], dim=-1))
        right = self.head_layer(torch.cat([source_RH, second_RH], dim=-1))
        return (left - right).mean(dim=-1)

    def states(self, token_ids_RS: Tensor, mask_RS: Tensor, markers_R3: Tensor) -> Tensor:
        """Last hidden states [R, 3, H] at the markers."""
        if self.on_cpu is not None:
            return self.on_cpu(token_ids_RS, mask_RS, markers_R3)
        h_RSH = self.pretrained_model(input_ids=token_ids_RS, attention_mask=mask_RS).last_hidden_state
        return h_RSH[torch.arange(len(h_RSH), device=h_RSH.device)[:, None], markers_R3]

    def compute_on_cpu(self) -> None:
        """From now on compute only the markers' states, in little memory: equal numbers, optimized for CPUs."""
        self.on_cpu = WantedStates(cast("DebertaV2Model", self.pretrained_model))


class PairRM:
    """PairRM behind the `PreferenceOracle` protocol."""

    def __init__(
        self, settings: PairRMOracle, device: str | None = None, *, resources: OracleResources | None = None
    ) -> None:
        """Load a checkpoint; `device` is the GPU where there is one."""
        del resources
        checkpoint = inspect_pairrm(settings.path)
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        tokenizer, ids = _load_tokenizer(checkpoint)
        self._pad = tokenizer.pad_token_id
        source_max, candidate_max = checkpoint.limits
        self._encoder = RowEncoder(
            tokenizer,
            ids,
            source_max=settings.source_max_tokens or source_max,
            candidate_max=settings.candidate_max_tokens or candidate_max,
        )
        model = _load_model(checkpoint)
        word_embeddings = cast("DebertaV2Model", model.pretrained_model).get_input_embeddings()
        rows, highest = cast(nn.Embedding, word_embeddings).num_embeddings, max(tokenizer.get_vocab().values())
        refuse_without_row(checkpoint, highest, rows)
        model.pretrained_model.to(torch_dtype(settings.precision, self._device))
        self._model = model.to(self._device).eval()
        if self._device.type == "cpu":
            self._model.compute_on_cpu()
        self._batch_tokens = token_budget(settings.batch_tokens, self._device)

    def compare(self, rows: Sequence[Row], on_progress: OnProgress = silent) -> Preferences:
        """See `PreferenceOracle.compare`."""
        logits_R = np.empty(len(rows), dtype=np.float32)
        truncated_R = np.empty(len(rows), dtype=np.bool_)
        unique_rows = 0
        for window in windows(rows, WINDOW_ROWS):
            start, count = window.start, window.stop - window.start
            unique = Deduplicated(rows[window])
            encoded = list(self._encoder.encode(unique.items))
            logits_U = np.empty(len(unique), dtype=np.float32)
            done = 0
            for batch in pack(np.array([row.length for row in encoded]), self._batch_tokens):
                logits_U[batch] = self._forward([encoded[index] for index in batch])
                done += len(batch)
                on_progress(start + done * count // len(unique))
            places = unique.places(rows[window])
            logits_R[window] = logits_U[places]
            truncated_R[window] = np.array([row.truncated for row in encoded])[places]
            unique_rows += len(unique)
        return Preferences(logits_R, truncated_R, unique_rows)

    @torch.inference_mode()
    def _forward(self, rows: Sequence[EncodedRow]) -> NDArray[np.float32]:
        tensors = (torch.from_numpy(array).to(self._device) for array in self._encoder.batch(rows, self._pad))
        return self._model(*tensors).cpu().numpy()


def _load_tokenizer(checkpoint: PairRMCheckpoint) -> tuple["PreTrainedTokenizerBase", MarkerIds]:
    backbone = local_model(checkpoint.backbone, "oracle.path", SIDE_FILES)
    tokenizer = load_tokenizer(backbone, f"oracle: {checkpoint.backbone}", framed=True)
    if checkpoint.layout == "llm-blender":
        tokenizer.add_tokens(list(MARKERS))
    found = {marker: cast(int, tokenizer.convert_tokens_to_ids(marker)) for marker in MARKERS}
    refuse_other_markers(checkpoint, found, cast("int | None", tokenizer.unk_token_id))
    return tokenizer, MarkerIds(*(found[marker] for marker in MARKERS))


def _load_model(checkpoint: PairRMCheckpoint) -> PairRMModel:
    from transformers import DebertaV2Config, DebertaV2Model

    state = _read_weights(checkpoint)
    config = DebertaV2Config.from_pretrained(checkpoint.backbone)
    config.vocab_size = len(state[WORD_EMBEDDINGS])  # the markers' rows were added to the backbone's
    with torch.device("meta"):  # no time spent on initial values that the checkpoint replaces
        model = PairRMModel(DebertaV2Model(config), config.hidden_size, len(state[HEAD_OUTPUT]))
    # The only buffer that is no part of a checkpoint.
    embeddings = cast(nn.Module, model.pretrained_model.embeddings)
    embeddings.position_ids = torch.arange(config.max_position_embeddings)[None]
    try:
        missing, unread = model.load_state_dict(state, strict=False, assign=True)
    except RuntimeError as error:
        reason = str(error).splitlines()[-1].strip()
        raise UserError(f"{checkpoint.weights}: shapes other than config.json's ({reason})") from None
    if missing:
        raise UserError(f"{checkpoint.weights}: lacks {', '.join(missing[:3])}; the checkpoint is incomplete")
    if unread:
        raise UserError(
            f"{checkpoint.weights}: holds {', '.join(unread[:3])}, of which {checkpoint.backbone}/config.json knows "
            "nothing; one of the two is another model's"
        )
    return model.float()


def _read_weights(checkpoint: PairRMCheckpoint) -> dict[str, Tensor]:
    if checkpoint.weights.name == SAFETENSORS:
        from safetensors.torch import load_file

        state = load_file(checkpoint.weights)
    else:
        state = _read_pickle(checkpoint)
    positions = state.pop(POSITION_IDS, None)  # stored by older versions of transformers; 0, 1, 2, ... in every model
    if positions is not None and not torch.equal(positions.flatten(), torch.arange(positions.numel())):
        raise UserError(f"{checkpoint.weights}: {POSITION_IDS} does not count 0, 1, 2, ...")
    if WORD_EMBEDDINGS not in state or HEAD_OUTPUT not in state:
        raise UserError(f"{checkpoint.weights}: not the weights of a PairRM: no {WORD_EMBEDDINGS} or {HEAD_OUTPUT}")
    return state


def _read_pickle(checkpoint: PairRMCheckpoint) -> dict[str, Tensor]:
    """Read a pytorch_model.bin without running anything it may carry."""
    try:
        return torch.load(checkpoint.weights, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError):
        raise UserError(
            f"{checkpoint.weights}: not a plain state dict (damaged, or it would run code); convert it to safetensors"
        ) from None
