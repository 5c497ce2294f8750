"""``docs/lab.md`` and its figures, from the results in a folder."""

import importlib.resources
import json
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.lab.language.arms import ARMS, CONTROLS, GATES, REPULSIONS, TABLE_5
from nemo_sspo.lab.language.comparison import paired
from nemo_sspo.lab.language.hypotheses import outcomes
from nemo_sspo.lab.language.plan import DIALS, MAIN_DIAL, TRUE
from nemo_sspo.lab.language.results import Results
from nemo_sspo.lab.page import tables
from nemo_sspo.lab.page.forest import Line, forest

_GROUPS = {
    "Table 5": TABLE_5,
    "controls": CONTROLS,
    "gates": GATES,
    "repulsions": REPULSIONS,
}
_BASE, _WORTH = "sppo", "true_win_rate"


def write_page(results: Path, page: Path) -> list[Path]:
    """Write the page and the figures beside its results; returns what was written.

    Raises:
        UserError: a study is missing.
    """
    language = Results.read(results / "language")
    figures = {results / f"{name}.svg": svg for name, svg in _figures(language).items()}
    for path, text in {**figures, page: _text(results, language, figures_at=results.relative_to(page.parent))}.items():
        path.write_text(text, encoding="utf-8")
    return [page, *figures]


def _text(results: Path, language: Results, figures_at: Path) -> str:
    found = outcomes(language)
    source = importlib.resources.files("nemo_sspo.lab.page").joinpath("lab.md.j2").read_text(encoding="utf-8")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    return environment.from_string(source).render(
        tables=tables,
        game=json.loads((results / "game.json").read_text(encoding="utf-8")),
        text=json.loads((results / "text.json").read_text(encoding="utf-8")),
        language=language,
        outcomes=found,
        verdicts={verdict: sum(each.verdict == verdict for each in found) for verdict in ("held", "contradicted")},
        less=lambda first, second, measure=_WORTH, dial=MAIN_DIAL: _less(language, first, second, measure, dial),
        more_noise=lambda arm, measure=_WORTH: _difference(
            language.values(arm, MAIN_DIAL, measure), language.values(arm, TRUE, measure)
        ),
        mean=lambda arm, measure, dial=MAIN_DIAL: tables.over_seeds(language.values(arm, dial, measure)),
        dials={"true": TRUE, "weak": DIALS[0], "main": MAIN_DIAL},
        names=[*ARMS],
        table_5=[arm.name for arm in TABLE_5],
        figures=figures_at.as_posix(),
    )


def _less(language: Results, first: str, second: str, measure: str, dial: float) -> Interval:
    """The first arm's value less the second's."""
    return _difference(language.values(first, dial, measure), language.values(second, dial, measure))


def _difference(first: dict[int, float], second: dict[int, float]) -> Interval:
    """Paired over seeds."""
    compared = paired(first, second)
    assert compared is not None, "two seeds or more"
    return compared.difference


def _figures(language: Results) -> dict[str, str]:
    """Every arm's true win rate less SPPO's under the main dial; Table 5's rows under every dial; what they keep."""
    return {
        "win_rates": _against_sppo(language, _WORTH, "true win rate less SPPO's, same seeds"),
        "wordings": _against_sppo(language, "wording_entropy", "entropy of wordings (nats) less SPPO's, same seeds"),
        "dials": _by_dial(language),
    }


def _against_sppo(language: Results, measure: str, axis: str) -> str:
    groups = []
    for number, (heading, members) in enumerate(_GROUPS.items()):
        lines = [
            Line(arm.name, _less(language, arm.name, _BASE, measure, MAIN_DIAL), 1 + number % 3)
            for arm in members
            if arm.name != _BASE and len(language.seeds(arm.name, MAIN_DIAL)) > 1
        ]
        groups += [(heading, lines)] if lines else []
    return forest(groups, axis=axis, centre=0.0)


def _by_dial(language: Results) -> str:
    groups: list[tuple[str, list[Line]]] = []
    for dial in (TRUE, *DIALS):
        lines = [
            Line(arm.name, tables.over_seeds(language.values(arm.name, dial, _WORTH)), series)
            for series, arm in zip((1, 2, 3, 1), TABLE_5, strict=True)
            if len(language.seeds(arm.name, dial)) > 1
        ]
        groups += [(f"dial {dial:g}", lines)] if lines else []
    return forest(groups, axis="true win rate against the starting policy", centre=None)
