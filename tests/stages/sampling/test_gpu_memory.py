"""The peak of a GPU's memory, where a process has one in use."""

import sys

import pytest

pytest.importorskip("torch")

import torch

from nemo_sspo.stages.sampling.gpu_memory import peak_gpu_memory_gib


def test_nothing_is_said_without_a_gpu_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)
    assert peak_gpu_memory_gib() is None
    monkeypatch.setitem(sys.modules, "torch", None)
    assert peak_gpu_memory_gib() is None


def test_the_allocators_peak_is_said_in_gib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 3 * 2**29)
    assert peak_gpu_memory_gib() == 1.5
