"""The page is one whole file that fetches nothing, runs only its own scripts, and shows no text as markup."""

import base64
import hashlib
import json
import re
from dataclasses import replace

import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.diagnostics import Calibration, ReliabilityBin
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.errors import UserError
from nemo_sspo.report import theme
from nemo_sspo.report.blocks import Page, Plot, Section
from nemo_sspo.report.facts.run_facts import gather
from nemo_sspo.report.frame import Frame
from nemo_sspo.report.render import render, safe_json, write_page
from nemo_sspo.report.run_page import run_page
from tests.report.made_run import HOSTILE, half_finished_run, plots_of, put, record
from tests.report.parsed_page import Parsed
from tests.stages.runs import experiment

TEXT_PAIRS = (
    *((text, ground) for text in ("ink", "muted", "accent", "good", "warn", "bad") for ground in ("page", "paper")),
    *(("ink", ground) for ground in ("low", "middle", "high")),
)
"""Which colours stand on which: each pair needs a contrast of 4.5 (WCAG 2.2, 1.4.3)."""


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return half_finished_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def page(settings):
    return run_page(gather(record(settings)))


@pytest.fixture(scope="module")
def html(page):
    return render(page)


@pytest.fixture(scope="module")
def parsed(html):
    return Parsed(html)


def test_nothing_is_fetched(parsed):
    fetching = [
        (tag, name, value)
        for tag, attributes in parsed.elements
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "data", "poster")
        and not (value or "").startswith(("#", "data:"))
    ]
    assert fetching == []
    assert not re.search(r"url\(|@import", parsed.style)
    assert "color-scheme" in parsed.style


def test_only_its_own_scripts_may_run(parsed):
    policy = next(a["content"] for tag, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    directives = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert directives["default-src"] == "'none'"
    run = [text for attributes, text in parsed.scripts if "type" not in attributes]
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(t.encode()).digest()).decode()}'" for t in run}
    assert set(directives["script-src"].split()) == hashes
    assert len(run) == 2


def test_texts_of_a_run_stay_text(html, parsed):
    assert HOSTILE not in html
    assert "alert(1)</script>" not in html
    responses = [r["text"] for p in parsed.data("samples") for r in p["responses"]]
    assert any(HOSTILE in text for text in responses)  # whole, in a block that is never run
    assert not any(tag == "img" for tag, _ in parsed.elements)


def test_hostile_names_and_settings_are_escaped(tmp_path):
    settings = experiment(tmp_path, name="x", policy=f"a/{HOSTILE}")
    put(RunLayout(settings.run_dir), "prepare_prompts", 0, prompts=1)
    (settings.run_dir / "experiment.json").write_text(settings.model_dump_json())
    parsed = Parsed(render(run_page(gather(record(settings)))))
    assert HOSTILE in parsed.text
    assert not any(tag == "img" for tag, _ in parsed.elements)


def test_json_blocks_cannot_end_their_element():
    value = {"</script>": "<!-- & \u2028 \u2029"}
    text = str(safe_json(value))
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text) == value


def test_every_plot_says_what_it_shows_and_lists_its_numbers(page, parsed):
    plots = plots_of(page)
    assert len(plots) > 25
    labels = {a["id"]: a["aria-label"] for tag, a in parsed.elements if (a.get("class") or "") == "canvas"}
    assert labels == {f"plot-{plot.key}": plot.description for plot in plots}
    for plot in plots:
        assert re.search(r"\d", plot.description), plot.key
        assert plot.table.rows, plot.key
        assert {len(row) for row in plot.table.rows} == {len(plot.table.headings)}, plot.key
    assert parsed.data("figures").keys() == {plot.key for plot in plots}


def test_figures_set_no_colour_but_name_a_style_that_both_templates_have(parsed):
    figures, templates = parsed.data("figures"), parsed.data("templates")
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgba?\(", json.dumps(figures))
    named = {(trace["type"], trace["meta"]) for figure in figures.values() for trace in figure["data"]}
    assert len(named) > 8
    for scheme in ("light", "dark"):
        styles = {(kind, style["meta"]) for kind, each in templates[scheme]["data"].items() for style in each}
        assert named <= styles, scheme


def test_what_is_missing_is_said(page, parsed):
    assert "Not finished: 10 of 23 steps are published" in page.status
    assert "next iter_0.import_policy, iter_0.rollout_held_out.00000" in page.status
    assert "Diversity of the responses of iteration 2: not diagnosed yet." in parsed.text


def test_the_oracles_calibration_is_drawn_where_it_was_measured(settings):
    bins = [
        ReliabilityBin(low=0.5, high=0.75, count=3, mean_confidence=0.6, accuracy=2 / 3),
        ReliabilityBin(low=0.75, high=1.0, count=0, mean_confidence=None, accuracy=None),
    ]
    measured = Calibration(pairs=3, expected_calibration_error=0.0667, accuracy=0.667, brier_score=0.2, bins=bins)
    facts = gather(record(settings), sample_count=0)
    changed = {i: each.model_copy(update={"calibration": measured}) for i, each in facts.diagnosed.items()}
    (plot,) = [p for p in plots_of(run_page(replace(facts, diagnosed=changed))) if p.key == "calibration"]
    assert (plot.figure.data[0].x, plot.figure.data[0].y) == ((0.6,), (0.666667,))  # an empty bin is no point
    assert "expected calibration error 0.067" in plot.description
    assert plot.table.rows[1] == ("0.75 to 1.00", 0, None, None)
    assert not [p for p in plots_of(run_page(facts)) if p.key == "calibration"]


def test_a_run_that_has_just_begun(tmp_path):
    settings = experiment(tmp_path, name="new")
    settings.run_dir.mkdir()
    (settings.run_dir / "experiment.json").write_text(settings.model_dump_json())
    page = run_page(gather(record(settings)))
    text = Parsed(render(page)).text
    assert plots_of(page) == []
    for section in page.sections[:-1]:
        assert section.title in text
    assert text.count("yet") >= 8


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_measured_as_the_standard_says():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_text_and_lines_can_be_told_from_their_ground(colours):
    low = {(a, b): contrast(colours[a], colours[b]) for a, b in TEXT_PAIRS}
    assert min(low.values()) >= 4.5, min(low, key=low.get)
    for number in range(1, 7):
        assert contrast(colours[f"series{number}"], colours["paper"]) >= 3


def test_the_style_sheet_uses_only_colours_of_the_theme(parsed):
    style = parsed.style
    assert set(re.findall(r"var\(--(\w+)\)", style)) <= theme.LIGHT.keys()
    assert theme.LIGHT.keys() == theme.DARK.keys()
    rules = style[style.index("* {") :]
    assert not re.search(r"#[0-9a-f]{3,6}\b", rules)


def test_two_plots_with_one_key_are_refused():
    plot = Plot("same", "a", Frame(("x",), [(1,)]), [], "1")
    page = Page("t", "e", "s", (Section("one", "One", [plot, plot]),))
    with pytest.raises(ValueError, match="share a key"):
        render(page)


def test_a_page_is_written_whole_or_not_at_all(tmp_path, monkeypatch, page):
    target = tmp_path / "report.html"
    target.write_text("old")
    monkeypatch.setattr("nemo_sspo.report.render.render", lambda page: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_page(page, target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_the_commands(settings, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "500")
    run = str(settings.run_dir)
    assert cli.main(["report", run, "--prompts", "2"]) == 0
    page = RunLayout(settings.run_dir).report
    assert capsys.readouterr().out.split() == [str(page)]
    shown = Parsed(page.read_text()).data("samples")
    assert [sample["iteration"] for sample in shown] == [1, 1, 2, 2]
    other = half_finished_run(tmp_path, "other")
    output = tmp_path / "both.html"
    assert cli.main(["compare", run, str(other.run_dir), "--output", str(output)]) == 0
    assert "Difference to demo in win rate" in output.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["report", "nowhere"], "nowhere: no run lies there"),
        (["compare", "one"], "two runs or more"),
        (["report", "RUN", "--prompts", "-1"], "--prompts -1"),
        (["report", "RUN", "--output", "nowhere/report.html"], "no directory nowhere"),
        (["report", "RUN", "--output", "."], "is a directory"),
        (["compare", "RUN", "RUN"], "given twice"),
    ],
)
def test_mistakes_are_one_line(settings, capsys, arguments, message):
    run = str(settings.run_dir)
    assert cli.main([run if argument == "RUN" else argument for argument in arguments]) == UserError.EXIT_CODE
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_a_failure_to_draw_does_not_fail_a_run(settings, capsys, monkeypatch):
    from rich.console import Console

    from nemo_sspo.commands import report

    monkeypatch.setattr(report, "draw_run", lambda layout: 1 / 0)
    report.draw_at_the_end(Console(width=500), RunLayout(settings.run_dir))
    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert "could not be drawn (division by zero)" in said
