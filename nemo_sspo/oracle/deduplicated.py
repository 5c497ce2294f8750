"""Equal rows are judged once. Legend: R rows, U unique ones."""

from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item", bound=Hashable)


class Deduplicated(Generic[Item]):
    """The distinct items of a sequence, in the order of their first appearance."""

    def __init__(self, items: Sequence[Item]) -> None:
        self._place = {item: index for index, item in enumerate(dict.fromkeys(items))}
        self.items = list(self._place)

    def __len__(self) -> int:
        """U."""
        return len(self.items)

    def places(self, items: Sequence[Item]) -> NDArray[np.intp]:
        """Where each of `items` stands among the distinct ones, [R]."""
        return np.fromiter((self._place[item] for item in items), dtype=np.intp, count=len(items))
