"""The page's colours, light and dark: the style sheet's variables and the figures' templates are both made of these.

A figure sets no colour. Each of its traces names its style by its ``meta``, and both templates have a style of every
name; the page's script hands them out.
"""

import plotly.graph_objects as go

LIGHT = {
    "page": "#f6f5f1",
    "paper": "#ffffff",
    "ink": "#1d1f23",
    "muted": "#565b64",
    "line": "#d9d8d2",
    "grid": "#e8e7e2",
    "accent": "#1f5fa8",
    "good": "#17693a",
    "warn": "#8a5300",
    "bad": "#a8201a",
    "series1": "#1f5fa9",
    "series2": "#b4530a",
    "series3": "#0b7568",
    "series4": "#9d2f6f",
    "series5": "#6b5d00",
    "series6": "#5b4bb5",
    "low": "#f2b98b",
    "middle": "#f4f3ef",
    "high": "#9cc3ef",
}
DARK = {
    "page": "#14161a",
    "paper": "#1c1f25",
    "ink": "#eceae4",
    "muted": "#a9aeb8",
    "line": "#3a3f49",
    "grid": "#2c313a",
    "accent": "#8dbdf5",
    "good": "#7ed6a0",
    "warn": "#f0bd6a",
    "bad": "#ff9d94",
    "series1": "#7fb5f3",
    "series2": "#f2a65b",
    "series3": "#5fd0c1",
    "series4": "#f08cc1",
    "series5": "#d6c45b",
    "series6": "#b3a6fe",
    "low": "#7a4313",
    "middle": "#262a31",
    "high": "#1d508b",
}
_SERIES = 6
INK, MUTED, HEAT = "ink", "muted", "heat"


def series(number: int) -> str:
    """Style of the n-th line, from 0; they differ in lightness as well as in hue."""
    return f"series{number % _SERIES + 1}"


def template(colours: dict[str, str]) -> go.layout.Template:
    """What all figures share, in these colours."""
    font = {"size": 12, "color": colours["ink"]}
    lines = dict.fromkeys(("linecolor", "zerolinecolor", "tickcolor"), colours["line"])
    axis = {"gridcolor": colours["grid"], **lines, "ticks": "outside", "ticklen": 4, "title": {"standoff": 8}}
    bars = {"thickness": 1.5, "width": 5}
    strokes = {name: colours[name] for name in (*map(series, range(_SERIES)), INK, MUTED)}
    heat = [[0.0, colours["low"]], [0.5, colours["middle"]], [1.0, colours["high"]]]
    return go.layout.Template(
        layout={
            "font": font,
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 8, "r": 16, "t": 16, "b": 44},
            "xaxis": axis,
            "yaxis": axis | {"automargin": True},
            "shapedefaults": {"line": {"color": colours["muted"], "width": 1, "dash": "dot"}},
            "hoverlabel": {"bgcolor": colours["paper"], "bordercolor": colours["muted"], "font": font},
            "legend": {"bgcolor": "rgba(0,0,0,0)", "orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        },
        data={
            "scatter": [
                {
                    "meta": name,
                    "line": {"color": colour, "width": 2},
                    "marker": {"color": colour, "size": 8},
                    "fillcolor": _translucent(colour),
                    "error_x": bars,
                    "error_y": bars,
                }
                for name, colour in strokes.items()
            ],
            "bar": [{"meta": name, "marker": {"color": colour}} for name, colour in strokes.items()],
            # Its ink is readable on all of the scale around 1/2.
            "heatmap": [{"meta": HEAT, "colorscale": heat, "textfont": {"color": colours["ink"]}}],
        },
    )


def css_variables(colours: dict[str, str]) -> str:
    """Declarations for a style sheet."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())


def _translucent(colour: str) -> str:
    red, green, blue = bytes.fromhex(colour[1:])
    return f"rgba({red}, {green}, {blue}, 0.2)"
