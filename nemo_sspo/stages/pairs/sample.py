"""A seeded sample that depends on content alone: not on the order of rows nor on how they are cut into shards."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

_ID_DIGITS = 16  # hex digits of a content id that make a 64-bit key


def prompt_keys(prompt_ids: pa.Array, seed: int, salts_M: NDArray[np.int64]) -> Keys:
    """Pseudo-random keys [N, M] of (prompt, seed, salt): equal arguments have equal keys everywhere."""
    ids_N = np.fromiter((int(id_[:_ID_DIGITS], 16) for id_ in prompt_ids.to_pylist()), dtype=np.uint64)
    salted_M = _mixed(salts_M.astype(np.uint64) ^ _mixed(np.array([seed], dtype=np.uint64)))
    return _mixed(ids_N[:, None] ^ salted_M)


def _mixed(x: Keys) -> Keys:
    """SplitMix64's finalizer (Steele et al., 2014): a bijection whose every output bit depends on every input bit."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


class SmallestKeys:
    """The rows with the `size` smallest keys of a stream of blocks, in the order of their keys."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys = np.empty(0, dtype=np.uint64)
        self._columns: dict[str, NDArray] = {}

    def add(self, keys: Keys, columns: Mapping[str, NDArray]) -> None:
        """Add rows: their keys and their columns."""
        near = np.argpartition(keys, self._size - 1)[: self._size] if len(keys) > self._size else np.arange(len(keys))
        merged = np.concatenate([self._keys, keys[near]])
        kept = np.argsort(merged, kind="stable")[: self._size]
        self._keys = merged[kept]
        held = self._columns or {name: values[:0] for name, values in columns.items()}
        self._columns = {name: np.concatenate([held[name], columns[name][near]])[kept] for name in columns}

    @property
    def columns(self) -> Mapping[str, NDArray]:
        """The sample, column by column."""
        return self._columns
