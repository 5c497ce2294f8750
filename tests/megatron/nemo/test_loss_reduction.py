"""What NeMo is handed of a step is where its process groups can send it from."""

from __future__ import annotations

from unittest import mock

import pytest

pytest.importorskip("nemo.collections.llm")

import torch

from nemo_sspo.megatron.nemo import loss_reduction
from nemo_sspo.megatron.nemo.loss_reduction import LogpReduction, PreferenceLossReduction


def test_the_loss_of_a_step_is_on_the_ranks_device() -> None:
    """NeMo sends it through the pipeline; NCCL serves no tensor of the host."""
    reductions = PreferenceLossReduction(mock.Mock()), LogpReduction(mock.Mock())
    with (
        mock.patch.object(loss_reduction, "sum_metrics", return_value={"loss": 2.0}),
        mock.patch.object(torch.cuda, "current_device", return_value=torch.device("meta")),
    ):
        for reduction in reductions:
            assert reduction.reduce([])["loss"].device.type == "meta"
