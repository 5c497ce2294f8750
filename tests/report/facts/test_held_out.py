"""The base's and the new policy's answers to the same held-out prompts, beside each other on the page."""

import pytest

from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.tables import ROLLOUTS
from nemo_sspo.report.blocks import SideBySide
from nemo_sspo.report.facts.held_out import held_out_sample
from nemo_sspo.report.facts.run_facts import gather
from nemo_sspo.report.render import render
from nemo_sspo.report.run_page import run_page
from tests.report.made_run import HOSTILE, WINS, half_finished_run, put, record
from tests.stages.runs import rollout_rows


@pytest.fixture
def settings(tmp_path):
    """The evaluation of `half_finished_run` has prompts a to d; the answers here are to these, in another order."""
    made = half_finished_run(tmp_path)
    layout = RunLayout(made.run_dir)
    for policy, name in ((0, "base"), (1, "new")):
        rows = rollout_rows([[f"{name} to {prompt} {HOSTILE}", "another"] for prompt in "dcba"])
        rows = [row | {"prompt_id": prompt} for prompt, row in zip("dcba", rows, strict=True)]
        put(layout, "rollout_held_out", policy, 0, tables={ROLLOUTS: rows})
    return made


def test_answers_to_one_prompt_stand_together_with_its_win_rate(settings):
    sample = held_out_sample(record(settings), 3)
    assert sample.iteration == 1
    assert [each.prompt_id for each in sample.prompts] == ["a", "b", "c"]
    assert [each.win for each in sample.prompts] == list(WINS[:3])
    for each in sample.prompts:
        assert each.base.startswith(f"base to {each.prompt_id}")
        assert each.new.startswith(f"new to {each.prompt_id}")


def test_the_page_has_them_escaped_and_in_order(settings):
    page = run_page(gather(record(settings)))
    (block,) = [b for section in page.sections for b in section.blocks if isinstance(b, SideBySide)]
    assert block.names == ("base", "iteration 1")
    assert len(block.rows) == 4
    text = render(page)
    assert text.index("base to a") < text.index("new to a") < text.index("base to b")
    assert HOSTILE not in text


def test_without_answers_there_is_nothing(settings, tmp_path):
    assert held_out_sample(record(half_finished_run(tmp_path / "other")), 3).prompts == []
    assert held_out_sample(record(settings), 0).prompts == []
