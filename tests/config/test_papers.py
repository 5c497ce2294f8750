"""The papers' presets: what they come to is written down, and none of it is a default that could be bettered."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from nemo_sspo.artifacts.changes import flat
from nemo_sspo.config.load import compose_settings, config_root, load_experiment
from nemo_sspo.config.roles import Knob, roles
from nemo_sspo.stages.runner.settings import recipe_settings

GOLDEN = Path(__file__).parents[1] / "golden" / "papers"
PAPERS = ("llama3-8b-paper", "mistral-7b-paper")
OTHERS = ("llama3-8b", "mistral-7b", "llama3-70b")
MACHINE = ("seed", "trainer", "engine.", "evaluation.", "prompts", "data.columns.", "data.held_out_prompts", "further.")
"""What a run is made with and of: no part of the method."""
IDLE = (
    *("rollout.source", "rollout.shards", "train.sgd_momentum", "train.lora_rank", "train.lora_alpha"),
    *("train.reference_check_share", "train.reference_tolerance"),
)
"""Settings without effect beside the others of these presets."""


def objective(name: str) -> dict[str, Any]:
    """The settings that decide what is trained, by dotted key."""
    experiment = load_experiment([f"experiment={name}", "prompts=[a,b,c]"])
    knobs = {key for key, role in roles(experiment).items() if isinstance(role, Knob)}
    found = recipe_settings(experiment)
    return {
        key: value
        for key, value in found.items()
        if key not in {*knobs, *IDLE} and not key.startswith(MACHINE) and key.rpartition(".")[0] not in knobs
    }


@pytest.mark.parametrize("name", PAPERS)
def test_golden(name: str) -> None:
    """NEMO_SSPO_UPDATE_GOLDEN=1 writes the files anew; a difference is another experiment under the same name."""
    path = GOLDEN / f"{name}.json"
    found = objective(name)
    if os.environ.get("NEMO_SSPO_UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(path.read_text())


@pytest.mark.parametrize("name", PAPERS)
def test_every_setting_that_changes_a_result_is_written_out(name: str) -> None:
    written = flat(compose_settings([f"experiment={name}", "prompts=[a,b,c]"]))
    assert sorted(key for key in objective(name) if key not in written) == []


def test_both_differ_in_the_policy_alone() -> None:
    llama, mistral = map(objective, PAPERS)
    assert {key for key in llama if llama[key] != mistral[key]} == {"policy"}
    assert mistral["policy"] == "mistralai/Mistral-7B-Instruct-v0.2"


@pytest.mark.parametrize("name", OTHERS)
def test_another_preset_says_where_it_leaves_the_paper(name: str) -> None:
    """Each setting that deviates is named in the comment of the method."""
    paper, other = objective("llama3-8b-paper"), load_experiment([f"experiment={name}", "prompts=p"])
    settings = recipe_settings(other) | {f"selection.{key}": value for key, value in other.selection}
    comments = "".join(
        line
        for line in (config_root() / "method/s-sppo.yaml").read_text(encoding="utf-8").splitlines(True)
        if line.lstrip().startswith("#")
    )
    deviating = {key for key, value in paper.items() if settings[key] != value} - {"policy"}
    assert {"pairs.symmetrize", "pairs.include_self", "encoder.long_text", "selection.candidates"} <= deviating
    assert sorted(key for key in deviating if key not in comments) == []
