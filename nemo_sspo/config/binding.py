"""From a variant of the configuration to the function it names, with its parameters bound."""

import importlib
import importlib.util
import inspect
import os
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from nemo_sspo.config.functions import CustomFunction, FunctionVariant
from nemo_sspo.config.losses import CustomLoss
from nemo_sspo.errors import UserError


def bind(variant: FunctionVariant, functions: Mapping[str, Callable[..., Any]]) -> Callable:
    """The function of a variant's ``kind`` with the variant's settings as keyword arguments.

    Raises:
        UserError: the import path of a custom function leads to none, or to one that cannot be called so.
    """
    if isinstance(variant, CustomFunction):
        return _custom(variant)
    return partial(functions[variant.kind], **variant.keywords())


def _custom(variant: CustomFunction) -> Callable:
    setting = f"{variant.section}.function"
    function = import_function(variant.function, setting)
    signature = inspect.signature(function)
    try:
        signature.bind(*variant.signature, **variant.arguments)
    except TypeError as error:
        if isinstance(variant, CustomLoss) and _takes(signature, variant.earlier_signature, variant.arguments):
            return partial(_of_log_ratios, partial(function, **variant.arguments))
        call = ", ".join([*variant.signature, *(f"{name}=..." for name in variant.arguments)])
        name = variant.function.rpartition(":")[2]
        raise UserError(
            f"{setting}={variant.function}: cannot be called as {name}({call}) ({error}); change the function or "
            f"{variant.section}.arguments"
        ) from None
    return partial(function, **variant.arguments)


def _takes(signature: inspect.Signature, positional: tuple[str, ...], arguments: dict[str, float]) -> bool:
    try:
        signature.bind(*positional, **arguments)
    except TypeError:
        return False
    return True


def _of_log_ratios(loss: Callable, pairs: Any) -> Any:
    """A loss of the earlier signature on a `PairBatch`."""
    return loss(pairs.d_chosen_B, pairs.d_rejected_B, pairs.targets)


def module_file(path: str) -> Path | None:
    """The user's own file behind ``package.module:function``; None where there is none to be seen from here.

    Found as a stage's import finds it, which starts from the working directory; but nothing is imported: a login node
    has no torch, and a package's own code shall not run before its stage does. What is installed in an environment is
    left out: the stage's may have another version of it than this one.
    """
    top, *below = path.partition(":")[0].split(".")
    importlib.invalidate_caches()
    try:
        spec = PathFinder.find_spec(top, [os.getcwd()]) or importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if below:
        stems = [Path(place).joinpath(*below) for place in spec.submodule_search_locations or ()]
        candidates = [file for stem in stems for file in (stem / "__init__.py", stem.with_name(f"{stem.name}.py"))]
    else:
        candidates = [Path(spec.origin)] if spec.origin else []
    return next((file for file in candidates if file.is_file() and not _is_installed(file)), None)


def _is_installed(file: Path) -> bool:
    return bool({"site-packages", "dist-packages"} & set(file.parts)) or file.is_relative_to(
        sysconfig.get_path("stdlib")
    )


def path_problems(path: str, setting: str) -> Iterator[str]:
    """What is wrong with the form of an import path."""
    module, colon, name = path.partition(":")
    if not colon or not all(part.isidentifier() for part in (name, *module.split("."))):
        yield f"{setting}={path}: write it as package.module:function"


def import_function(path: str, setting: str) -> Callable[..., Any]:
    """The function at ``package.module:function``; `setting` is the key that named it.

    Raises:
        UserError: the path does not lead to a function.
    """
    for problem in path_problems(path, setting):
        raise UserError(problem)
    module, _, name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # the module's own code may raise anything
        known = isinstance(error, ImportError | AttributeError | ValueError)
        reason = f"{error}" if known else f"{type(error).__name__}: {error}"
        advice = "write it as package.module:function" if known else "correct that module"
        raise UserError(f"{setting}={path}: cannot be imported ({reason}); {advice}") from None
    if not callable(function):
        raise UserError(f"{setting}={path}: not a function")
    return function
