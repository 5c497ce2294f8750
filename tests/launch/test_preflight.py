"""What is wrong with a run's inputs is said before anything starts, in one line each."""

import json
import os
import shutil
import sys
from collections import namedtuple

import pytest

from nemo_sspo.config.load import load_experiment
from nemo_sspo.launch import preflight
from nemo_sspo.launch.checks import environments as check_environments
from nemo_sspo.megatron.models.families import FAMILIES
from tests import processor_time
from tests.json_edit import edit
from tests.launch.ready_run import found, only, write_prompts
from tests.launch.tiny_models import POLICY_TENSORS, write_tensors

Usage = namedtuple("Usage", "total used free")


def test_nothing_is_wrong_with_a_right_run_and_nothing_is_left_behind(place):
    before = sorted(place.rglob("*"))
    assert found() == []
    assert sorted(place.rglob("*")) == before


def test_under_a_second(place):
    write_prompts(place / "prompts.jsonl", 20_000)
    assert found() == []
    assert processor_time.of_call(found) < 1.0


def test_prompts(place):
    assert "no such file; check prompts=..." in only("prompts=absent.jsonl")
    assert "no such file; check data.held_out_prompts=..." in only("data.held_out_prompts=absent.jsonl")
    (place / "empty.jsonl").write_text("\n")
    assert "holds no prompt" in only("prompts=empty.jsonl")
    (place / "bad.jsonl").write_text('{"prompt": "a"}\n{"prompt": \n')
    assert only("prompts=bad.jsonl").startswith("bad.jsonl line 2: not JSON")
    (place / "twice.jsonl").write_text('{"prompt": "a"}\n' * 2)
    assert "the same prompt as twice.jsonl line 1" in only("prompts=twice.jsonl")


def test_a_prompt_over_the_limit_is_named_by_its_line(place):
    write_prompts(place / "long.jsonl", 30)
    with (place / "long.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "x" * 505}) + "\n" + json.dumps({"prompt": "y" * 504}) + "\n")
    assert only("prompts=long.jsonl").startswith("long.jsonl line 31: 513 tokens with the chat template")
    assert found("prompts=long.jsonl", "data.max_prompt_tokens=600") == []
    assert found("prompts=long.jsonl", "data.overlong_prompts=drop") == []


def test_too_few_prompts(place):
    assert only("data.held_out_count=29") == (
        "prompts.jsonl: 30 prompts are too few for data.held_out_count=29 and iterations=2; "
        "give more prompts or lower these"
    )
    assert found("data.held_out_count=28") == []
    assert only("selection.candidates=2", "selection.prompts=24") == (
        "prompts.jsonl: 30 prompts are too few for data.held_out_count=5 and selection.prompts=24 and iterations=2; "
        "give more prompts or lower these"
    )


def test_more_candidates_than_steps(place):
    """30 prompts, of which 5 are kept to evaluate and 5 to choose by: 10 an iteration, 3 steps of 4 twice over."""
    small = ("selection.prompts=5", "train.global_batch_size=4", "train.micro_batch_size=1", "train.train_epochs=2")
    assert found("selection.candidates=6", *small) == []
    assert only("selection.candidates=7", *small) == (
        "selection.candidates=7 is more than the 6 optimizer steps of an iteration of 10 prompts; lower it or "
        "train.global_batch_size, or raise train.train_epochs"
    )
    assert "rollout.shards=13 is more than the 12 prompts" in only("rollout.shards=13")
    assert found("rollout.shards=12") == []
    # held-out prompts from a file of their own, as many as are evaluated, are taken out of the training prompts
    write_prompts(place / "held.jsonl", 29)
    held_out = "data.held_out_prompts=held.jsonl"
    assert "30 prompts are too few for iterations=2" in only(held_out, "data.held_out_count=29")
    assert found(held_out, "data.held_out_count=28") == []


def test_hub_ids_are_left_to_the_stages(place):
    online = "cluster.rollout.variables.HF_HUB_OFFLINE=0"
    assert found("policy=org/model", "oracle.path=llm-blender/PairRM", "encoder.path=org/encoder", online) == []
    assert only("policy=/no/such").startswith("policy=/no/such: no such directory")
    assert only("policy=prompts.jsonl") == "policy=prompts.jsonl: is a file; give the directory of a model"


@pytest.mark.parametrize("setting", ["policy", "oracle.path"])
def test_a_model_directory_without_config(place, setting):
    (place / "bare").mkdir()
    assert "no config.json" in only(f"{setting}=bare")


def test_policy_architecture(place):
    edit(place / "policy" / "config.json", model_type="gpt2")
    assert only() == (
        f"policy/config.json: model_type 'gpt2' is not supported; supported: {', '.join(sorted(FAMILIES))}"
    )
    (place / "policy" / "config.json").write_text("{")
    assert "not valid JSON" in found()[0]


def test_policy_weights(place):
    weights = place / "policy" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    assert "cut short" in only()
    weights.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    assert "not a safetensors file, or cut short" in only()
    weights.unlink()
    assert "no model.safetensors" in only()
    (place / "policy" / "pytorch_model.bin").write_bytes(b"")
    assert "pytorch_model.bin is a pickle and is never loaded" in only()


def test_a_missing_part_of_the_weights_is_named(place):
    policy = place / "policy"
    (policy / "model.safetensors").unlink()
    first, second = dict(list(POLICY_TENSORS.items())[:20]), dict(list(POLICY_TENSORS.items())[20:])
    write_tensors(policy / "model-00001-of-00002.safetensors", first)
    parts = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (policy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": parts}))
    assert "model-00002-of-00002.safetensors is named" in only()
    write_tensors(policy / "model-00002-of-00002.safetensors", second)
    assert found() == []


def test_weights_that_the_import_refuses(place):
    policy = place / "policy"
    edit(policy / "config.json", quantization_config={"quant_method": "fp8"})
    assert only().startswith("policy=policy: a quantized policy is not trained (quantization_config in config.json)")
    edit(policy / "config.json", quantization_config=None)
    (policy / "pytorch_model.bin").write_bytes(b"")
    assert only().startswith("policy=policy: pytorch_model.bin lies beside model.safetensors")
    (policy / "pytorch_model.bin").unlink()
    (policy / "adapter_model.safetensors").symlink_to("gone")
    assert only().startswith("policy=policy: adapter_model.safetensors lies beside model.safetensors")
    (policy / "adapter_model.safetensors").unlink()
    (policy / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "model-1.safetensors"}}))
    assert "names other files than the model.safetensors beside it" in only()


def test_policy_tokenizer_and_chat_template(place):
    policy = place / "policy"
    end = {"eos_token": "<|end|>"}
    (policy / "tokenizer_config.json").write_text(json.dumps(end))
    assert "no chat template" in only()
    (policy / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    assert found() == []
    (policy / "chat_template.jinja").write_text(
        "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
    )  # transformers' own
    assert found() == []
    (policy / "chat_template.jinja").write_text("{% for m in messages %}\n{{ m }")
    assert "chat_template.jinja: the chat template cannot be read (unexpected '}', its line 2)" in only()
    (policy / "chat_template.jinja").unlink()
    (policy / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": [{"name": "default", "template": "{% if %}"}]})
    )
    assert "tokenizer_config.json: the chat template cannot be read" in only()
    (policy / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}"}))
    assert "its chat template leaves out what was said" in only()
    whole = (policy / "tokenizer.json").read_text()
    (policy / "tokenizer.json").write_text(whole[:-9])
    assert "tokenizer.json: not valid JSON" in only()
    (policy / "tokenizer.json").unlink()
    assert "no tokenizer" in only()
    (policy / "tekken.json").write_text("{}")
    assert "tekken.json: how it splits a text cannot be checked here" in only()
    (policy / "vocab.json").write_text('{"a": 0}')
    (policy / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CTRLTokenizer"}))
    assert "vocab.json: the rules of CTRLTokenizer for it cannot be checked here" in only()


@pytest.mark.parametrize(
    ("change", "overrides", "named"),
    [
        ({}, ("parallel.tensor=4",), "num_key_value_heads=2 does not divide over parallel.tensor=4"),
        ({"num_hidden_layers": None}, (), "'num_hidden_layers' is missing"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, (), "rope type 'yarn' is not supported"),
        ({}, ("train.peft=lora", "train.lora_rank=3"), "train.lora_rank=3 does not divide over parallel.tensor=2"),
    ],
)
def test_what_training_would_refuse_of_policy_and_layout(place, change, overrides, named):
    edit(place / "policy" / "config.json", **change)
    assert named in only(*overrides)


def test_encoder_and_environments(place):
    assert "lacks no_such_encoder" in only("encoder.path=package:no_such_encoder")
    assert found("encoder.path=encoder") == []
    (place / "encoder" / "modules.json").unlink()
    (place / "encoder" / "config.json").unlink()
    for path in ("encoder", "package:tests.launch.tiny_encoder"):  # which is asked in its environment
        assert only(f"encoder.path={path}") == (
            f"encoder.path={path}: neither modules.json nor config.json; give a sentence-transformers model"
        )
    assert "the package json has no get_model_path()" in only("encoder.path=package:json")
    (place / "encoder" / "config.json").write_text('{"auto_map": {}}')
    assert "give encoder.trust_remote_code=true" in only("encoder.path=encoder")
    assert found("encoder.path=encoder", "encoder.trust_remote_code=true") == []
    (place / "encoder" / "config.json").write_text("{}")
    for text, named in (
        (b"{", "not valid JSON"),
        (b"\xff\xfe[", "not valid JSON"),
        (b"[3]", "expected a list of the mo"),
    ):
        (place / "encoder" / "modules.json").write_bytes(text)
        assert f"encoder/modules.json: {named}" in found("encoder.path=encoder")[-1]
    modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in ("Transformer", "Pooling")]
    (place / "encoder" / "modules.json").write_text(json.dumps(modules))
    assert found("encoder.path=encoder") == []
    (place / "encoder" / "vocab.txt").write_text("[UNK]\n")
    assert "encoder/vocab.txt: the rules of a class that" in only("encoder.path=encoder")
    (place / "encoder" / "vocab.txt").unlink()
    assert "prompt_name=sts: the model has no such prompt" in only("encoder.path=encoder", "encoder.prompt_name=sts")
    (place / "encoder" / "modules.json").write_text(json.dumps(modules[:1]))
    assert "modules.json has no Pooling" in only("encoder.path=encoder")
    (place / "encoder" / "modules.json").write_text(json.dumps([*modules, {"type": "own.Pooling"}]))
    assert "give encoder.trust_remote_code=true" in only("encoder.path=encoder")
    for preset in ("jina_v3", "nomic_v1_5"):
        path = load_experiment(["experiment=quickstart", f"encoder={preset}"]).encoder.path
        assert "give encoder.trust_remote_code=true" in only(
            f"encoder={preset}", f"encoder.path={path}", "cluster.rollout.variables.HF_HUB_OFFLINE=0"
        )
    problem = only("cluster.train.python=/no/such/python")
    assert problem.startswith("cluster.train.python=/no/such/python: no such interpreter")
    assert "NEMO_SSPO_TRAIN_PYTHON" in problem
    assert "does not start as a Python interpreter" in only("cluster.train.python=/bin/false")


def test_versions_that_no_trainer_takes(place):
    core = place / "megatron" / "core"
    core.mkdir(parents=True)
    (core / "__init__.py").write_text("import no_such_package")  # not imported to look
    (core / "package_info.py").write_text("__version__ = '0.14.9'")
    refused = f"cluster.train.python={sys.executable}: megatron-core 0.14.9 is not supported"
    assert only("trainer=core").startswith(refused)
    assert only("trainer=auto").startswith(refused)


@pytest.mark.parametrize("setting", ["prompts", "data.held_out_prompts", "rollout.source", "evaluation.labelled_pairs"])
def test_a_data_set_id_needs_a_package_that_not_every_environment_has(place, monkeypatch, setting):
    monkeypatch.setattr(check_environments, "DATA_SET_PACKAGE", "json")
    assert found(f"{setting}=owner/name:train") == []
    monkeypatch.setattr(check_environments, "DATA_SET_PACKAGE", "no_such_reader")
    assert found() == []
    assert only(f"{setting}=owner/name:train") == (
        f"cluster.rollout.python={sys.executable}: lacks no_such_reader; {sys.executable} -m pip install "
        "no_such_reader, or PYTHONPATH for code of your own"
    )


def test_fp8_on_a_cpu(place):
    assert only("precision=fp8").startswith("precision=fp8 needs Hopper-class GPUs")
    assert found("precision=bf16") == []
    assert only("engine.quantization=fp8").startswith("engine.quantization=fp8 needs a GPU")


@pytest.fixture
def torch_build(tmp_path, monkeypatch):
    """Gives the environments a torch that is built for a version of CUDA, or for none."""
    torch = tmp_path / "site" / "torch"
    torch.mkdir(parents=True)
    (torch / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.setenv("PYTHONPATH", f"{torch.parent}:{os.environ['PYTHONPATH']}")
    return lambda cuda: (torch / "version.py").write_text(
        f"from typing import Optional\ncuda: Optional[str] = {cuda!r}\n"
    )


@pytest.mark.usefixtures("eight_gpus")
def test_a_gpu_training_without_transformer_engine_is_refused_before_anything_is_sampled(
    place, torch_build, monkeypatch
):
    torch_build("12.8")
    gpus = ("cluster.gpus=4", "cluster.launcher=torchrun", "precision=bf16")
    monkeypatch.setattr(check_environments, "LAYERS_PACKAGE", "no_such_layers")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert "lacks no_such_layers; README.md has its install line; train.layers=local takes" in "\n".join(found(*gpus))
    assert not any("no_such_layers" in line for line in found(*gpus, "train.layers=local"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not any("no_such_layers" in line for line in found(*gpus))  # planned away from the GPUs


@pytest.mark.usefixtures("eight_gpus")
def test_gpus(place, torch_build, monkeypatch):
    torch_build("12.8")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert only("cluster.gpus=null").startswith("no GPU is visible")
    assert only("cluster.gpus=null").endswith("cluster.gpus=4 plans for a machine that has as many")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert "takes 4 GPUs and 3 are visible" in only("cluster.gpus=null")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    assert found("cluster.gpus=null") == []
    assert "takes 4 GPUs and 2 are visible" in only("cluster.gpus=2")


@pytest.mark.usefixtures("eight_gpus")
def test_a_processors_torch_beside_gpus(place, torch_build, monkeypatch):
    """Its stages would run on the processor, without a word. A plan for GPUs elsewhere may be made with it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    torch_build(None)
    problems = found("cluster.gpus=null")
    assert [problem.partition("=")[0] for problem in problems] == ["cluster.train.python", "cluster.rollout.python"]
    assert "its torch is built without CUDA" in problems[0]
    assert "NEMO_SSPO_TRAIN_PYTHON names another" in problems[0]
    assert found() == []  # the quickstart's processor is meant
    torch_build("12.8")
    assert found("cluster.gpus=null") == []
    torch_build(None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert found("cluster.gpus=4") == []


def test_a_disk_that_is_too_small(place, monkeypatch):
    weights = (place / "policy" / "model.safetensors").stat().st_size
    needed = 5 * weights + preflight.HEADROOM_BYTES  # import, and training and export in two iterations
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(needed, 1, needed - 1))
    assert "GiB free, and the run publishes at least" in only()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(needed, 0, needed))
    assert found() == []


def test_a_run_directory_that_cannot_be_made(place):
    (place / "file").write_text("")
    assert "is a file" in only("runs_dir=file/runs")
    if os.geteuid() != 0:
        (place / "closed").mkdir(mode=0o500)
        assert "not writable" in only("runs_dir=closed/runs")


def test_absent_quickstart_assets_name_the_command_that_makes_them(place):
    (problem, *_) = found("policy=assets/toy/policy")
    assert "`make assets` makes the small policy and oracle of the quickstart" in problem


def test_all_problems_are_collected(place):
    result = found("prompts=absent.jsonl", "policy=/no/such", "cluster.train.python=/no/such/python")
    assert [line.split("=")[0].split(":")[0] for line in result] == ["absent.jsonl", "policy", "cluster.train.python"]


@pytest.mark.parametrize("setting", ["policy", "prompts", "oracle.path", "encoder.path", "data.held_out_prompts"])
def test_a_name_that_no_file_system_takes(place, setting):
    name = "x" * 300
    lines = found(f"{setting}={name}", "cluster.rollout.variables.HF_HUB_OFFLINE=0")
    assert any(line.startswith(f"{name}: File name too long") for line in lines)


def test_links_that_lead_nowhere(place):
    (place / "loop").symlink_to("loop")
    assert only("policy=loop/x/y").startswith("policy=loop/x/y: no such directory")
    assert only("runs_dir=loop").startswith(f"{place}/loop: a link that leads nowhere; give another runs_dir")


def test_what_is_no_file_is_not_waited_for(place):
    os.mkfifo(place / "pipe.jsonl")
    assert "pipe.jsonl: not a file" in only("prompts=pipe.jsonl")
    (place / "folder").mkdir()
    (place / "folder" / "p.jsonl").symlink_to("/dev/zero")
    assert "p.jsonl: not a file" in only("prompts=folder")


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b'{"prompt": "' + b"word " * 10_000_000 + b'"}', "more than "),
        (b'{"prompt": "' + b"x" * 70_000_000 + b'"}', "more than 67108864 bytes"),
        (b'{"messages": [' + b'{"role": "user", "content": "a"},' * 20_000 + b"1]}", "20001 messages, more than"),
        (b"{" + b", ".join(b'"k%d": 1' % number for number in range(300_000)) + b"}", "neither `prompt`"),
    ],
)
def test_a_line_of_megabytes(place, line, named):
    (place / "long.jsonl").write_bytes((place / "prompts.jsonl").read_bytes() + line + b"\n")
    problem = only("prompts=long.jsonl")
    assert problem.startswith("long.jsonl line 31")
    assert named in problem
    assert len(problem) < 600
