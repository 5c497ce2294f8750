"""From a variant of the configuration to the function it names, with its parameters bound."""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from nemo_sspo.config.base import Frozen
from nemo_sspo.errors import UserError


def bind(variant: Frozen, functions: Mapping[str, Callable[..., Any]], *, exclude: set[str] | None = None) -> Callable:
    """The function of a variant's ``kind`` with the variant's other fields as keyword arguments.

    A ``kind`` of ``custom`` is imported from its path instead. ``exclude`` names fields that are no parameters of the
    function.

    Raises:
        UserError: the import path of a custom function does not lead to a function.
    """
    fields = variant.model_dump(exclude={"kind", *(exclude or ())})
    if variant.kind == "custom":  # type: ignore[attr-defined]
        return partial(_load(fields["function"]), **fields["arguments"])
    return partial(functions[variant.kind], **fields)  # type: ignore[attr-defined]


def _load(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"function={path}: cannot be imported ({error}); write it as package.module:function") from None
    if not callable(function):
        raise UserError(f"function={path}: not a function")
    return function
