from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.metadata import StorageMeta

from nemo_sspo.artifacts.sources.weight_files import policy_weight_problems
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.binding import Binding
from nemo_sspo.megatron.checkpoints.weights import LAYOUT_METADATA, WEIGHTS, make_index_canonical
from nemo_sspo.megatron.models.families import FAMILIES
from tests.megatron.policies import POLICIES, skip_what_it_does_not_train
from tests.megatron.worlds import write_policy


def test_every_family_is_tried() -> None:
    assert {model_type for model_type, _ in POLICIES.values()} == FAMILIES.keys()


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_is_exact(trainer: str, binding: Binding, tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    skip_what_it_does_not_train(trainer, name)
    model_type, changes = POLICIES[name]
    policy = write_policy(tmp_path / "policy", model_type, **changes, torch_dtype=dtype)
    imported = binding.import_policy(policy, tmp_path / "nemo", tmp_path / "hf", dtype)
    exported = binding.export_policy(tmp_path / "nemo", tmp_path / "hf", tmp_path / "back", dtype)
    before, after = (load_file(path / "model.safetensors") for path in (policy, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert imported == exported == sum(tensor.numel() for tensor in before.values())
    was, is_ = (json.loads((path / "config.json").read_text()) for path in (policy, tmp_path / "back"))
    assert was == is_


def test_a_missing_tensor_is_named(binding: Binding, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy", "llama")
    weights = load_file(policy / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, policy / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.layers\.2\.mlp\.up_proj\.weight' is missing"):
        binding.import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)


def test_a_surplus_tensor_is_not_lost_silently(binding: Binding, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy", "llama")
    weights = load_file(policy / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(96)
    save_file(weights, policy / "model.safetensors")
    with pytest.raises(UserError, match="no place"):
        binding.import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)


def test_a_checkpoint_without_a_layer_is_refused(binding: Binding, tmp_path: Path) -> None:
    small = write_policy(tmp_path / "small", "llama", tie_word_embeddings=True)
    large = write_policy(tmp_path / "large", "llama")
    binding.import_policy(small, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    with pytest.raises(UserError, match="output_layer"):
        binding.export_policy(tmp_path / "nemo", large, tmp_path / "back", torch.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt_neox"}, "model_type 'gpt_neox' is not supported; supported: .*llama"),
        ({"rope_parameters": None, "rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope type 'yarn'"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
    ],
)
def test_what_cannot_be_exact_is_refused(binding: Binding, tmp_path: Path, changes: dict, message: str) -> None:
    policy = write_policy(tmp_path / "policy", "llama")
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=message):
        binding.import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)


def test_pickled_weights_are_not_loaded(binding: Binding, tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy", "llama")
    (policy / "model.safetensors").rename(policy / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is a pickle"):
        binding.import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)


@pytest.mark.parametrize("change", ["fp8 without scales", "index beside", "pickle beside"])
def test_unclear_or_quantized_weights_are_refused(binding: Binding, tmp_path: Path, change: str) -> None:
    policy = write_policy(tmp_path / "policy", "llama")
    if change == "fp8 without scales":
        tensors = load_file(policy / "model.safetensors")
        for name in [name for name in tensors if "_proj" in name]:
            tensors[name] = (tensors[name] * 448 / tensors[name].abs().max()).to(torch.float8_e4m3fn)
        save_file(tensors, policy / "model.safetensors")
    elif change == "index beside":
        (policy / "model.safetensors.index.json").write_text(
            '{"weight_map": {"a": "model-00001-of-00001.safetensors"}}'
        )
    else:
        (policy / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(UserError) as refused:
        binding.import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    assert not (tmp_path / "nemo").exists()
    config = json.loads((policy / "config.json").read_text())
    with pytest.raises(UserError) as dry:
        for problem in policy_weight_problems(f"policy={policy}", policy, config):
            raise UserError(problem)
    assert str(refused.value) == str(dry.value)


def test_equal_weights_give_equal_files(binding: Binding, tmp_path: Path, small_llama: Path) -> None:
    contents = []
    for attempt in ("first", "second"):
        binding.import_policy(small_llama, tmp_path / attempt, tmp_path / "hf", torch.float32)
        files = sorted((tmp_path / attempt / WEIGHTS).iterdir())
        contents.append({path.name: path.read_bytes() for path in files})
    assert contents[0] == contents[1]


def test_the_index_of_a_checkpoint_is_canonical(binding: Binding, tmp_path: Path, small_llama: Path) -> None:
    binding.import_policy(small_llama, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    index = tmp_path / "nemo" / WEIGHTS / ".metadata"
    before = index.read_bytes()
    metadata = pickle.loads(before)  # equal strings are other objects now, and the order is turned round
    metadata.storage_data = dict(reversed(metadata.storage_data.items()))
    metadata.storage_meta = StorageMeta(save_id="another write")
    index.write_bytes(pickle.dumps(metadata))
    make_index_canonical(index)
    assert index.read_bytes() == before


def test_every_megatron_core_writes_the_file_without_which_those_before_0_19_read_nothing(imported: Path) -> None:
    assert torch.load(imported / "nemo" / WEIGHTS / "common.pt") == {"content_metadata": LAYOUT_METADATA}


def test_an_index_of_other_tensors_than_were_saved_is_refused(
    binding: Binding, tmp_path: Path, small_llama: Path
) -> None:
    binding.import_policy(small_llama, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    index = tmp_path / "nemo" / WEIGHTS / ".metadata"
    whole = pickle.loads(index.read_bytes())
    place, *_ = whole.storage_data
    surplus = whole.storage_data | {dataclasses.replace(place, fqn="optimizer.step"): whole.storage_data[place]}
    lacking = {other: where for other, where in whole.storage_data.items() if other != place}
    for places, message in ((surplus, "'optimizer.step' at .* is indexed only"), (lacking, "is saved only")):
        index.write_bytes(pickle.dumps(dataclasses.replace(whole, storage_data=places)))
        with pytest.raises(RuntimeError, match=message):
            make_index_canonical(index)
