"""Conversion of policies with the models that NeMo builds; see `checkpoints/convert.py`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from megatron.core.models.gpt import GPTModel

from nemo_sspo.megatron.checkpoints import convert
from nemo_sspo.megatron.nemo.model_config import host_config


def _build(hf_dir: Path, dtype: torch.dtype) -> GPTModel:
    return host_config(hf_dir, dtype).configure_model(tokenizer=None)


import_policy = partial(convert.import_policy, build=_build)
export_policy = partial(convert.export_policy, build=_build)
