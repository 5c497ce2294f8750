"""Which versions of NeMo this package works with, and of megatron-core beside it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from nemo_sspo.errors import UserError
from nemo_sspo.megatron.versions import megatron_core_version, require_version

# Half-open ranges, and the versions whose tests run in CI.
# NeMo 2.7.3 is the last release with `nemo.collections.llm`, and it runs with megatron-core 0.15.x only:
# with 0.16 `get_megatron_optimizer` lost an argument that NeMo passes.
NEMO_SUPPORTED = ("2.7.3", "2.8.0")
NEMO_TESTED = ("2.7.3",)
MEGATRON_CORE_SUPPORTED = ("0.15.0", "0.16.0")
MEGATRON_CORE_TESTED = ("0.15.3",)


def require_nemo() -> str:
    """Version of NeMo installed. Raises UserError when NeMo, or the megatron-core beside it, is not a tested match."""
    try:
        found = version("nemo-toolkit")
    except PackageNotFoundError as error:
        raise UserError("nemo-toolkit is not installed in this environment; install nemo-toolkit==2.7.3") from error
    require_version("nemo-toolkit", found, NEMO_SUPPORTED, NEMO_TESTED)
    require_version("megatron-core", megatron_core_version(), MEGATRON_CORE_SUPPORTED, MEGATRON_CORE_TESTED)
    return found
