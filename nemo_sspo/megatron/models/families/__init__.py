"""The model families: one module each, which defines `FAMILY`. A new module in this folder is discovered."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from nemo_sspo.artifacts.json_files import read_json_object
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.models.family import Family, HFConfig

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (import_module(f"{__name__}.{module.name}").FAMILY for module in iter_modules(__path__))
}


def read_hf_config(policy_dir: Path) -> HFConfig:
    """Read ``config.json`` of a Hugging Face directory. Raises UserError where it is missing or malformed."""
    path = policy_dir / "config.json"
    raw = read_json_object(path, "give a Hugging Face model directory or hub id")
    family = FAMILIES.get(str(raw.get("model_type")))
    return HFConfig({**family.defaults, **raw} if family else raw, path)


def family_of(config: HFConfig) -> Family:
    """The family that ``model_type`` names. Raises UserError that lists the supported ones."""
    model_type = config.get("model_type")
    if str(model_type) not in FAMILIES:
        raise UserError(
            f"{config.path}: model_type {model_type!r} is not supported; supported: {', '.join(sorted(FAMILIES))}"
        )
    return FAMILIES[model_type]
