"""The example notebook runs, and its figure is of the run: S-SPPO's Figure 2."""

from pathlib import Path

import pytest

from nemo_sspo import open_run
from tests.notebook import run_notebook
from tests.report.made_run import PROMPTS, half_finished_run

NOTEBOOK = Path(__file__).parents[2] / "docs" / "figure2.ipynb"


def test_the_figure_has_every_pair_and_the_diagnosed_means(tmp_path, monkeypatch, capsys):
    settings = half_finished_run(tmp_path)
    monkeypatch.setenv("NEMO_SSPO_RUN", str(settings.run_dir))
    namespace = run_notebook(NOTEBOOK)
    before, means, after, means_after = namespace["figure"].data
    assert len(before.x) == len(before.y) == len(after.y) == 3 * PROMPTS
    table = open_run(settings.run_dir).diagnostics(1).similarity_margin[0]
    assert (table.gate, list(means.y)) == ("none", [each.mean_margin for each in table.bins])
    assert list(means.x) == pytest.approx([(each.low + each.high) / 2 for each in table.bins])
    # The gate's weight is 1 at similarity 0 and 0 at 1.
    left = [n for n, similarity in enumerate(before.x) if similarity == 1]
    assert left
    assert all(after.y[n] == 0 for n in left)
    assert means_after.y != means.y
    assert f"{3 * PROMPTS} response pairs" in capsys.readouterr().out
    assert len(namespace["pairs"]) == PROMPTS - 1
