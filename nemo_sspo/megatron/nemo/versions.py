"""The one place that says which versions of megatron-core and NeMo this package works with."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from packaging.version import InvalidVersion, Version

from nemo_sspo.errors import UserError

# Half-open ranges, and the versions whose tests run in CI.
# NeMo 2.7.3 is the last release with `nemo.collections.llm`, and it runs with megatron-core 0.15.x only:
# with 0.16 `get_megatron_optimizer` lost an argument that NeMo passes.
NEMO_SUPPORTED = ("2.7.3", "2.8.0")
NEMO_TESTED = ("2.7.3",)
MEGATRON_CORE_SUPPORTED = ("0.15.0", "0.16.0")
MEGATRON_CORE_TESTED = ("0.15.3",)


def _megatron_core_version() -> str:
    # The module's own number, not the distribution's: with `pip --target` several distributions may be on the path
    # and only one of them is imported.
    try:
        import megatron.core
    except ImportError as error:
        raise UserError(f"megatron-core cannot be imported ({error}); install megatron-core==0.15.3") from error
    return megatron.core.__version__


def _require(name: str, found: str, supported: tuple[str, str], tested: tuple[str, ...]) -> None:
    low, high = supported
    try:
        inside = Version(low) <= Version(found) < Version(high)
    except InvalidVersion:
        inside = False
    if not inside:
        raise UserError(
            f"{name} {found} is not supported: need >= {low}, < {high} (tested: {', '.join(tested)}); "
            f"install {name}=={tested[0]}"
        )


def require_nemo() -> str:
    """Version of NeMo installed. Raises UserError when NeMo, or the megatron-core beside it, is not a tested match."""
    try:
        found = version("nemo-toolkit")
    except PackageNotFoundError as error:
        raise UserError("nemo-toolkit is not installed in this environment; install nemo-toolkit==2.7.3") from error
    _require("nemo-toolkit", found, NEMO_SUPPORTED, NEMO_TESTED)
    _require("megatron-core", _megatron_core_version(), MEGATRON_CORE_SUPPORTED, MEGATRON_CORE_TESTED)
    return found
