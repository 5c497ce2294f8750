"""The tables as they are declared: what the papers' numbers say of each other holds of them, and every run composes."""

from statistics import fmean

import pytest

from nemo_sspo.errors import UserError
from nemo_sspo.reproduce.declarations import Table
from nemo_sspo.reproduce.needs import answers_of, checkpoints_of, experiment_of, runs_of, steps_for
from nemo_sspo.reproduce.papers_on_disk import load_paper, load_table, papers, table_name, tables

ALL = [(paper, table) for paper in papers() for table in tables(paper)]


def rows(table: Table) -> dict[str, tuple[float | None, ...]]:
    return {row.name: row.published for row in table.rows}


def test_every_table_and_figure_that_measures_something_is_there() -> None:
    assert tables("s-sppo") == [*(f"table-{n}" for n in range(1, 9)), *(f"figure-{n}" for n in (2, 3, 4))]
    assert tables("sppo") == [*(f"table-{n}" for n in range(1, 6)), *(f"figure-{n}" for n in range(1, 5))]


@pytest.mark.parametrize(("paper", "name"), ALL)
def test_every_run_composes_and_is_planned_to_what_is_read_of_it(paper: str, name: str) -> None:
    declared, table = load_paper(paper), load_table(paper, name)
    for run, wanted in runs_of(table).items():
        experiment = experiment_of(declared, run, ["prompts=[a,b,c]"], {}, None)
        made = {(step.stage, step.iteration) for step in steps_for(experiment, wanted)}
        assert wanted <= made
        assert max(iteration for _, iteration in made) == max(iteration for _, iteration in wanted)
    assert checkpoints_of(table) or runs_of(table)


def test_runs_of_one_name_are_one_run_in_both_papers() -> None:
    first, second = load_paper("s-sppo").runs, load_paper("sppo").runs
    shared = first.keys() & second.keys()
    assert shared == {"mistral-7b-dpo", "mistral-7b-ipo", "mistral-7b-sppo"}
    assert all(first[name] == second[name] for name in shared)


@pytest.mark.parametrize("name", ["table-3", "figure-2"])
def test_mt_bench_averages_are_those_of_the_turns(name: str) -> None:
    for row, (first, second, average, *_) in rows(load_table("s-sppo" if name == "table-3" else "sppo", name)).items():
        assert average == pytest.approx((first + second) / 2, abs=0.011), row


def test_leaderboard_averages_are_those_of_the_tasks() -> None:
    for row, (*tasks, average) in rows(load_table("sppo", "table-3")).items():
        assert average == pytest.approx(fmean(tasks), abs=0.011), row


def test_who_wins_one_way_loses_the_other() -> None:
    wins = [row.published for row in load_table("sppo", "figure-3").rows]
    for i, row in enumerate(wins):
        assert row[i] == 0.5
        assert all(row[j] + wins[j][i] == pytest.approx(1, abs=0.0011) for j in range(11))


def test_tables_that_repeat_a_number_repeat_it() -> None:
    alpaca, leaderboard = rows(load_table("s-sppo", "table-1")), rows(load_table("s-sppo", "table-2"))
    for name in ("Llama-3-8B-S-SPPO Iter3", "Mistral-7B-S-SPPO Iter3"):
        assert leaderboard[name] == pytest.approx(alpaca[name][:2], abs=0.051)
    ablation = rows(load_table("s-sppo", "table-5"))
    for row, method in (("neither (SPPO)", "SPPO"), ("both (S-SPPO)", "S-SPPO")):
        assert ablation[row] == tuple(alpaca[f"Llama-3-8B-{method} Iter{i}"][3] for i in (1, 2, 3))
    encoders = rows(load_table("s-sppo", "table-6"))
    assert encoders["all-MiniLM-L6-v2"] == pytest.approx(ablation["both (S-SPPO)"], abs=0.051)
    older, curves = rows(load_table("sppo", "table-1")), rows(load_table("sppo", "figure-1"))
    assert all(curves[name] == older[name][:2] for name in curves if name != "GPT-4 0314")
    assert rows(load_table("sppo", "figure-4"))["K = 5 Iter3"] == older["SPPO Iter3"]
    for row in ("Mistral-7B-DPO Iter2", "Mistral-7B-IPO Iter3"):
        assert alpaca[row][:3] == older[row.removeprefix("Mistral-7B-")]


def test_table_5_has_the_four_rows_of_the_two_switches() -> None:
    declared, table = load_paper("s-sppo"), load_table("s-sppo", "table-5")
    found = {}
    for run in runs_of(table):
        experiment = experiment_of(declared, run, ["prompts=[a,b,c]"], {}, None)
        found[run] = experiment.gate.kind, experiment.repulsion.weight
    assert found == {
        "llama3-8b-gate": ("linear", 0.0),
        "llama3-8b-repulsion": ("none", 1.0),
        "llama3-8b-s-sppo": ("linear", 1.0),
    }
    assert checkpoints_of(table) == [f"llama3-8b-sppo-{n}" for n in (1, 2, 3)]
    assert {name: len(policies) for name, policies in answers_of(table).items()} == {"alpaca-eval": 12}


def test_eleven_policies_meet_in_figure_3() -> None:
    assert len(answers_of(load_table("sppo", "figure-3"))["own"]) == 11


def test_weights_take_the_place_of_a_hub_id() -> None:
    declared, hub = load_paper("s-sppo"), "meta-llama/Meta-Llama-3-8B-Instruct"
    experiment = experiment_of(declared, "llama3-8b-gate", ["prompts=p"], {hub: "/models/llama=3"}, None)
    assert experiment.policy == "/models/llama=3"
    with pytest.raises(UserError, match="have their own names and policies"):
        experiment_of(declared, "llama3-8b-gate", ["prompts=p", "name=mine"], {}, None)


@pytest.mark.parametrize("given", ["table-5", "Table 5", "tab5", "TABLE.5"])
def test_a_table_may_be_written_as_one_says_it(given: str) -> None:
    assert table_name("s-sppo", given) == "table-5"
    assert table_name("sppo", "Fig. 3".replace(". ", ".")) == "figure-3"
    with pytest.raises(UserError, match="no such table or figure of s-sppo"):
        table_name("s-sppo", "figure-1")
