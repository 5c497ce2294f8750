"""The stages that export: every candidate as itself, and as the iteration's policy the chosen one."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch
from safetensors.torch import load_file, save_file

from nemo_sspo.artifacts.layout import (
    HF_MODEL,
    NEMO_CHECKPOINT,
    PEFT_ADAPTER,
    SELECTION,
    RunLayout,
    candidate_checkpoint,
)
from nemo_sspo.artifacts.store import publish
from nemo_sspo.artifacts.tables import portion_prompts
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.stages import Parallel, Selection, Train
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding
from nemo_sspo.megatron.checkpoints.adapter_files import join_parts, save_part
from nemo_sspo.megatron.models.hf_files import SafetensorsDirectory
from nemo_sspo.stages.training.train import refuse_too_many_candidates
from tests.megatron.worlds import job, write_policy
from tests.report.made_selection import SELECTION as CHOSEN_FIRST
from tests.some_facts import some_facts
from tests.stages import runs


@pytest.fixture(scope="module")
def other(binding: Binding, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The imported policy with 1 added to every weight."""
    directory = tmp_path_factory.mktemp("other")
    policy = write_policy(directory / "policy", "llama")
    tensors = {name: tensor + 1 for name, tensor in dict(SafetensorsDirectory(policy)).items()}
    save_file(tensors, policy / "model.safetensors")
    binding.import_policy(policy, directory / "nemo", directory / "hf", torch.float32)
    return directory


def put(settings: Experiment, stage: str, files: dict[str, Path | str], **counts: object) -> None:
    iteration = 0 if stage == "prepare_prompts" else 1
    final = RunLayout(settings.run_dir).artifact(stage, iteration)
    final.parent.mkdir(parents=True, exist_ok=True)
    with publish(final, stage=stage, iteration=iteration, config={}, inputs={}) as draft:
        draft.facts = some_facts(**counts)
        for name, content in files.items():
            (draft.path / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                (draft.path / name).write_text(content)
            else:
                shutil.copytree(content, draft.path / name)


def test_the_chosen_candidate_is_the_iterations_policy(
    trainer: str, binding: Binding, imported: Path, other: Path, tmp_path: Path
) -> None:
    settings = runs.experiment(tmp_path, trainer=trainer, selection=Selection(candidates=2))
    first, last = candidate_checkpoint(0, 2), candidate_checkpoint(1, 2)
    assert last == NEMO_CHECKPOINT != first
    trained = {first: imported / "nemo", last: other / "nemo", HF_MODEL: imported / "hf"}
    put(settings, "train", trained, steps=20)
    put(settings, "build_pairs", {}, pairs=4)
    put(settings, "prepare_prompts", {portion_prompts(1).file: "p"}, prompts=9, held_out=3)
    put(settings, "select_model", {SELECTION: CHOSEN_FIRST.model_dump_json()})

    exported = [runs.run_stage(settings, "export_candidate", 1, shard) for shard in (0, 1)]
    policy = runs.run_stage(settings, "export", 1)
    weights = [dict(SafetensorsDirectory(each.file(HF_MODEL))) for each in (*exported, policy)]
    for truth, found in ((imported, weights[0]), (other, weights[1]), (imported, weights[2])):
        binding.export_policy(truth / "nemo", imported / "hf", tmp_path / truth.name, torch.float32)
        expected = dict(SafetensorsDirectory(tmp_path / truth.name))
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert not torch.equal(weights[0]["model.norm.weight"], weights[1]["model.norm.weight"])
    assert CHOSEN_FIRST.reason in (policy.file(HF_MODEL) / "README.md").read_text()
    assert not (exported[0].file(HF_MODEL) / "README.md").exists()


def test_an_adapter_is_exported_beside_the_merged_weights_where_it_is_asked_for(
    trainer: str, imported: Path, tmp_path: Path
) -> None:
    trained = tmp_path / "trained"
    shutil.copytree(imported / "nemo", trained)
    hidden = json.loads((imported / "hf" / "config.json").read_text())["hidden_size"]
    name, a, b = "decoder.layers.0.self_attention.linear_proj", torch.ones(2, 4), torch.ones(hidden, 2)
    save_part({name: (a, b)}, trained)
    join_parts(trained, tmp_path, from_base=True)
    for asked in (False, True):
        lora = Train(peft="lora", lora_rank=2, lora_alpha=3.0, export_adapter=asked)
        settings = runs.experiment(tmp_path / str(asked), trainer=trainer, policy="the/base", train=lora)
        put(settings, "train", {NEMO_CHECKPOINT: trained, HF_MODEL: imported / "hf"}, steps=20)
        put(settings, "build_pairs", {}, pairs=4)
        put(settings, "prepare_prompts", {portion_prompts(1).file: "p"}, prompts=9, held_out=3)
        adapter = runs.run_stage(settings, "export", 1).path / PEFT_ADAPTER
        assert adapter.exists() is asked
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == ("the/base", 2, 3.0)
    assert config["target_modules"] == ["o_proj"]
    key = "base_model.model.model.layers.0.self_attn.o_proj.lora_{}.weight"
    assert {name: tensor.shape for name, tensor in load_file(adapter / "adapter_model.safetensors").items()} == {
        key.format("A"): a.shape,
        key.format("B"): b.shape,
    }


def test_more_candidates_than_steps_are_refused(supervised: PairTable, imported: Path, tmp_path: Path) -> None:
    one = job(supervised, imported, tmp_path, Parallel())  # two epochs of three steps
    refuse_too_many_candidates(replace(one, candidates=6))
    with pytest.raises(UserError, match=r"selection.candidates=7 is more than the 6 optimizer steps of 20"):
        refuse_too_many_candidates(replace(one, candidates=7))
