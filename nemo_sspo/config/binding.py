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
        return partial(import_function(fields["function"]), **fields["arguments"])
    return partial(functions[variant.kind], **fields)  # type: ignore[attr-defined]


def import_function(path: str, setting: str = "function") -> Callable[..., Any]:
    """The function at ``package.module:function``; `setting` is the key that named it.

    Raises:
        UserError: the path does not lead to a function.
    """
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        advice = "write it as package.module:function"
        raise UserError(f"{setting}={path}: cannot be imported ({error}); {advice}") from None
    if not callable(function):
        raise UserError(f"{setting}={path}: not a function")
    return function
