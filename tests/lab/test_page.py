"""The committed page and its figures are what the committed results give."""

import shutil
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.cli import main
from nemo_sspo.lab.page.forest import Line, forest
from nemo_sspo.lab.page.page import write_page

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_the_results(tmp_path: Path) -> None:
    shutil.copytree(DOCS / "lab", tmp_path / "lab")
    for path in write_page(tmp_path / "lab", tmp_path / "lab.md"):
        assert path.read_text() == (DOCS / path.relative_to(tmp_path)).read_text(), (
            f"`make lab-page` writes {path.name}"
        )


def test_every_figure_is_on_the_page() -> None:
    said = (DOCS / "lab.md").read_text()
    assert all(f"(lab/{figure.name})" in said for figure in (DOCS / "lab").glob("*.svg"))


def test_a_figure_puts_points_where_their_values_are() -> None:
    lines = [Line("one & a half", Interval(1.5, 1.0, 2.0)), Line("zero", Interval(0.0, -1.0, 1.0), 2)]
    root = ET.fromstring(forest([("group", lines)], axis="value", centre=0.0))
    name = "{http://www.w3.org/2000/svg}"
    first, second = (float(circle.get("cx")) for circle in root.iter(f"{name}circle"))
    bars = [line for line in root.iter(f"{name}line") if line.get("class", "").startswith("series")]
    (centre,) = (float(line.get("x1")) for line in root.iter(f"{name}line") if line.get("class") == "centre")
    unit = (first - second) / 1.5
    assert unit > 0
    assert second == pytest.approx(centre)
    assert float(bars[0].get("x1")) == pytest.approx(centre + unit, abs=0.2)
    assert float(bars[1].get("x2")) - float(bars[1].get("x1")) == pytest.approx(2 * unit, abs=0.2)
    assert "one & a half" in [text.text for text in root.iter(f"{name}text")]


def test_missing_results_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "page", "--results", str(tmp_path), "--output", str(tmp_path / "lab.md")]) == 2
    assert "game.json: not there; `nemo-sspo lab game` with --output makes it" in capsys.readouterr().err
    assert main(["lab", "page", "--results", str(tmp_path / "a"), "--output", str(tmp_path / "b" / "lab.md")]) == 2
