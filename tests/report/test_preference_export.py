"""Exported pairs say what they were trained on, and which of their responses never ended."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.tables import PAIRS
from nemo_sspo.config.gates import NoGate
from nemo_sspo.errors import UserError
from nemo_sspo.report.preference_export import SCHEMAS, export_pairs
from tests.stages.runs import (
    experiment,
    publish_prompts,
    publish_rollout,
    publish_scores,
    publish_vectors,
    rollout_rows,
    run_stage,
    score_rows,
)

TEXTS = (["good", "bad"], ["cut off", "better"], ["worse", "best"])
SCORES = ([1.0, 0.0], [0.0, 2.0], [-1.0, 1.0])


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    """Three pairs; of the second the rejected response was cut at the longest length."""
    settings = experiment(tmp_path, gate=NoGate())
    rows = rollout_rows(TEXTS)
    rows[1]["responses"][0]["finish_reason"] = "length"
    publish_prompts(settings)
    publish_rollout(settings, rows)
    publish_scores(settings, score_rows(rows, np.array([[[a - b for b in each] for a in each] for each in SCORES])))
    ids = [response["response_id"] for row in rows for response in row["responses"]]
    publish_vectors(settings, {id_: np.eye(len(ids))[place] for place, id_ in enumerate(ids)})
    run_stage(settings, "build_pairs")
    return RunLayout(settings.run_dir)


def exported(layout: RunLayout, form: str = "trl", unfinished: str = "keep") -> list[dict]:
    output = layout.root / f"{form}-{unfinished}"
    export_pairs(layout, None, form, output, unfinished)  # type: ignore[arg-type]
    table = pq.read_table(output / "train.parquet")
    assert table.schema.equals(SCHEMAS[form])  # type: ignore[index]
    return table.to_pylist()


def test_a_pair_says_which_of_its_responses_ended(layout: RunLayout) -> None:
    rows = {row["prompt"][0]["content"]: row for row in exported(layout)}
    chosen = {name: (row["chosen"][0]["content"], row["rejected"][0]["content"]) for name, row in rows.items()}
    assert chosen == {"0": ("good", "bad"), "1": ("better", "cut off"), "2": ("best", "worse")}
    ends = {name: (row["finish_reason_chosen"], row["finish_reason_rejected"]) for name, row in rows.items()}
    assert ends == {"0": ("stop", "stop"), "1": ("stop", "length"), "2": ("stop", "stop")}
    assert rows["1"]["finish_reasons"] == ["length", "stop"]
    targets = {row["prompt_id"]: row for row in PAIRS.read(layout.artifact("build_pairs", 1)).to_pylist()}
    for row in rows.values():
        of_training = targets[row["prompt_id"]]
        assert [row[name] for name in ("target_chosen", "target_rejected")] == [
            of_training[name] for name in ("target_chosen", "target_rejected")
        ]
        assert row["score_chosen"] == max(row["scores"]) > row["score_rejected"] == min(row["scores"])


def test_the_other_formats_have_the_same_pairs(layout: RunLayout) -> None:
    trl, hf, sppo = (exported(layout, form) for form in ("trl", "hf", "sppo"))
    for one, whole, official in zip(trl, hf, sppo, strict=True):
        assert whole["prompt"] == one["prompt"][0]["content"]
        assert whole["chosen"] == official["chosen"] == [*one["prompt"], *one["chosen"]]
        assert (official["chosen_probs_win"], official["chosen_probs_lose"]) == (
            one["target_chosen"],
            one["target_rejected"],
        )
        assert official["finish_reason_rejected"] == one["finish_reason_rejected"]


def test_pairs_with_a_response_that_was_cut_are_told_or_left_out(
    layout: RunLayout, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["export-pairs", str(layout.root), "--output", str(tmp_path / "kept")]) == 0
    shown = capsys.readouterr()
    assert "3 pairs" in shown.out
    assert "note: 1 pair with a response that was cut" in shown.out + shown.err
    assert [row["finish_reason_rejected"] for row in exported(layout, unfinished="drop")] == ["stop", "stop"]
    with pytest.raises(UserError, match="exists already; give another --output"):
        export_pairs(layout, None, "trl", tmp_path / "kept")


def test_there_is_nothing_to_export_of_a_run_without_pairs(layout: RunLayout, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="iteration 2 has no pairs yet"):
        export_pairs(layout, 2, "trl", tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no iteration of a run with pairs lies there"):
        export_pairs(RunLayout(tmp_path / "empty"), None, "trl", tmp_path / "none")
    assert not (tmp_path / "none").exists()
