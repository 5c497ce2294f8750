"""Win rates between policies that answered the same questions: both orders, every pair, refused for other questions."""

import json
from pathlib import Path

import pytest

from nemo_sspo.artifacts.store import open_artifact, publish
from nemo_sspo.config.benchmarks import WinRatesRequest
from nemo_sspo.config.oracles import FunctionOracle, PolicyJudgeOracle
from nemo_sspo.objective.win_rates import sigmoid
from nemo_sspo.stages.evaluation import win_rates_between
from nemo_sspo.stages.evaluation.win_rates_between import WIN_RATES, main

ORACLE = FunctionOracle(function="tests.oracle.function_oracle:prefers_length", arguments={"weight": 100})
LENGTHS = {"base": (1, 2), "a@1": (2, 4), "b@1": (3, 1)}


def write_answers(root: Path, name: str, lengths: tuple[int, ...], questions: str = "xy") -> str:
    with publish(root / name, stage="benchmark_own", config={}, inputs={}) as draft:
        rows = [{"instruction": q, "output": "o" * n} for q, n in zip(questions, lengths, strict=True)]
        (draft.path / "model_outputs.json").write_text(json.dumps(rows))
    return str(root / name)


@pytest.fixture
def request_(tmp_path: Path) -> WinRatesRequest:
    answers = {name: write_answers(tmp_path, name, lengths) for name, lengths in LENGTHS.items()}
    return WinRatesRequest(answers=answers, oracle=ORACLE, output=str(tmp_path / "out" / "matrix"))


def test_every_pair_is_a_mean_over_questions_of_both_orders(request_: WinRatesRequest) -> None:
    """The favour for the response shown first cancels: P = sigma(difference in length)."""
    assert main([request_.model_dump_json()]) == 0
    found = json.loads((Path(request_.output) / WIN_RATES).read_text())
    assert found["questions"] == 2
    for one, ours in LENGTHS.items():
        for other, theirs in LENGTHS.items():
            expected = sum(sigmoid(a - b) for a, b in zip(ours, theirs, strict=True)) / 2
            assert found["win_rates"][one][other] == pytest.approx(expected, rel=1e-6)


def test_published_win_rates_are_kept_and_those_of_other_answers_refused(
    request_: WinRatesRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    assert main([request_.model_dump_json()]) == 0
    digest = open_artifact(Path(request_.output)).manifest.digest
    monkeypatch.setattr(win_rates_between, "load_oracle", None)
    assert main([request_.model_dump_json()]) == 0
    assert open_artifact(Path(request_.output)).manifest.digest == digest
    other = write_answers(tmp_path, "c@1", (5, 5))
    changed = request_.model_copy(update={"answers": request_.answers | {"base": other}})
    assert main([changed.model_dump_json()]) == 2
    assert "content of answers.base" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"oracle": PolicyJudgeOracle()}, "oracle=policy_judge judges within a run"),
        ({"answers": "other questions"}, "b@1 answered other questions than base"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    request_: WinRatesRequest, tmp_path: Path, change: dict, message: str, capsys
) -> None:
    if "answers" in change:
        other = write_answers(tmp_path, "other", (1, 1), "xz")
        change = {"answers": request_.answers | {"b@1": other}}
    assert main([request_.model_copy(update=change).model_dump_json()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not Path(request_.output).exists()
