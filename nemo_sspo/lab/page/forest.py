"""A figure of intervals, one below the other, as an SVG file in the report's colours, light and dark."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from nemo_sspo.artifacts.interval import Interval
from nemo_sspo.report.theme import DARK, LIGHT

_WIDTH, _LABELS, _RIGHT, _ROW, _TOP, _BOTTOM = 760, 230, 185, 24, 16, 46
_USED = ("paper", "ink", "muted", "line", "grid", "series1", "series2", "series3")


@dataclass(frozen=True)
class Line:
    """A point with its interval; `series` is its colour's number, from 1 to 3."""

    label: str
    interval: Interval
    series: int = 1


def forest(groups: Sequence[tuple[str, Sequence[Line]]], *, axis: str, centre: float | None, digits: int = 3) -> str:
    """The figure: groups of lines under headings, a dashed line at `centre`, numbers at the right."""
    lines = [line for _, members in groups for line in members]
    known = [end for line in lines for end in (line.interval.low, line.interval.high)]
    ticks = _ticks([*known, *([] if centre is None else [centre])])
    height = _TOP + _ROW * (len(lines) + len(groups)) + _BOTTOM
    floor = height - _BOTTOM

    def x(value: float) -> str:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return f"{_LABELS + share * (_WIDTH - _LABELS - _RIGHT):.1f}"

    parts = [f'<line class="grid" x1="{x(tick)}" x2="{x(tick)}" y1="{_TOP}" y2="{floor}"/>' for tick in ticks]
    parts += [_text(x(tick), floor + 16, f"{tick:.{digits}g}", "muted", "middle") for tick in ticks]
    if centre is not None:
        parts.append(f'<line class="centre" x1="{x(centre)}" x2="{x(centre)}" y1="{_TOP}" y2="{floor}"/>')
    y = _TOP
    for heading, members in groups:
        y += _ROW
        parts.append(_text(8, y - 6, heading, "heading"))
        for line in members:
            y += _ROW
            parts += _row(line, y - 10, x, digits)
    parts.append(_text(x((ticks[0] + ticks[-1]) / 2), height - 10, axis, "muted", "middle"))
    body = "\n".join(parts)
    size = f'width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n<title>{escape(axis)}</title>\n'
        f"<style>{_style()}</style>\n"
        f'<rect class="paper" width="{_WIDTH}" height="{height}"/>\n{body}\n</svg>\n'
    )


def _row(line: Line, y: int, x, digits: int) -> list[str]:  # type: ignore[no-untyped-def]
    found, style = line.interval, f"series{line.series}"
    said = f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"
    return [
        _text(_LABELS - 12, y + 4, line.label, "ink", "end"),
        f'<line class="{style}" x1="{x(found.low)}" x2="{x(found.high)}" y1="{y}" y2="{y}"/>',
        f'<circle class="{style}" cx="{x(found.mean)}" cy="{y}" r="4"/>',
        _text(_WIDTH - 8, y + 4, said, "muted", "end"),
    ]


def _text(x: float | str, y: float, said: str, style: str, anchor: str = "start") -> str:
    return f'<text class="{style}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(said)}</text>'


def _ticks(values: Sequence[float]) -> list[float]:
    """Round numbers from below the least value to above the largest, four to nine of them."""
    low, high = min(values), max(values)
    raw = max(high - low, 1e-9) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(index * step, 12) for index in range(first, max(last, first + 1) + 1)]


def _style() -> str:
    def variables(colours: dict[str, str]) -> str:
        return "".join(f"--{name}:{colours[name]};" for name in _USED)

    series = "".join(f".series{n}{{stroke:var(--series{n});fill:var(--series{n});stroke-width:2}}" for n in (1, 2, 3))
    return (
        f":root{{{variables(LIGHT)}}}@media(prefers-color-scheme:dark){{:root{{{variables(DARK)}}}}}"
        "text{font:13px system-ui,sans-serif}.ink{fill:var(--ink)}.muted{fill:var(--muted)}"
        ".heading{fill:var(--ink);font-weight:600}.paper{fill:var(--paper)}.grid{stroke:var(--grid)}"
        f".centre{{stroke:var(--ink);stroke-dasharray:4 3}}{series}"
    )
