"""From a page's blocks to one HTML file that needs nothing else: no network, no other file.

Plotly's own bundle (from its PyPI package) is inlined; scripts are allowed by their hashes alone, and nothing may be
fetched.
"""

import base64
import hashlib
import importlib.resources
import json
import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from nemo_sspo import __version__
from nemo_sspo.report.blocks import Browser, Page, Plot, PlotGrid
from nemo_sspo.report.theme import DARK, LIGHT, css_variables, template

_TEMPLATES = Path(str(importlib.resources.files("nemo_sspo.report"))) / "templates"


def render(page: Page) -> str:
    """The page as HTML."""
    plots = _plots(page)
    prompts = [p for section in page.sections for b in section.blocks if isinstance(b, Browser) for p in b.prompts]
    plotly, script = _inline(get_plotlyjs()), _inline((_TEMPLATES / "page.js").read_text(encoding="utf-8"))
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(
        page=page,
        policy=_policy([plotly, script] if plots else [script]),
        style=Markup(_style()),
        figures=safe_json({plot.key: _figure(plot) for plot in plots}),
        templates=safe_json({"light": template(LIGHT).to_plotly_json(), "dark": template(DARK).to_plotly_json()}),
        samples=safe_json(prompts),
        has_plots=bool(plots),
        plotly=Markup(plotly),
        script=Markup(script),
        footer=f"nemo-sspo {__version__}",
    )


def write_page(page: Page, path: Path) -> Path:
    """Write the page, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(render(page), encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def safe_json(value: Any) -> Markup:
    """JSON that can stand in a script element: nothing in it can end the element or open a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _plots(page: Page) -> list[Plot]:
    plots: list[Plot] = []
    for section in page.sections:
        for block in section.blocks:
            plots += [block] if isinstance(block, Plot) else block.plots if isinstance(block, PlotGrid) else []
    keys = [plot.key for plot in plots]
    if len(set(keys)) != len(keys):
        raise ValueError(f"two plots of a page share a key: {sorted(key for key in keys if keys.count(key) > 1)}")
    return plots


def _figure(plot: Plot) -> dict[str, Any]:
    figure = json.loads(plot.figure.to_json())
    del figure["layout"]["template"]  # the page's script adds the one of its colour scheme
    return figure


def _inline(script: str) -> str:
    """The text of a script element, which the element's end must not occur in."""
    if "</script" in script.lower():
        raise ValueError("a script to be inlined holds the end tag of its element")
    return script


def _policy(scripts: list[str]) -> str:
    """Content security policy: these scripts alone, styles and images of the page itself, nothing from elsewhere."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    # Plotly sets style attributes; the icon is a data URL, and so is a saved figure.
    rest = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; script-src {allowed}; {rest}"


def _style() -> str:
    sheet = (_TEMPLATES / "page.css").read_text(encoding="utf-8")
    return (
        f":root {{ color-scheme: light dark; {css_variables(LIGHT)} }}\n"
        f"@media (prefers-color-scheme: dark) {{ :root {{ {css_variables(DARK)} }} }}\n{sheet}"
    )
