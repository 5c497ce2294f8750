"""Typed facts and the flat counts of a manifest: the same on the way there and back, and wrong ones are named."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from nemo_sspo.artifacts.facts.base import Facts
from nemo_sspo.artifacts.facts.evaluation import EvaluationFacts, SelectionFacts
from nemo_sspo.artifacts.facts.pairs import PairFacts
from nemo_sspo.artifacts.facts.sampling import LabelledFacts, RolloutFacts, ScoreFacts
from nemo_sspo.artifacts.facts.training import ReferenceFacts, TrainFacts, WeightFacts
from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.selection import early_stop
from nemo_sspo.artifacts.store import open_artifact, publish
from nemo_sspo.errors import UserError
from tests.some_facts import some_facts

MANIFEST = Path("iter_1/train/manifest.json")
WIN = Interval(0.7, 0.65, 0.75)
EVALUATED = EvaluationFacts(
    prompts=4,
    wins={"base": WIN, "iter_1": Interval(0.6, 0.5, 0.7), "previous": Interval(0.5, 0.4, 0.6)},
    length_controlled_win_vs_base=Interval(0.6, 0.5, 0.7),
    mean_tokens={"new": 30.0, "previous": 20.0, "base": 10.0},
    distinct={"new": 1.0, "previous": 0.5, "base": 0.25},
    unfinished={"new": 0, "previous": 1, "base": 2},
    best_of_n=16,
    best_of_n_win_vs_base=Interval(0.9, 0.85, 0.95),
    best_of_n_mean_tokens=40.0,
    judge={"answers": 12, "unparsed": 0},
)
OF_EVALUATION = {
    **{"prompts": 4, "judge_answers": 12, "judge_unparsed": 0},
    **{"win_vs_base": 0.7, "win_vs_base_low": 0.65, "win_vs_base_high": 0.75},
    **{"win_vs_iter_1": 0.6, "win_vs_iter_1_low": 0.5, "win_vs_iter_1_high": 0.7},
    **{"win_vs_previous": 0.5, "win_vs_previous_low": 0.4, "win_vs_previous_high": 0.6},
    **{f"length_controlled_win_vs_base{end}": x for end, x in {"": 0.6, "_low": 0.5, "_high": 0.7}.items()},
    **{"new_mean_tokens": 30.0, "previous_mean_tokens": 20.0, "base_mean_tokens": 10.0},
    **{"new_distinct": 1.0, "previous_distinct": 0.5, "base_distinct": 0.25},
    **{"new_unfinished": 0, "previous_unfinished": 1, "base_unfinished": 2},
    **{"best_of_n": 16, "best_of_n_mean_tokens": 40.0},
    **{f"best_of_n_win_vs_base{end}": x for end, x in {"": 0.9, "_low": 0.85, "_high": 0.95}.items()},
}
BUILT = PairFacts(
    prompts=10,
    pairs=7,
    dropped={"tie": 3, "too_long": 0},
    margin_before=0.5,
    margin_after=0.25,
    similarity_mean=0.5,
    gate_moved_share=0.0,
    made_with={"oracle.path": "0f", "encoder.path": "1e"},
)
OF_PAIRS = {
    **{"prompts": 10, "pairs": 7, "dropped_tie": 3, "dropped_too_long": 0},
    **{"margin_before": 0.5, "margin_after": 0.25, "similarity_mean": 0.5, "gate_moved_share": 0.0},
    **{"content of oracle.path": "0f", "content of encoder.path": "1e"},
}
CHOSEN = SelectionFacts(
    prompts=4, candidates=2, chosen_step=10, last_step=20, criterion="win_rate", win=WIN, reason="wins", stop=None
)
OF_SELECTION = {
    **{"prompts": 4, "candidates": 2, "chosen_step": 10, "last_step": 20, "criterion": "win_rate"},
    **{"win": 0.7, "win_low": 0.65, "win_high": 0.75, "reason": "wins", "stop": None},
}


@pytest.mark.parametrize(
    ("facts", "counts"),
    [
        (EVALUATED, OF_EVALUATION),
        (BUILT, OF_PAIRS),
        (CHOSEN, OF_SELECTION),
        (WeightFacts(parameters=5), {"parameters": 5}),
    ],
)
def test_a_manifest_has_them_under_flat_keys(facts: Facts, counts: dict[str, object], tmp_path: Path) -> None:
    """Those of every release so far."""
    with publish(tmp_path / "made", stage="demo", config={}, inputs={}) as draft:
        draft.facts = facts
    artifact = open_artifact(tmp_path / "made")
    assert json.loads((tmp_path / "made" / "manifest.json").read_text())["counts"] == counts
    assert artifact.facts(type(facts)) == facts


def test_what_has_its_default_is_not_written() -> None:
    """None is written where a stage must say something; a loss without a closed form has no such key."""
    reference = ReferenceFacts(
        pairs=7, logp_per_token=-1.0, source="recompute", checked_pairs=0, largest_difference=None, mean_difference=None
    )
    assert reference.counts()["largest_difference"] is None
    numbers = {"steps": 2, "loss_first": 2.0, "loss_last": 1.0, "d_chosen_last": 0.5, "d_rejected_last": -0.5}
    assert TrainFacts(pairs=7, step1_loss=2.0, head="one_pass", **numbers).counts().keys() == {
        *numbers,
        *("pairs", "step1_loss", "head"),
    }


def test_of_another_release_the_rest_is_read() -> None:
    """What it does not have is None, also where it is no fact of today's; what is unknown is left out."""
    facts = TrainFacts.of({"steps": 20, "speed": "high", "loss_first": None}, MANIFEST)
    assert (facts.steps, facts.pairs, facts.loss_first, facts.step1_closed_form) == (20, None, None, None)
    older = EvaluationFacts.of({"win_vs_base": 0.7, "win_vs_base_low": 0.65, "win_vs_base_high": 0.75}, MANIFEST)
    assert (older.wins, older.mean_tokens, older.best_of_n_win_vs_base) == ({"base": WIN}, {}, None)


@pytest.mark.parametrize(
    ("kind", "counts", "problem"),
    [
        (TrainFacts, {"steps": "20"}, "counts.steps is '20' (input should be a valid integer)"),
        (TrainFacts, {"steps": 20.5}, "counts.steps is 20.5"),
        (TrainFacts, {"loss_last": "low"}, "counts.loss_last is 'low'"),
        (ReferenceFacts, {"source": "guessed"}, "counts.source is 'guessed'"),
        (SelectionFacts, {"stop": 1}, "counts.stop is 1"),
        (SelectionFacts, {"win": 0.7}, "counts.win is 0.7 (without its interval)"),
        (SelectionFacts, {"win": 0.7, "win_low": "0.6", "win_high": 0.8}, "counts.win_low is '0.6'"),
        (EvaluationFacts, {"win_vs_iter_1": 0.7, "win_vs_iter_1_high": 0.8}, "counts.win_vs_iter_1 is 0.7"),
        (EvaluationFacts, {"new_distinct": "all"}, "counts.new_distinct is 'all'"),
        (PairFacts, {"dropped_tie": 0.5}, "counts.dropped_tie is 0.5"),
        (PairFacts, {"content of oracle.path": 3}, "counts.content of oracle.path is 3"),
        (ScoreFacts, {"judge_answers": None}, "counts.judge_answers is None"),
    ],
)
def test_a_fact_of_another_type_is_named(kind: type[Facts], counts: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError) as raised:
        kind.of(counts, MANIFEST)
    assert str(raised.value).startswith(f"{MANIFEST}: {problem}")


def test_a_misspelt_or_missing_fact_is_not_reported() -> None:
    """mypy says so too."""
    with pytest.raises(ValidationError, match=r"pairz\n.*[Ee]xtra"):
        LabelledFacts(pairs=3, pairz=3)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match=r"duplicates\n.*[Mm]issing"):
        RolloutFacts(prompts=1, responses=2, tokens=3, mean_tokens=1.5, unfinished=0, empty=0)  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="valid integer"):
        LabelledFacts(pairs="3")  # type: ignore[arg-type]


def test_an_early_stop_that_cannot_be_read_ends_no_run_silently(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    final = layout.artifact("select_model", 1)
    final.parent.mkdir(parents=True)
    with publish(final, stage="select_model", iteration=1, config={}, inputs={}) as draft:
        draft.facts = some_facts(stop=7)
    with pytest.raises(UserError, match=r"iter_1/select_model/manifest\.json: counts\.stop is 7"):
        early_stop(layout)
