from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.table import ON_A_GPU, PAGE, RESULTS, Benchmark, Goal, page

FOUND = Benchmark(
    name="mill",
    claim="Ours grinds less",
    setting="Two stones.",
    columns=("mill", "sacks", "seconds"),
    rows=[("ours", 1_234_567, 0.123456), ("theirs", None, 2.0)],
    goals=[Goal("sacks", "<= 1.1x", "1.05x", True), Goal("wind", "any", "no wind", None)],
    notes=["It was raining."],
    machine="an anvil",
)


def test_what_is_kept_is_what_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    FOUND.publish(tmp_path)
    assert Benchmark.read(tmp_path / "mill.json") == FOUND
    assert capsys.readouterr().out == FOUND.markdown() + "\n"


def test_what_is_not_measured_this_time_is_kept(tmp_path: Path) -> None:
    mine = Goal("ours, 1 stone", "<= 1.1x", "1.05x", True)
    theirs = Goal("theirs, 1 stone", "<= 2x", "1.5x", True)
    notes = ["ours: of granite.", "theirs: of sandstone."]
    replace(FOUND, goals=[mine, theirs], notes=notes).publish(tmp_path)
    again = replace(FOUND, rows=[("ours", 1, 0.1)], goals=[mine], notes=notes[:1], machine="")
    kept = again.with_kept(["ours"], tmp_path)
    assert kept.rows == [("ours", 1, 0.1), ("theirs", None, 2.0)]
    assert kept.goals == [mine, theirs]
    told = "theirs: measured in an earlier run, on an anvil."
    assert kept.notes == [*notes, told]
    kept.publish(tmp_path)
    assert again.with_kept(["ours"], tmp_path).notes == [*notes, told]  # once, however often it is kept
    assert again.with_kept(["ours", "theirs"], tmp_path) == again
    assert replace(again, columns=("mill", "sacks", "minutes")).with_kept(["ours"], tmp_path).rows == again.rows
    assert again.with_kept(["ours"], tmp_path / "none") == again


def test_section(tmp_path: Path) -> None:
    assert FOUND.markdown().splitlines() == [
        "## Ours grinds less",
        "",
        "Two stones.",
        "",
        "| mill | sacks | seconds |",
        "| --- | --- | --- |",
        "| ours | 1,234,567 | 0.1235 |",
        "| theirs |  | 2 |",
        "",
        "| goal | wanted | measured | |",
        "|---|---|---|---|",
        "| sacks | <= 1.1x | 1.05x | met |",
        "| wind | any | no wind | cannot be told here |",
        "",
        "- It was raining.",
        "",
        "`python -m benchmarks.mill` on an anvil.",
    ]


def test_page_has_every_result_in_order_of_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        replace(FOUND, name=name).publish(tmp_path)
    text = page(tmp_path)
    assert text.index("benchmarks.a`") < text.index("benchmarks.b`")


def test_a_row_with_a_cell_too_few_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 cells"):
        replace(FOUND, rows=[("ours", 1)]).publish(tmp_path)


def test_the_page_of_the_repository_is_made_from_its_results() -> None:
    assert len(list(RESULTS.glob("*.json"))) >= 6
    assert PAGE.read_text() == page(), "docs/benchmarks.md: run `python -m benchmarks.table`"


def test_every_result_names_a_benchmark_that_can_be_run() -> None:
    for path in RESULTS.glob("*.json"):
        assert Benchmark.read(path).name == path.stem
        assert (RESULTS.parent / f"{path.stem.replace('.', '/')}.py").exists()


def test_what_needs_a_gpu_stands_last_or_is_told_to_be_missing(tmp_path: Path) -> None:
    for name in ("zebra", "gpu.head"):
        replace(FOUND, name=name).publish(tmp_path)
    before, after = page(tmp_path).split("# On a GPU\n")
    assert "benchmarks.zebra`" in before
    assert "benchmarks.gpu.head`" in after
    missing = ", ".join(f"`{name}`" for name in ON_A_GPU if name != "gpu.head")
    assert after.splitlines()[1].startswith(f"Not yet run: {missing}.")
    for name in ON_A_GPU:
        replace(FOUND, name=name).publish(tmp_path)
    assert "Not yet run" not in page(tmp_path)
