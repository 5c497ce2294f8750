"""Numbers of cells from what judges and stages leave, against values worked out by hand."""

import json
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from nemo_sspo.artifacts.store import Draft
from nemo_sspo.config.cluster import LocalCluster
from nemo_sspo.config.experiment import Experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.benchmark import plain_model
from nemo_sspo.launch.plan import Step
from nemo_sspo.public_benchmarks.alpaca_eval import judged_by
from nemo_sspo.reproduce.declarations import Policy, Table
from nemo_sspo.reproduce.measures.registry import ours
from nemo_sspo.reproduce.needs import cells
from nemo_sspo.reproduce.place import Missing, Place
from nemo_sspo.reproduce.show import chosen_row, measure, reasons
from tests.launch.fake_run import tiny_experiment
from tests.launch.published import publish_steps
from tests.some_facts import some_facts

NAME = "toy-iter1"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Experiment:
    monkeypatch.chdir(tmp_path)
    return tiny_experiment(Path("runs"), "toy")


@pytest.fixture
def place(run: Experiment) -> Place:
    return Place("s-sppo.t", {"toy": run}, {"base": plain_model("hub/base", "base")}, {}, {"mt-bench": Path("chat")})


def table(*columns: dict, policy: str | None = "toy@1", published: tuple | None = None, **row: object) -> Table:
    row = {"name": "row", "policy": policy, "published": published or (None,) * len(columns), **row}
    return Table.model_validate({"title": "t", "place": "p", "columns": columns, "rows": [row]})


def value(place: Place, column: dict, **row: object) -> float | str:
    ((cell,),) = cells(table({"name": "c", **column}, **row))
    return ours(place, cell)


def write_lines(path: Path, *rows: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_alpaca_eval_reads_the_row_of_the_policy_by_its_annotator(place: Place) -> None:
    column = {"measure": "alpaca-eval", "value": "length_controlled_winrate", "annotator": "weighted"}
    with pytest.raises(Missing, match="not judged by weighted"):
        value(place, column)
    folder = judged_by(place.answers(Policy("toy", 1), "alpaca-eval"), "weighted") / "weighted"
    folder.mkdir(parents=True)
    head = ",win_rate,avg_length,length_controlled_winrate\n"
    (folder / "leaderboard.csv").write_text(f"{head}gpt4,50,1,50\n{NAME},12.5,1500,17.25\n")
    assert value(place, column) == 17.25
    assert value(place, column | {"value": "avg_length"}) == 1500
    with pytest.raises(Missing, match="not judged by other"):
        value(place, column | {"annotator": "other"})
    (folder / "leaderboard.csv").write_text(f"{head}gpt4,50,1,50\n")
    with pytest.raises(UserError, match=f"no row of {NAME}"):
        value(place, column)


def test_mt_bench_by_turn_and_by_category(place: Place, tmp_path: Path) -> None:
    column = {"measure": "mt-bench", "value": "average"}
    grades = {(1, 1): 8.0, (1, 2): 6.0, (2, 1): 5.0, (2, 2): -1}
    rows = [{"question_id": q, "model": NAME, "turn": t, "score": score} for (q, t), score in grades.items()]
    other = {"question_id": 1, "model": "another", "turn": 1, "score": 1.0}
    write_lines(Path("chat/data/mt_bench/model_judgment/gpt-4_single.jsonl"), *rows, other)
    assert value(place, column) == pytest.approx((8 + 6 + 5) / 3)  # -1 is no grade
    assert value(place, column | {"value": "turn_1"}) == 6.5
    assert value(place, column | {"value": "turn_2"}) == 6.0
    with pytest.raises(Missing, match="--questions mt-bench=FILE"):
        value(place, column | {"value": "math"})
    asked = [
        {"question_id": 1, "category": "math", "turns": ["a"]},
        {"question_id": 2, "category": "stem", "turns": ["b"]},
    ]
    write_lines(Path("q.jsonl"), *asked)
    place = Place(place.table, place.runs, place.models, {"mt-bench": Path("q.jsonl")}, place.tools)
    assert value(place, column | {"value": "math"}) == 7.0


def test_arena_hard_counts_a_clear_verdict_three_times_and_a_tie_as_half(place: Place) -> None:
    """Game 1: the baseline is A. Won: 3 + .5 + 1 of 3 + 1 + 1 + 3."""
    column = {"measure": "arena-hard", "value": "score"}
    with pytest.raises(Missing, match="--tool arena-hard=DIRECTORY"):
        value(place, column)
    place = Place(place.table, place.runs, place.models, {}, {"arena-hard": Path("arena")})
    with pytest.raises(Missing, match="not judged"):
        value(place, column)
    games = [[{"score": "B>>A"}, {"score": "A=B"}], [{"score": "B>A"}, {"score": "B>>A"}], [{"score": None}]]
    file = Path(f"arena/data/arena-hard-v0.1/model_judgment/gpt-4-1106-preview/{NAME}.jsonl")
    write_lines(file, *({"question_id": n, "games": each} for n, each in enumerate(games)))
    assert value(place, column) == pytest.approx(100 * 4.5 / 8)


def test_lm_eval_reads_the_leaderboards_metric_and_averages_all_six(place: Place) -> None:
    column = {"measure": "lm-eval", "value": "gsm8k"}
    folder = place.answers(Policy("base", None), "lm-eval")
    assert folder == Path("runs/models/base/benchmarks/iter_0/lm-eval")
    folder.mkdir(parents=True)
    rows = [
        ("gsm8k", "exact_match,strict-match", 0.5),
        ("gsm8k", "exact_match,flexible", 0.75),
        ("mmlu", "acc,none", 0.25),
    ]
    scores = [{"task": task, "metric": metric, "value": score} for task, metric, score in rows]
    (folder / "scores.json").write_text(json.dumps(scores))
    assert value(place, column, policy="base") == 50.0
    with pytest.raises(Missing, match="not run: arc_challenge, hellaswag, truthfulqa_mc2, winogrande"):
        value(place, column | {"value": "average"}, policy="base")


def test_the_cost_of_a_phase_is_the_clock_of_its_stages(place: Place, run: Experiment) -> None:
    seconds = {"embed": 3.0, "build_pairs": 2.0, "train": 120.0}

    def fill(step: Step, draft: Draft) -> None:
        draft.timings |= {"seconds": seconds.get(step.stage, 1.0), "peak_gpu_memory_gib": 2.0 + step.shard}

    publish_steps(run, "iter_1.train", fill=fill)
    column = {"measure": "cost", "value": "minutes", "stages": ["train"]}
    assert value(place, column) == 2.0
    both = {"measure": "cost", "value": "seconds", "stages": ["embed", "build_pairs"]}
    assert value(place, both) == pytest.approx(5.0)
    with pytest.raises(Missing, match="evaluate of iteration 1 has not run"):
        value(place, {"measure": "cost", "value": "seconds", "stages": ["evaluate"]})
    memory = {"measure": "cost", "value": "gpu_memory_gb", "stages": ["embed"]}
    with pytest.raises(Missing, match="measured on a GPU alone"):
        value(place, memory)
    assert isinstance(run.cluster, LocalCluster)
    on_gpus = run.model_copy(update={"cluster": run.cluster.model_copy(update={"launcher": "torchrun", "gpus": 8})})
    assert on_gpus.cluster.has_gpus
    place = Place(place.table, {"toy": on_gpus}, {}, {}, {})
    assert value(place, memory) == pytest.approx(2.0 * 2**30 / 1e9)


def test_shards_beside_each_other_count_once(place: Place, tmp_path: Path) -> None:
    run = tiny_experiment(Path("runs"), "toy", "rollout.shards=2")
    publish_steps(run, "iter_1.rollout")
    begun = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    for shard, (start, length) in enumerate([(0, 10), (4, 10)]):
        manifest = run.run_dir / f"iter_1/rollout/shard_{shard:05d}/manifest.json"
        changed = json.loads(manifest.read_text())
        changed["created_at"] = (begun + timedelta(seconds=start)).isoformat()
        changed["timings"] = {"seconds": length}
        manifest.write_text(json.dumps(changed))
    assert value(place, {"measure": "cost", "value": "seconds", "stages": ["rollout"]}) == 14.0


def test_the_weight_is_chosen_by_held_out_win_rate_once_all_have_one(tmp_path: Path, place: Place) -> None:
    runs = {name: tiny_experiment(Path("runs"), name) for name in ("low", "high")}
    columns = [{"name": "won", "measure": "held-out", "value": "win_vs_base"}]
    rows = [{"name": name, "policy": f"{name}@1", "published": [None]} for name in runs]
    sweep = Table.model_validate({"title": "t", "place": "p", "choose": "won", "columns": columns, "rows": rows})
    place = Place("s-sppo.t", runs, {}, {}, {})
    assert chosen_row(sweep, measure(place, sweep)) is None
    for name, win in (("low", 0.6), ("high", 0.7)):
        wins = {"win_vs_base": win, "win_vs_base_low": win - 0.1, "win_vs_base_high": win + 0.1}
        facts = {"prompts": 1, **wins}

        def fill(step: Step, draft: Draft, facts: dict = facts) -> None:
            draft.facts = some_facts(**facts) if step.stage == "evaluate" else None

        publish_steps(runs[name], "iter_1.evaluate", fill=fill)
    measured = measure(place, sweep)
    assert [row[0].text for row in measured] == ["0.600 / -", "0.700 / -"]
    assert chosen_row(sweep, measured) == "high"
    assert reasons(measured) == []


def test_what_cannot_be_had_is_said(place: Place) -> None:
    column = {"name": "c", "measure": "alpaca-eval", "value": "win_rate", "annotator": "w"}
    for row, reason in (({"policy": None}, "no weights are public"), ({"best_of": 16}, "best-of-16 is not measured")):
        (line,) = reasons(measure(place, table(column, published=(20.4,), **row)))
        assert reason in line
    ((cell,),) = measure(place, table(column, published=(20.40,)))
    assert cell.text == "- / 20.4"
