"""What vLLM is asked for, and how its refusals are told: no model is loaded."""

import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nemo_sspo.config.engines import VllmEngine as VllmSettings
from nemo_sspo.errors import UserError
from nemo_sspo.rollout import vllm_engine
from nemo_sspo.rollout.vllm_engine import VllmEngine, engine_arguments, variables


@pytest.mark.parametrize(
    ("given", "on_cpu", "asked"),
    [
        (None, False, {}),  # vLLM knows the GPU
        (None, True, {"max_num_seqs": 256}),
        (48, False, {"max_num_seqs": 48}),
        (48, True, {"max_num_seqs": 48}),
    ],
)
def test_how_many_sequences_at_once_is_vllms_choice_on_a_gpu(
    given: int | None, on_cpu: bool, asked: dict[str, int]
) -> None:
    arguments = engine_arguments(Path("policy"), VllmSettings(max_num_seqs=given), on_cpu, 512)
    assert {name: value for name, value in arguments.items() if name == "max_num_seqs"} == asked


def test_an_engine_on_a_gpu_compiles_no_sampler_when_it_starts() -> None:
    """FlashInfer's: without nvcc every engine would die of it. vLLM reads the variable as a number."""
    assert variables(VllmSettings(), on_cpu=False)["VLLM_USE_FLASHINFER_SAMPLER"] == "0"
    assert "VLLM_USE_FLASHINFER_SAMPLER" not in variables(VllmSettings(), on_cpu=True)


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Start an engine on a pretended GPU, with a stand-in for vLLM; what it was asked for, or what it raises."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "config.json").write_text('{"max_position_embeddings": 1024}')
    monkeypatch.setattr(vllm_engine, "visible_gpus", lambda: ("0",))
    monkeypatch.setattr(vllm_engine, "local_model", lambda policy, name: Path(policy))
    monkeypatch.setenv("VLLM_USE_FLASHINFER_SAMPLER", "1")  # a shell's own word stands

    def start(failure: Exception | None = None, max_model_len: int = 300) -> dict[str, Any]:
        asked: dict[str, Any] = {}

        def llm(**arguments: Any) -> None:
            asked.update(arguments)
            if failure is not None:
                raise failure

        monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=llm))
        VllmEngine(str(tmp_path), VllmSettings(), seed=1, max_model_len=max_model_len, stop_token_ids=[])
        return asked

    return start


# vLLM 0.32's words: its engine is a process of its own on a GPU, and the ValueError stays in there.
_DIED = "Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore_0': 1}"


def test_an_engine_that_does_not_start_is_bad_input(start: Any) -> None:
    with pytest.raises(UserError, match="vLLM's engine did not start: the last ValueError or traceback above says why"):
        start(RuntimeError(_DIED))
    with pytest.raises(UserError, match=r"vLLM refuses it \(no such architecture\)"):
        start(ValueError("no such architecture"))
    with pytest.raises(RuntimeError, match="CUDA error"):
        start(RuntimeError("CUDA error: uncorrectable ECC error encountered"))


@pytest.mark.parametrize(("longest", "asked"), [(1, 256), (256, 256), (257, 512), (1000, 1024), (1025, 1025)])
def test_lengths_are_rounded_up_to_what_the_policy_has(start: Any, longest: int, asked: int) -> None:
    assert start(max_model_len=longest)["max_model_len"] == asked


def test_policies_of_all_iterations_are_loaded_by_one_name(start: Any, tmp_path: Path) -> None:
    model = Path(start()["model"])
    assert model.resolve() == tmp_path
    assert model.name == "0"
