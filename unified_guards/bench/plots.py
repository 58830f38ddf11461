"""Plots of benchmark figures. Needs matplotlib; without it there are tables only."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: Colours of labels, the same in every plot. Other lines get matplotlib's own colours, in their order.
_COLOURS = {"torch": "#d1495b", "unified": "#00798c", "exact": "#8d96a3"}


def is_possible() -> bool:
    """Whether matplotlib is there."""
    return importlib.util.find_spec("matplotlib") is not None


@dataclass(frozen=True)
class Lines:
    """A panel: label -> (x, y) points. Both axes are logarithmic; x may be linear around 0."""

    title: str
    x: str
    y: str
    series: dict[str, list[tuple[float, float]]]
    ticks: Sequence[float] = ()
    has_zero: bool = False


@dataclass(frozen=True)
class Bars:
    """A panel of horizontal bars, the first one on top. A row: label -> {part: value}; parts are stacked.

    On a logarithmic axis a bar has no length: there a dot stands for it.

    Attributes:
        ranges: label -> (low, high), drawn as a line across the end of the bar.
        log: whether the axis is logarithmic; only for bars of a single part.
    """

    title: str
    x: str
    rows: dict[str, dict[str, float]]
    ranges: dict[str, tuple[float, float]] | None = None
    log: bool = False


@dataclass(frozen=True)
class Pairs:
    """A panel of rows, the first one on top, on a logarithmic axis. A row: label -> (before, after)."""

    title: str
    x: str
    rows: dict[str, tuple[float, float]]


#: What a plot may be written to.
SUFFIXES = (".png", ".svg")


def draw(path: Path, panels: Sequence[Lines | Bars | Pairs], columns: int = 2) -> None:
    """Writes all panels into one PNG or SVG, as the suffix says. The bytes depend on the figures alone."""
    import matplotlib

    matplotlib.use("agg")
    matplotlib.rcParams.update({"svg.hashsalt": path.name, "font.size": 9, "axes.titlesize": 10})
    from matplotlib import pyplot

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=_size(panels, rows, columns), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for at, (axis, panel) in enumerate(zip(axes.flat, panels, strict=False)):
        axis.set_title(panel.title)
        axis.set_xlabel(panel.x)
        axis.spines[["top", "right"]].set_visible(False)
        if isinstance(panel, Lines):
            _lines(axis, panel)
            continue
        if isinstance(panel, Pairs):
            _pairs(axis, panel)
            continue
        _bars(axis, panel)
        before = panels[at - 1] if at % columns else None
        if isinstance(before, Bars) and list(before.rows) == list(panel.rows):
            axis.set_yticklabels([])  # the panel on the left has the same labels
    figure.tight_layout()
    form = path.suffix.removeprefix(".")
    date = {"Date": None} if form == "svg" else None
    figure.savefig(path, format=form, bbox_inches="tight", metadata=date, dpi=150)
    pyplot.close(figure)


def _size(panels: Sequence[Lines | Bars | Pairs], rows: int, columns: int) -> tuple[float, float]:
    bars = max((len(panel.rows) for panel in panels if not isinstance(panel, Lines)), default=0)
    return (6.5 if columns == 1 or bars else 5.0) * columns, max(3.6, 1.2 + 0.34 * bars) * rows


def _plain(value: float, _: Any) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:g}"


def _sparse(value: float, _: Any) -> str:
    """Of the ticks between two powers of ten, 2 and 5 are labelled."""
    return _plain(value, None) if f"{value:e}"[0] in "25" else ""


def _lines(axis: Any, panel: Lines) -> None:
    from matplotlib.ticker import NullFormatter

    for label, points in panel.series.items():
        axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=label, color=_COLOURS.get(label))
    axis.set_ylabel(panel.y)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(_plain)
    axis.yaxis.set_minor_formatter(_sparse)
    axis.set_xscale("symlog", linthresh=1) if panel.has_zero else axis.set_xscale("log")
    if panel.has_zero:
        axis.set_xlim(left=-0.3)
    if panel.ticks:
        axis.set_xticks(panel.ticks, [f"{tick:g}" for tick in panel.ticks])
        axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(alpha=0.3, which="both", linewidth=0.5)
    axis.legend(frameon=False)


def _bars(axis: Any, panel: Bars) -> None:
    labels = list(panel.rows)
    ends = _dots(axis, panel) if panel.log else _stacks(axis, panel)
    for at, (label, end) in enumerate(zip(labels, ends, strict=True)):
        low, high = (panel.ranges or {}).get(label, (end, end))
        axis.plot([low, high], [at, at], color="black", linewidth=1)
        # There is no place for 0 on a logarithmic axis.
        place, where = (0, ("axes fraction", "data")) if panel.log and end <= 0 else (max(high, end), "data")
        axis.annotate(_short(end), (place, at), (5, 0), where, "offset points", va="center")
    axis.set_yticks(range(len(labels)), labels)
    axis.invert_yaxis()


def _pairs(axis: Any, panel: Pairs) -> None:
    axis.set_xscale("log")
    values = [value for pair in panel.rows.values() for value in pair]
    axis.set_xlim(min(values) / 2, max(values) * 2)
    for at, pair in enumerate(panel.rows.values()):
        axis.plot(pair, [at, at], color="#c9ced6", linewidth=2, zorder=1)
        for label, value, other in zip(("torch", "unified"), pair, reversed(pair), strict=True):
            axis.plot([value], [at], "o", color=_colour(label), label=label if at == 0 else None)
            outwards = 8 if value >= other else -8
            aligned = "left" if outwards > 0 else "right"
            axis.annotate(_short(value), (value, at), (outwards, 0), "data", "offset points", va="center", ha=aligned)
    axis.set_yticks(range(len(panel.rows)), list(panel.rows))
    axis.set_ylim(len(panel.rows) - 0.5, -0.5)
    axis.xaxis.set_major_formatter(_plain)
    axis.grid(alpha=0.3, linewidth=0.5, axis="x")
    axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)


def _colour(label: str) -> str:
    return _COLOURS.get(label, "#5b7c99")


def _dots(axis: Any, panel: Bars) -> list[float]:
    ends = [sum(row.values()) for row in panel.rows.values()]
    known = [end for end in ends if end > 0]
    axis.set_xscale("log")
    if known:  # whole powers of ten, with room for a number
        axis.set_xlim(10 ** math.floor(math.log10(min(known))), 10 ** math.ceil(math.log10(max(known) * 2)))
    for at, (label, end) in enumerate(zip(panel.rows, ends, strict=True)):
        if end > 0:
            axis.plot([end], [at], "o", color=_colour(label))
    axis.xaxis.set_major_formatter(_plain)
    axis.grid(alpha=0.3, linewidth=0.5)
    return ends


def _stacks(axis: Any, panel: Bars) -> list[float]:
    """Where the bars end."""
    parts = list(dict.fromkeys(part for row in panel.rows.values() for part in row))
    ends = [0.0] * len(panel.rows)
    for part in parts:
        values = [row.get(part, 0.0) for row in panel.rows.values()]
        colours = [_colour(label) for label in panel.rows] if len(parts) == 1 else None
        axis.barh(range(len(ends)), values, left=ends, label=part, color=colours, height=0.7)
        ends = [start + value for start, value in zip(ends, values, strict=True)]
    axis.margins(x=0.15)
    if len(parts) > 1:
        axis.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(parts))
    return ends


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
