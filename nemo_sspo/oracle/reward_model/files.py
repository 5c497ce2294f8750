"""A reward model on disk, checked before any weight is loaded: config.json and the headers of its weights. No torch."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nemo_sspo.artifacts.sources.weight_headers import (
    files_of_transformers,
    model_headers,
    unmerged_adapter,
    weight_problems,
)

_CLASSIFIER = "ForSequenceClassification"
_DEFAULT_LABELS = 2
"""Of transformers."""
_HEAD = re.compile(r"(^|\.)(score|classif|logits_proj|(?!lm_)\w*head)")
"""Names of a classifier's last layer in transformers."""


def reward_model_problems(directory: Path, config: Mapping[str, Any]) -> Iterator[str]:
    """Reasons why a directory with this config.json cannot give rewards; the weights may be missing."""
    if adapter := unmerged_adapter(directory):
        yield f"oracle.path={directory}: {adapter} asks for an adapter that is not merged; merge it first"
        return
    architectures = config.get("architectures") or []
    if not isinstance(architectures, list) or not any(str(name).endswith(_CLASSIFIER) for name in architectures):
        yield f"oracle.path={directory}: {architectures} is no sequence classifier, so it gives no reward"
        return
    labels = config.get("id2label")
    outputs = config.get("num_labels", len(labels) if isinstance(labels, dict) and labels else _DEFAULT_LABELS)
    if outputs != 1:
        yield f"oracle.path={directory}: a classifier of {outputs} classes; a reward model has one output"
        return
    tensors = model_headers([file for file in files_of_transformers(directory) if file.is_file()])
    for problem in weight_problems(tensors, config, "config.json"):
        yield f"oracle.path={directory}: {problem}"
    if tensors and "auto_map" not in config and not any(map(_HEAD.search, tensors)):
        yield f"oracle.path={directory}: its weights lack score.weight or classifier.weight; this is a base model"
