"""The stages that export: every candidate as itself, and as the iteration's policy the chosen one."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("megatron.core")

import torch
from safetensors.torch import save_file

from nemo_sspo.artifacts.layout import HF_MODEL, NEMO_CHECKPOINT, SELECTION, RunLayout, candidate_checkpoint
from nemo_sspo.artifacts.store import publish
from nemo_sspo.artifacts.tables import portion_prompts
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.config.stages import Parallel, Selection
from nemo_sspo.errors import UserError
from nemo_sspo.megatron.batches.pairs import PairTable
from nemo_sspo.megatron.binding import Binding
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


def test_more_candidates_than_steps_are_refused(supervised: PairTable, imported: Path, tmp_path: Path) -> None:
    one = job(supervised, imported, tmp_path, Parallel())  # two epochs of three steps
    refuse_too_many_candidates(replace(one, candidates=6))
    with pytest.raises(UserError, match=r"selection.candidates=7 is more than the 6 optimizer steps of 20"):
        refuse_too_many_candidates(replace(one, candidates=7))
