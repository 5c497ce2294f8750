"""The embeddings of a shard on disk: a Zarr array of unit vectors. Legend: M vectors, D embedding size."""

from pathlib import Path

import numpy as np
import zarr
from numpy.typing import NDArray

from nemo_sspo.artifacts.layout import VECTORS

_ARRAY = "vectors"
ROWS_PER_CHUNK = 4096
"""As vectors are written; they are read in any chunks."""

# Every thread that decodes keeps memory of its own, for as long as the process lives; one is fast enough here.
zarr.config.set({"threading.max_workers": 1})


def write_vectors(folder: Path, vectors_MD: NDArray[np.floating]) -> None:
    """Store vectors in a draft's folder. Not compressed: their digits are noise, and parts are read again and again."""
    group = zarr.open_group(folder / VECTORS, mode="w")
    chunks = (min(ROWS_PER_CHUNK, len(vectors_MD)), vectors_MD.shape[1])
    array = group.create_array(_ARRAY, shape=vectors_MD.shape, dtype=vectors_MD.dtype, chunks=chunks, compressors=None)
    array[:] = vectors_MD


def open_vectors(folder: Path) -> "zarr.Array":
    """The vectors [M, D] of a published artifact; what is indexed is read."""
    return zarr.open_array(folder / VECTORS, path=_ARRAY, mode="r")
