"""The page's colours, light and dark: the style sheet's variables and the figures' colours are both made from these.

Figures are written in the light colours; the page's script swaps each for its dark counterpart.
"""

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
    "tint1": "#d3e0ef",
    "tint2": "#f1dece",
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
    "tint1": "#2a3d55",
    "tint2": "#4c3724",
    "low": "#7a4313",
    "middle": "#262a31",
    "high": "#1d508b",
}
SERIES = tuple(LIGHT[f"series{number}"] for number in range(1, 7))
"""Line colours; they differ in lightness as well as in hue."""
DIVERGING = [[0.0, LIGHT["low"]], [0.5, LIGHT["middle"]], [1.0, LIGHT["high"]]]
"""Colour scale around 1/2; the ink is readable on all of it."""


def series(number: int) -> str:
    """Colour of the n-th line, from 0."""
    return SERIES[number % len(SERIES)]


def swaps() -> dict[str, str]:
    """Light colour to dark colour."""
    pairs = {LIGHT[name]: DARK[name] for name in LIGHT}
    if len(pairs) != len(LIGHT):
        raise ValueError("two names share a light colour: their dark ones cannot be told apart")
    return pairs


def css_variables(colours: dict[str, str]) -> str:
    """Declarations for a style sheet."""
    return " ".join(f"--{name}: {value};" for name, value in colours.items())
