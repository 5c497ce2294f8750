"""Any sentence-transformers model as the semantic encoder E (S-SPPO sec. 3.1; default all-MiniLM-L6-v2).

Legend: N texts, U unique texts, B texts of a batch, D embedding size. Texts are encoded by sentence-transformers' own
`encode`, with the model's prompt, pooling and dimensions. Only a text beyond the model's window is cut here:
``chunk_mean`` averages the unit vectors of its windows weighted by their lengths; ``truncate`` leaves it to the
library, which keeps the first.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from nemo_sspo.config.encoders import SentenceEncoder as SentenceSettings
from nemo_sspo.encoder.files import encoder_problems, model_directory
from nemo_sspo.encoder.protocol import Embeddings
from nemo_sspo.encoder.tokenizers import hold_tokenizers
from nemo_sspo.encoder.weights import refuse_other_weights
from nemo_sspo.encoder.windows import Window, Windows
from nemo_sspo.errors import UserError
from nemo_sspo.objective.similarity import unit_rows

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_POOLED_WITHOUT_PROMPT = ("hkunlp/instructor-base", "hkunlp/instructor-large", "hkunlp/instructor-xl")
"""Models that sentence-transformers recognizes only by their hub ids."""
_SAME_COSINE = {torch.float32: 1e-5, torch.float64: 1e-5}
"""How far a first window's vector may be from the library's own, as 1 - cosine; 1e-3 in half precision."""


class Sentence:
    """A sentence-transformers model behind the `SentenceEncoder` protocol."""

    def __init__(self, settings: SentenceSettings, device: str | None = None) -> None:
        """Load the model; `device` overrides the setting."""
        self._settings = settings
        directory = model_directory(settings.path, code=settings.trust_remote_code)
        for problem in encoder_problems(directory, settings):
            raise UserError(problem)
        self._model = _load(directory, settings, device)
        refuse_other_weights(self._model, directory, f"encoder.path={settings.path}")
        hold_tokenizers(self._model, directory, f"encoder.path={settings.path}")
        self._options = self._forward_options(settings.task)
        self._prompt = self._chosen_prompt()
        self._windows = Windows(self._model, self._prompt, settings.task)
        self._cuts_as_the_library = False
        self._encode_whole(["a"])  # a model that cannot encode fails here, before any text

    def encode(self, texts: Sequence[str], on_progress: Callable[[int], None] = lambda done: None) -> Embeddings:
        """See `SentenceEncoder.encode`. Equal texts are encoded once."""
        unique = list(dict.fromkeys(texts))
        lengths_U = np.asarray(self._windows.lengths(unique), dtype=np.int64)
        long_U = lengths_U > (self._windows.size or np.inf)
        vectors: dict[int, NDArray[np.float64]] = {}
        for batch in _batches(lengths_U, self._settings.batch_size):
            cut = batch[long_U[batch]] if self._settings.long_text == "chunk_mean" else batch[:0]
            whole = batch[~np.isin(batch, cut)]
            vectors |= zip(whole, self._encode_whole([unique[index] for index in whole]), strict=True)
            vectors |= ((index, self._encode_windows(unique[index])) for index in cut)
            on_progress(len(vectors) * len(texts) // len(unique))
        place = {text: index for index, text in enumerate(unique)}
        places_N = np.fromiter((place[text] for text in texts), dtype=np.intp, count=len(texts))
        vectors_UD = np.stack([vectors[index] for index in range(len(unique))]) if unique else np.zeros((0, 0))
        if not np.isfinite(vectors_UD).all():
            raise UserError(f"encoder.path={self._settings.path}: gives vectors that are not finite")
        return Embeddings(unit_rows(vectors_UD).astype(np.float32)[places_N], long_U[places_N], len(unique))

    def _chosen_prompt(self) -> str:
        """The text before every text: the one given, the one named, or the model's own default."""
        prompts = self._model.prompts
        if self._settings.prefix is not None:
            return self._settings.prefix
        name = self._settings.prompt_name or self._model.default_prompt_name
        return "" if name is None else prompts[name] or ""

    def _forward_options(self, task: str | None) -> dict[str, str]:
        if task is None:
            return {}
        if "task" not in self._model.get_model_kwargs() and not hasattr(self._model[0], "sub_modules"):
            raise UserError(f"encoder.task={task}: the model knows no tasks; a prefix is set by encoder.prefix")
        return {"task": task}

    def _encode_whole(self, texts: list[str]) -> NDArray[np.float64]:
        """Unit vectors [B, D] as sentence-transformers makes them."""
        if not texts:
            return np.zeros((0, 0))
        try:
            vectors_BD = self._model.encode(
                texts, prompt=self._prompt, batch_size=len(texts), show_progress_bar=False, **self._options
            )
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as error:
            raise UserError(
                f"encoder.path={self._settings.path}: sentence-transformers cannot encode with it "
                f"({type(error).__name__}: {error})"
            ) from None
        return unit_rows(np.asarray(vectors_BD, dtype=np.float64))

    def _encode_windows(self, text: str) -> NDArray[np.float64]:
        """The mean [D] of the unit vectors of a long text's windows, weighted by their lengths."""
        if not self._windows.can_cut:
            raise UserError(
                f"encoder.path={self._settings.path}: a text is longer than its window of {self._windows.size} tokens, "
                "and it takes no token ids; set encoder.long_text=truncate"
            )
        windows = list(self._windows.cut(text))
        size = self._settings.batch_size
        parts = [self._forward(windows[start : start + size]) for start in range(0, len(windows), size)]
        vectors = np.concatenate(parts)
        if not self._cuts_as_the_library:
            self._compare_with_the_library(text, windows[0])
        return np.average(vectors, axis=0, weights=[window.weight for window in windows])

    def _compare_with_the_library(self, text: str, first: Window) -> None:
        """The library keeps the first window of a long text: the same one has to give the same vector here."""
        (ours,), (its) = self._forward([first]), self._encode_whole([text])[0]
        if 1 - ours @ its > _SAME_COSINE.get(self._model.dtype, 1e-3):
            raise UserError(
                f"encoder.path={self._settings.path}: its long texts cannot be cut as sentence-transformers reads them "
                f"(cosine {ours @ its:.5f} with its own first window); set encoder.long_text=truncate"
            )
        self._cuts_as_the_library = True

    @torch.inference_mode()
    def _forward(self, windows: list[Window]) -> NDArray[np.float64]:
        """Unit vectors [B, D] of windows."""
        features = self._windows.features(windows, self._model.device)
        vectors_BD = self._model(features | self._options, **self._options)["sentence_embedding"]
        return unit_rows(vectors_BD[:, : self._model.truncate_dim].double().cpu().numpy())


def _load(directory: Path, settings: SentenceSettings, device: str | None) -> "SentenceTransformer":
    from sentence_transformers import SentenceTransformer

    try:
        model = SentenceTransformer(
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
    if settings.path in _POOLED_WITHOUT_PROMPT:
        model.set_pooling_include_prompt(False)
    return model


def _batches(length_U: NDArray[np.int64], size: int) -> Iterator[NDArray[np.intp]]:
    """Texts of similar length, longest first: little padding, and memory runs out at once or never."""
    order = np.argsort(-length_U, kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size]
