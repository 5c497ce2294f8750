"""What `nemo-sspo profile` does on a GPU, and on one of several."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nemo_sspo.config.stages import Parallel, Train
from tests.rehearsal.case import Case
from tests.rehearsal.cases import TINY_MODELS, TINY_PAIRS
from tests.rehearsal.run import import_everything, in_fork, on_fake_gpu

ONE_OF_TWO = Case("llama", TINY_MODELS["llama"], Parallel(data=2), Train(), TINY_PAIRS)


@pytest.mark.parametrize("capability", [(9, 0), (8, 0)])
def test_a_gpu_is_measured_in_every_precision_that_it_has(
    capability: tuple[int, int], tmp_path: Path, capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    from nemo_sspo.estimate.profiling import training

    import_everything()
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    in_fork(lambda: on_fake_gpu(ONE_OF_TWO, lambda: training.main(tmp_path)))
    found = json.loads(capfd.readouterr().out)
    assert ("products_fp8" in found) == (capability >= (9, 0))
    assert {"products_bf16", "products_fp32", "forward", "attention", "memory_bandwidth", "to_host"} <= set(found)


def test_what_gpus_send_is_measured_over_nccl(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    from nemo_sspo.estimate.profiling import network

    import_everything()

    def both_in_one_node() -> None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
        network.main()

    in_fork(lambda: on_fake_gpu(ONE_OF_TWO, both_in_one_node))
    assert set(json.loads(capfd.readouterr().out)) == {"in_node"}
