"""SVG plots of benchmark figures. Needs matplotlib (`pip install --group bench`); without it there are tables only."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The same one in every plot; others get matplotlib's own, in their order.
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

    Attributes:
        ranges: label -> (low, high), drawn as a line across the end of the bar.
        log: for single parts only; a stack has no meaning on such an axis.
    """

    title: str
    x: str
    rows: dict[str, dict[str, float]]
    ranges: dict[str, tuple[float, float]] | None = None
    log: bool = False


def draw(path: Path, panels: Sequence[Lines | Bars], columns: int = 2) -> None:
    """Writes all panels into one SVG whose bytes depend on the figures alone."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": path.name, "font.size": 9, "axes.titlesize": 10})
    from matplotlib import pyplot

    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=_size(panels, rows, columns), squeeze=False)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, panel in zip(axes.flat, panels, strict=False):
        axis.set_title(panel.title)
        axis.set_xlabel(panel.x)
        axis.spines[["top", "right"]].set_visible(False)
        _lines(axis, panel) if isinstance(panel, Lines) else _bars(axis, panel)
    figure.tight_layout()
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def _size(panels: Sequence[Lines | Bars], rows: int, columns: int) -> tuple[float, float]:
    bars = max((len(panel.rows) for panel in panels if isinstance(panel, Bars)), default=0)
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
    from matplotlib.ticker import NullFormatter

    labels = list(panel.rows)
    parts = list(dict.fromkeys(part for row in panel.rows.values() for part in row))
    left = [0.0] * len(labels)
    for part in parts:
        values = [row.get(part, 0.0) for row in panel.rows.values()]
        colours = [_COLOURS.get(label) or "#5b7c99" for label in labels] if len(parts) == 1 else None
        axis.barh(labels, values, left=left, label=part, color=colours, height=0.7)
        left = [start + value for start, value in zip(left, values, strict=True)]
    for at, label in enumerate(labels):
        low, high = (panel.ranges or {}).get(label, (left[at], left[at]))
        axis.plot([low, high], [at, at], color="black", linewidth=1)
        # There is no place for 0 on a logarithmic axis.
        end, where = (0, ("axes fraction", "data")) if panel.log and left[at] <= 0 else (max(high, left[at]), "data")
        axis.annotate(_short(left[at]), (end, at), (4, 0), where, "offset points", va="center")
    axis.invert_yaxis()
    axis.margins(x=0.15)
    if panel.log:
        axis.set_xscale("log")
        axis.xaxis.set_major_formatter(_plain)
        axis.xaxis.set_minor_formatter(NullFormatter())
    if len(parts) > 1:
        axis.legend(frameon=False, loc="best")


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
