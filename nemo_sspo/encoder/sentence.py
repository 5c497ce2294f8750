"""Any sentence-transformers model as the semantic encoder E (S-SPPO sec. 3.1; default all-MiniLM-L6-v2).

Legend: N texts, U unique texts, C chunks, D embedding size. A text beyond the model's window is cut into windows of
token ids; ``chunk_mean`` averages their unit vectors weighted by their lengths, ``truncate`` keeps the first.
"""

from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from nemo_sspo.artifacts.model_source import CODE, MODEL_FILES, local_model
from nemo_sspo.config.variants import SentenceEncoder as SentenceSettings
from nemo_sspo.encoder.protocol import Embeddings
from nemo_sspo.errors import UserError
from nemo_sspo.objective.similarity import unit_rows

PACKAGE_PREFIX = "package:"
_LAYERS_BEHIND = "*/pytorch_model.bin"
"""Weights of a folder like 2_Dense, which often are no safetensors where the transformer's are."""
_LONGEST_WINDOW = 8192
"""Window of a model that names none."""


class _Chunks(NamedTuple):
    token_ids_C: list[list[int]]
    owner_C: NDArray[np.intp]
    """Index of the text that a chunk belongs to."""
    length_C: NDArray[np.int64]


class Sentence:
    """A sentence-transformers model behind the `SentenceEncoder` protocol."""

    def __init__(self, settings: SentenceSettings, device: str | None = None) -> None:
        """Load the model; `device` overrides the setting."""
        from sentence_transformers import SentenceTransformer

        directory = model_directory(settings.path, code=settings.trust_remote_code)
        try:
            self._model = SentenceTransformer(
                str(directory),
                device=device or (None if settings.device == "auto" else settings.device),
                trust_remote_code=settings.trust_remote_code,
            ).eval()
        except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
            if "trust_remote_code" in str(error):
                raise UserError(
                    f"encoder.path={settings.path}: the model brings Python code of its own; read it, then give "
                    "encoder.trust_remote_code=true"
                ) from None
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(f"encoder.path={settings.path}: not a sentence-transformers model ({reason})") from None
        self._settings = settings
        self._prefix = settings.prefix if settings.prompt_name is None else self._prompt(settings.prompt_name)
        self._options = self._forward_options(settings.task)
        self._tokenizer = self._model.tokenizer
        self._window = self._model.max_seq_length or min(self._tokenizer.model_max_length, _LONGEST_WINDOW)

    def encode(self, texts: Sequence[str], on_progress: Callable[[int], None] = lambda done: None) -> Embeddings:
        """See `SentenceEncoder.encode`. Equal texts are encoded once."""
        unique = list(dict.fromkeys(texts))
        chunks = self._chunks(unique)
        windows_U = np.bincount(chunks.owner_C, minlength=len(unique))
        if self._settings.long_text == "truncate":
            chunks = _first_of_each(chunks)
        vectors_UD, done = np.zeros((len(unique), 0)), 0
        for batch in _batches(chunks.length_C, self._settings.batch_size):
            vectors_BD = self._forward([chunks.token_ids_C[index] for index in batch])
            if not done:
                vectors_UD = np.zeros((len(unique), vectors_BD.shape[-1]))
            np.add.at(vectors_UD, chunks.owner_C[batch], vectors_BD * chunks.length_C[batch, None])
            done += len(batch)
            on_progress(done * len(texts) // len(chunks.token_ids_C))
        place = {text: index for index, text in enumerate(unique)}
        places_N = np.fromiter((place[text] for text in texts), dtype=np.intp, count=len(texts))
        return Embeddings(unit_rows(vectors_UD).astype(np.float32)[places_N], windows_U[places_N] > 1, len(unique))

    def _prompt(self, name: str) -> str:
        prompts = self._model.prompts
        if name not in prompts:
            known = ", ".join(sorted(prompts)) or "none"
            raise UserError(f"encoder.prompt_name={name}: the model has no such prompt; it has {known}")
        return prompts[name]

    def _forward_options(self, task: str | None) -> dict[str, str]:
        if task is None:
            return {}
        if "task" not in self._model.get_model_kwargs():
            raise UserError(f"encoder.task={task}: the model knows no tasks; a prefix is set by encoder.prefix")
        return {"task": task}

    def _chunks(self, texts: list[str]) -> _Chunks:
        encoded = self._tokenizer(
            [self._prefix + text for text in texts],
            truncation=True,
            max_length=self._window,
            return_overflowing_tokens=True,
        )
        token_ids_C = encoded["input_ids"]
        return _Chunks(
            token_ids_C,
            np.asarray(encoded["overflow_to_sample_mapping"], dtype=np.intp),
            np.fromiter(map(len, token_ids_C), dtype=np.int64, count=len(token_ids_C)),
        )

    @torch.inference_mode()
    def _forward(self, chunks: list[list[int]]) -> NDArray[np.float64]:
        """Unit vectors [B, D] of chunks."""
        padded = self._tokenizer.pad({"input_ids": chunks}, return_tensors="pt").to(self._model.device)
        features = {name: padded[name] for name in ("input_ids", "attention_mask")}
        vectors = self._model(features, **self._options)["sentence_embedding"]
        return unit_rows(vectors.double().cpu().numpy())


def model_directory(path: str, *, code: bool = False) -> Path:
    """Directory of an encoder: a local one, a hub snapshot (with its `code`, if it is to run), or ``package:<name>``'s
    own ``get_model_path()``."""
    if not path.startswith(PACKAGE_PREFIX):
        files = (*MODEL_FILES, _LAYERS_BEHIND, *([CODE] if code else []))
        return local_model(path, "encoder.path", files, pickles=True)
    name = path.removeprefix(PACKAGE_PREFIX)
    try:
        return Path(import_module(name).get_model_path())
    except ImportError:
        raise UserError(f"encoder.path={path}: the package {name} is not installed; pip install it") from None
    except AttributeError:
        raise UserError(f"encoder.path={path}: the package {name} has no get_model_path()") from None


def _first_of_each(chunks: _Chunks) -> _Chunks:
    _, first = np.unique(chunks.owner_C, return_index=True)
    return _Chunks([chunks.token_ids_C[index] for index in first], chunks.owner_C[first], chunks.length_C[first])


def _batches(length_C: NDArray[np.int64], size: int) -> Iterator[NDArray[np.intp]]:
    """Chunks of similar length, longest first: little padding, and memory runs out at once or never."""
    order = np.argsort(-length_C, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]
