"""Import and export by streaming, in several files and processes, against the whole model in one process."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("megatron.core")

import torch
from megatron.core import dist_checkpointing
from safetensors.torch import load_file
from torch.distributed.checkpoint import filesystem

from nemo_sspo.artifacts.durable import full_disk_line
from nemo_sspo.config.stages import Parallel
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.checkpoints import convert, streamed
from nemo_sspo.megatron.checkpoints.weights import WEIGHTS, one_rank
from nemo_sspo.megatron.core.policy import host_policy
from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory
from nemo_sspo.megatron.runtime.forked_ranks import ForkedRanksError
from tests.megatron.checkpoints.whole import export_whole, save_again, save_whole
from tests.megatron.policies import GEMMA2, POLICIES
from tests.megatron.worlds import write_policy

SMALL_FILES = 60_000
"""Bytes: less than the largest tensor in fp32, and a tenth of a policy."""
import_policy = partial(convert.import_policy, build=host_policy, file_bytes=SMALL_FILES)
export_policy = partial(convert.export_policy, build=host_policy, file_bytes=SMALL_FILES)


@pytest.fixture
def cores(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Says how many cores there are."""
    return lambda count: monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(count)))


@pytest.fixture(autouse=True)
def three_cores(cores: Callable[[int], None]) -> None:
    cores(3)


def stored(checkpoint: Path) -> tuple[dict, dict[str, torch.Tensor]]:
    """What the index says of the tensors, and their values."""
    index = pickle.loads((checkpoint / WEIGHTS / ".metadata").read_bytes())
    with one_rank():
        values = dist_checkpointing.load_plain_tensors(str(checkpoint / WEIGHTS))
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    described = {
        name: (said.size, said.properties.dtype, {(tuple(chunk.offsets), tuple(chunk.sizes)) for chunk in said.chunks})
        for name, said in index.state_dict_metadata.items()
        if name in tensors
    }
    return described, tensors


def _stream_of(kind: type[io.FileIO]) -> Callable[..., Any]:
    @contextmanager
    def create_stream(_self: object, path: Path, mode: str) -> Iterator[io.FileIO]:
        with kind(path, mode) as stream:
            yield stream

    return create_stream


def equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype and torch.equal(left[name], right[name]) for name in left
    )


@pytest.mark.parametrize("name", POLICIES)
def test_an_import_is_the_checkpoint_that_megatron_would_save(tmp_path: Path, name: str) -> None:
    model_type, changes = POLICIES[name]
    policy = write_policy(tmp_path / "policy", model_type, **changes)
    import_policy(policy, tmp_path / "streamed", tmp_path / "hf", torch.bfloat16)
    save_whole(policy, tmp_path / "whole", torch.bfloat16)
    files = sorted((tmp_path / "streamed" / WEIGHTS).glob("*.distcp"))
    assert len(files) > 3
    assert max(file.stat().st_size for file in files) < 1.5 * SMALL_FILES
    (described, tensors), (expected, truth) = stored(tmp_path / "streamed"), stored(tmp_path / "whole")
    assert described == expected
    assert equal(tensors, truth)


LAYOUTS = {
    "tp2_pp2": ("llama", Parallel(tensor=2, pipeline=2)),
    "tp2_pp2_sp": ("qwen2_tied", Parallel(tensor=2, pipeline=2, sequence=True)),
    "pp2_vpp2": ("qwen3", Parallel(pipeline=2, virtual_pipeline=2)),
    "pp4": ("gemma2", Parallel(pipeline=4)),
    "tp2": ("mistral_window", Parallel(tensor=2)),
    "tp2_ep2_dp2": ("qwen3_moe", Parallel(tensor=2, data=2, expert=2, sequence=True)),
    "ep2_pp2": ("mixtral", Parallel(data=2, expert=2, pipeline=2)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_export_has_the_bytes_of_the_whole_model(tmp_path: Path, layout: str) -> None:
    name, parallel = LAYOUTS[layout]
    model_type, changes = POLICIES[name]
    policy = write_policy(tmp_path / "policy", model_type, **changes)
    import_policy(policy, tmp_path / "imported", tmp_path / "hf", torch.float32)
    save_again(tmp_path / "imported", tmp_path / "hf", parallel, tmp_path / "saved")
    export_policy(tmp_path / "saved", tmp_path / "hf", tmp_path / "exported", torch.float32)
    exported = dict(SafetensorsDirectory(tmp_path / "exported"))
    assert equal(exported, export_whole(tmp_path / "saved", tmp_path / "hf", torch.float32))
    assert equal(exported, load_file(policy / "model.safetensors"))
    index = json.loads((tmp_path / "exported" / "model.safetensors.index.json").read_text())
    files = {path.name: load_file(path).keys() for path in (tmp_path / "exported").glob("*.safetensors")}
    assert index["weight_map"] == {name: file for file, names in files.items() for name in names}
    assert len(files) > 3
    assert set(files) == {f"model-{number:05}-of-{len(files):05}.safetensors" for number in range(1, len(files) + 1)}
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in exported.values())


def test_equal_weights_give_equal_files_in_any_number_of_processes(
    tmp_path: Path, small_llama: Path, cores: Callable[[int], None]
) -> None:
    found = []
    for count in (1, 2, 5):
        cores(count)
        here = tmp_path / str(count)
        import_policy(small_llama, here / "nemo", here / "hf", torch.float32)
        export_policy(here / "nemo", here / "hf", here / "back", torch.float32)
        files = sorted(path for path in here.rglob("*") if path.is_file())
        found.append({path.relative_to(here): path.read_bytes() for path in files})
    assert found[0] == found[1] == found[2]


def test_files_are_written_by_as_many_processes_as_there_are_cores(
    tmp_path: Path, small_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_not_finite = streamed.first_not_finite

    def telling(named: list[tuple[str, torch.Tensor]]) -> str | None:
        (tmp_path / "pids" / str(os.getpid())).mkdir(parents=True, exist_ok=True)
        return first_not_finite(named)

    monkeypatch.setattr(streamed, "first_not_finite", telling)
    for convert_it, *arguments in (
        (import_policy, small_llama, tmp_path / "nemo", tmp_path / "hf"),
        (export_policy, tmp_path / "nemo", tmp_path / "hf", tmp_path / "back"),
    ):
        convert_it(*arguments, torch.float32)
        pids = {path.name for path in (tmp_path / "pids").iterdir()}
        assert len(pids) == 3
        assert str(os.getpid()) not in pids
        for pid in pids:
            (tmp_path / "pids" / pid).rmdir()


def test_what_a_process_finds_wrong_is_told_and_nothing_is_left(tmp_path: Path, small_llama: Path) -> None:
    import_policy(small_llama, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    (shard, *_) = sorted((tmp_path / "nemo" / WEIGHTS).glob("*.distcp"))
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100])
    with pytest.raises(ForkedRanksError):
        export_policy(tmp_path / "nemo", tmp_path / "hf", tmp_path / "back", torch.float32)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("count", [1, 3])
def test_a_full_disk_is_known_as_one(
    tmp_path: Path, small_llama: Path, monkeypatch: pytest.MonkeyPatch, cores: Callable[[int], None], count: int
) -> None:
    """What was written is gone when the step looks at the disk, and torch's writer says something else."""

    def full(self: io.FileIO, _content: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), self.name)

    cores(count)
    monkeypatch.setattr(filesystem.FileSystem, "create_stream", _stream_of(type("Full", (io.FileIO,), {"write": full})))
    with pytest.raises((RuntimeError, OSError)) as raised:
        import_policy(small_llama, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    assert "No space left on device" in (full_disk_line(raised.value) or "")
    assert not (tmp_path / "nemo").exists()


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 6}, {"hidden_size": 72}])
def test_another_models_checkpoint_is_refused(tmp_path: Path, small_llama: Path, changes: dict[str, int]) -> None:
    import_policy(small_llama, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    other = write_policy(tmp_path / "other", "llama", **changes)
    with pytest.raises(UserError, match="is another model's checkpoint"):
        export_policy(tmp_path / "nemo", other, tmp_path / "back", torch.float32)


@pytest.mark.parametrize("name", ["mlp.linear_fc1.weight", "mlp.linear_fc2.weight"])
def test_a_checkpoint_without_a_tensor_is_refused(tmp_path: Path, small_llama: Path, name: str) -> None:
    """Also without one that is stored in two parts."""
    import_policy(small_llama, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    index = tmp_path / "nemo" / WEIGHTS / ".metadata"
    metadata = pickle.loads(index.read_bytes())
    del metadata.state_dict_metadata[f"module.decoder.layers.{name}"]
    index.write_bytes(pickle.dumps(metadata))
    with pytest.raises(UserError, match=rf"{name}' is missing"):
        export_policy(tmp_path / "nemo", tmp_path / "hf", tmp_path / "back", torch.float32)


def test_a_checkpoint_with_a_hole_is_refused(tmp_path: Path, small_llama: Path) -> None:
    """In place of what the memory held before."""
    import_policy(small_llama, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    index = tmp_path / "nemo" / WEIGHTS / ".metadata"
    metadata = pickle.loads(index.read_bytes())
    del metadata.state_dict_metadata["module.decoder.layers.mlp.linear_fc2.weight"].chunks[2]
    index.write_bytes(pickle.dumps(metadata))
    with pytest.raises(ForkedRanksError, match=r"linear_fc2\.weight' do not make the whole of it"):
        export_policy(tmp_path / "nemo", tmp_path / "hf", tmp_path / "back", torch.float32)


def test_values_that_overflow_when_they_are_rounded_are_not_imported(tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy", "gemma2", **GEMMA2)
    from safetensors.torch import save_file

    tensors = load_file(policy / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.finfo(torch.float32).max  # above the greatest bf16
    save_file(tensors, policy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"not saved: decoder\.final_layernorm\.weight \(1 of 64 values\)"):
        import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.bfloat16)
    assert not (tmp_path / "nemo").exists()
