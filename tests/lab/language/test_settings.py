"""Committed results are of the arms and worlds that the code has now: others are refused by their first line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from nemo_sspo.config.encoders import SentenceEncoder
from nemo_sspo.lab.language import __main__ as study
from nemo_sspo.lab.language import world
from nemo_sspo.lab.language.arms import ARMS
from nemo_sspo.lab.language.play import Size

COMMITTED = Path(__file__).parents[3] / "docs" / "lab" / "language"


def test_the_committed_results_are_of_todays_settings() -> None:
    settings = study.settings_of(Size(), SentenceEncoder(device="cpu"))
    for path in COMMITTED.glob("seed-*.jsonl"):
        with path.open() as file:
            assert json.loads(file.readline()) == settings, path.name


@pytest.mark.parametrize("changed", ["arm", "world"])
def test_another_arm_or_world_is_another_study(changed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = study.settings_of(Size(), SentenceEncoder(device="cpu"))
    if changed == "arm":
        monkeypatch.setitem(ARMS, "gate", replace(ARMS["gate"], control="permuted"))
    else:
        monkeypatch.setattr(world, "CYCLE", 0.1)
    assert study.settings_of(Size(), SentenceEncoder(device="cpu")) != before
