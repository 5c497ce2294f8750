"""Semantic-calibrated self-play preference optimization on NeMo and Megatron-core (S-SPPO, arXiv 2606.01561).

    from nemo_sspo import load_experiment, open_run, plan, run

A name is imported when it is first used, so that `import nemo_sspo` alone takes no time: see `nemo_sspo.api`. Their
types are in `__init__.pyi`.
"""

from importlib import import_module

__all__ = ["OpenRun", "UserError", "__version__", "load_experiment", "open_run", "plan", "run"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """The public names, from `nemo_sspo.api`."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("nemo_sspo.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
