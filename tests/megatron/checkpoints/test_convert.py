from __future__ import annotations

import dataclasses
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nemo.collections.llm")

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.checkpoint.metadata import StorageMeta
from transformers import AutoConfig, AutoModelForCausalLM

from nemo_sspo.artifacts.sources.weight_files import policy_weight_problems
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.checkpoints import convert
from nemo_sspo.megatron.checkpoints.weights import WEIGHTS, make_index_canonical, one_rank
from nemo_sspo.megatron.models.families import FAMILIES, read_hf_config
from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory, copy_side_files, write_tensors
from nemo_sspo.megatron.models.weight_map import Shape, to_megatron
from nemo_sspo.megatron.nemo.convert import export_policy, import_policy
from nemo_sspo.megatron.nemo.model_config import host_config
from tests.megatron.worlds import GEMMA2, VOCAB, write_policy

POLICIES = {
    "llama": ("llama", {}),
    "llama_3.1": (
        "llama",
        {
            "rope_theta": 500000.0,
            "max_position_embeddings": 512,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
    ),
    "llama_tied": ("llama", {"tie_word_embeddings": True}),
    "mistral": ("mistral", {"sliding_window": None}),
    "mistral_window": ("mistral", {"sliding_window": 5}),
    "qwen2": ("qwen2", {"head_dim": 16}),
    "qwen2_tied": ("qwen2", {"head_dim": 16, "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {}),
    # Of 4 layers the upper two have the window.
    "qwen3_window": ("qwen3", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 2}),
    # Caps that bite, a window shorter than the sequence, a scale of queries that is not the head size's.
    "gemma2": ("gemma2", GEMMA2),
    "gemma2_uncapped": ("gemma2", GEMMA2 | {"attn_logit_softcapping": None, "final_logit_softcapping": None}),
}


def test_every_family_is_tried() -> None:
    assert {model_type for model_type, _ in POLICIES.values()} == FAMILIES.keys()


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_round_trip_is_exact(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    model_type, changes = POLICIES[name]
    policy = write_policy(tmp_path / "policy", model_type, **changes, torch_dtype=dtype)
    imported = import_policy(policy, tmp_path / "nemo", tmp_path / "hf", dtype)
    exported = export_policy(tmp_path / "nemo", tmp_path / "hf", tmp_path / "back", dtype)
    before, after = (load_file(path / "model.safetensors") for path in (policy, tmp_path / "back"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before)
    assert imported == exported == sum(tensor.numel() for tensor in before.values())
    was, is_ = (json.loads((path / "config.json").read_text()) for path in (policy, tmp_path / "back"))
    assert was == is_


def megatron_logits(policy: Path, tokens_BS: torch.Tensor) -> torch.Tensor:
    model = host_config(policy, torch.float32).configure_model(tokenizer=None).eval()
    state = to_megatron(SafetensorsDirectory(policy), Shape.of(read_hf_config(policy)), what="policy")
    model.load_state_dict(state, strict=False)
    return model(tokens_BS, torch.arange(tokens_BS.shape[1]).expand_as(tokens_BS), None)


@pytest.mark.parametrize("name", POLICIES)
def test_megatron_logits_are_hugging_faces(tmp_path: Path, name: str) -> None:
    model_type, changes = POLICIES[name]
    policy = write_policy(tmp_path, model_type, **changes)
    tokens_BS = torch.randint(0, VOCAB, (2, 19), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(policy, attn_implementation="eager")(tokens_BS).logits
        with one_rank():
            found = megatron_logits(policy, tokens_BS)
    torch.testing.assert_close(found[..., :VOCAB], expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", ["llama", "mistral_window", "qwen3_window"])
def test_what_a_config_leaves_out_of_windows_is_hugging_faces(tmp_path: Path, name: str) -> None:
    """A key that is missing has the family's default, and one that the family does not read has no effect."""
    model_type, changes = POLICIES[name]
    policy = write_policy(tmp_path, model_type, **changes)
    config = json.loads((policy / "config.json").read_text())
    for key in ("use_sliding_window", "sliding_window", "max_window_layers", "layer_types"):
        config.pop(key, None)
    (policy / "config.json").write_text(json.dumps(config | ({"sliding_window": 5} if name == "llama" else {})))
    theirs = AutoConfig.from_pretrained(policy)
    window = host_config(policy, torch.float32).window_size
    assert window == ((4095, 0) if model_type == "mistral" else None)
    assert (theirs.sliding_window if model_type != "llama" else None) == (4096 if window else None)


def test_a_missing_tensor_is_named(tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy", "llama")
    weights = load_file(policy / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, policy / "model.safetensors")
    with pytest.raises(UserError, match=r"model\.layers\.2\.mlp\.up_proj\.weight' is missing"):
        import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)


def test_a_surplus_tensor_is_not_lost_silently(tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy", "llama")
    weights = load_file(policy / "model.safetensors")
    weights["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(96)
    save_file(weights, policy / "model.safetensors")
    with pytest.raises(UserError, match="no place"):
        import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)


def test_a_checkpoint_without_a_layer_is_refused(tmp_path: Path) -> None:
    small = write_policy(tmp_path / "small", "llama", tie_word_embeddings=True)
    large = write_policy(tmp_path / "large", "llama")
    import_policy(small, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    with pytest.raises(UserError, match="output_layer"):
        export_policy(tmp_path / "nemo", large, tmp_path / "back", torch.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt_neox"}, "model_type 'gpt_neox' is not supported; supported: .*llama"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "rope type 'yarn'"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"num_hidden_layers": None}, "num_hidden_layers"),
    ],
)
def test_what_cannot_be_exact_is_refused(tmp_path: Path, changes: dict, message: str) -> None:
    policy = write_policy(tmp_path / "policy", "llama")
    config = json.loads((policy / "config.json").read_text())
    (policy / "config.json").write_text(json.dumps(config | changes))
    with pytest.raises(UserError, match=message):
        import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)


def test_pickled_weights_are_not_loaded(tmp_path: Path) -> None:
    policy = write_policy(tmp_path / "policy", "llama")
    (policy / "model.safetensors").rename(policy / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"pytorch_model\.bin is a pickle"):
        import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)


def test_rope_theta_of_transformers_5_is_read(tmp_path: Path) -> None:
    policy = write_policy(tmp_path, "llama")
    config = json.loads((policy / "config.json").read_text())
    del config["rope_theta"], config["rope_scaling"]
    config["rope_parameters"] = {"rope_type": "default", "rope_theta": 7e5}
    (policy / "config.json").write_text(json.dumps(config))
    assert host_config(policy, torch.float32).rotary_base == 7e5


def test_sharded_weights_read_back(tmp_path: Path) -> None:
    tensors = {f"t{number}": torch.randn(10, number + 1) for number in range(5)}
    (tmp_path / "config.json").write_text("{}")
    write_tensors(tensors, tmp_path, shard_bytes=250)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    directory = SafetensorsDirectory(tmp_path)
    assert directory.keys() == tensors.keys()
    assert all(torch.equal(directory[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_every_exported_file_has_the_permissions_of_a_new_file(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        (tmp_path / "config.json").write_text("{}")
        write_tensors({f"t{number}": torch.zeros(10, number + 1) for number in range(5)}, tmp_path, shard_bytes=250)
        write_tensors({"t": torch.zeros(2)}, tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert len(modes) > 3
    assert set(modes.values()) == {0o666 & ~umask}


def test_what_the_export_needs_travels_and_nothing_else(tmp_path: Path) -> None:
    """An adapter's configuration would send a loader to another model, a stale index to other weights."""
    needed = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model"}
    needed |= {"special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja"}
    needed |= {"additional_chat_templates/tool_use.jinja", "qwen.tiktoken", "LICENSE", "USE_POLICY.md"}
    others = {"adapter_config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json", "params.json"}
    others |= {"trainer_state.json", "training_args.json", "all_results.json", "hf_quant_config.json", "README.md"}
    others |= {"notes.txt", "modeling.py", "optimizer.pt", "model.safetensors", "LICENSES/MIT.txt"}
    for name in needed | others:
        (tmp_path / "from" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "from" / name).write_text(name)
    copy_side_files(tmp_path / "from", tmp_path / "to")
    copied = {path.relative_to(tmp_path / "to").as_posix() for path in (tmp_path / "to").rglob("*") if path.is_file()}
    assert copied == needed


@pytest.mark.parametrize("change", ["fp8 without scales", "index beside", "pickle beside"])
def test_unclear_or_quantized_weights_are_refused(tmp_path: Path, change: str) -> None:
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
        import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    assert not (tmp_path / "nemo").exists()
    config = json.loads((policy / "config.json").read_text())
    with pytest.raises(UserError) as dry:
        for problem in policy_weight_problems(f"policy={policy}", policy, config):
            raise UserError(problem)
    assert str(refused.value) == str(dry.value)


def test_equal_weights_give_equal_files(tmp_path: Path, policy: Path) -> None:
    contents = []
    for attempt in ("first", "second"):
        import_policy(policy, tmp_path / attempt, tmp_path / "hf", torch.float32)
        files = sorted((tmp_path / attempt / WEIGHTS).iterdir())
        contents.append({path.name: path.read_bytes() for path in files})
    assert contents[0] == contents[1]


def test_the_index_of_a_checkpoint_is_canonical(tmp_path: Path, policy: Path) -> None:
    import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    index = tmp_path / "nemo" / WEIGHTS / ".metadata"
    before = index.read_bytes()
    metadata = pickle.loads(before)  # equal strings are other objects now, and the order is turned round
    metadata.storage_data = dict(reversed(metadata.storage_data.items()))
    metadata.storage_meta = StorageMeta(save_id="another write")
    index.write_bytes(pickle.dumps(metadata))
    make_index_canonical(index)
    assert index.read_bytes() == before


def test_an_index_of_other_tensors_than_were_saved_is_refused(tmp_path: Path, policy: Path) -> None:
    import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    index = tmp_path / "nemo" / WEIGHTS / ".metadata"
    whole = pickle.loads(index.read_bytes())
    place, *_ = whole.storage_data
    surplus = whole.storage_data | {dataclasses.replace(place, fqn="optimizer.step"): whole.storage_data[place]}
    lacking = {other: where for other, where in whole.storage_data.items() if other != place}
    for places, message in ((surplus, "'optimizer.step' at .* is indexed only"), (lacking, "is saved only")):
        index.write_bytes(pickle.dumps(dataclasses.replace(whole, storage_data=places)))
        with pytest.raises(RuntimeError, match=message):
            make_index_canonical(index)


def test_the_model_that_is_saved_has_the_tensors_that_were_read(
    tmp_path: Path, policy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no copies of them, which would take the policy's size in host memory once more."""
    read: dict[str, torch.Tensor] = {}
    saved: dict[str, torch.Tensor] = {}

    def reading(*args: Any, **how: Any) -> dict[str, torch.Tensor]:
        read.update(to_megatron(*args, **how))
        return read

    monkeypatch.setattr(convert, "to_megatron", reading)
    monkeypatch.setattr(convert, "save_weights", lambda modules, _: saved.update(modules[0].state_dict()))
    import_policy(policy, tmp_path / "nemo", tmp_path / "hf", torch.float32)
    assert {name: saved[name].data_ptr() for name in read} == {name: read[name].data_ptr() for name in read}
