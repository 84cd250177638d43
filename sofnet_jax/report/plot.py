"""Plots and bars, drawn as SVG."""

import contextlib
import itertools
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from sofnet_jax.report.colour import CURVES, PLACEHOLDERS, STOPS
from sofnet_jax.report.part import Bars, Curve, Plot
from sofnet_jax.report.placement import place_names
from sofnet_jax.report.vector import create_inline

_INK, _MUTED, _RULE, _PAPER = (PLACEHOLDERS[name] for name in ("ink", "muted", "rule", "paper"))
_SIZE = 11.5  # of text, in points; the unit of an SVG is one, too
_STYLE = {
    "svg.fonttype": "none",  # text remains text
    "svg.hashsalt": "sofnet_jax",
    "text.parse_math": False,
    "font.size": _SIZE,
    "text.color": _INK,
    "axes.titlesize": _SIZE,
    "axes.titlecolor": _MUTED,
    "axes.labelcolor": _MUTED,
    "axes.edgecolor": _MUTED,
    "axes.facecolor": "none",
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.07,
    "axes.ymargin": 0.1,
    "grid.color": _RULE,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "lines.markersize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.4,
    "legend.handletextpad": 0.6,
    "legend.borderaxespad": 0,
    "legend.borderpad": 0,
    "figure.constrained_layout.h_pad": 0.04,
    "figure.constrained_layout.w_pad": 0.0,
}
_MARKERS = ("o", "s", "^", "D", "v", "P")
_MARKED = 16  # points of a line with markers, at most about twice as many
_THICK = 0.4  # inches, of a bar
_LABEL = 44  # characters of a bar's label on one line
_LEAST = 7.0  # per cent of a bar in which a number has room
_KINDS = {"exit": "piece-exit", "used": "piece-used"}  # all others are stops


@contextlib.contextmanager
def _set_up() -> Iterator[None]:
    """Draws as here whatever a user's matplotlibrc says."""
    with matplotlib.style.context(["default", _STYLE]), warnings.catch_warnings():
        # Text is drawn later, with the reader's fonts.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        yield


@_set_up()
def draw_plot(plot: Plot) -> str:
    """The curves as an SVG element in the page's colours; the y axis is labelled above it."""
    figure, axes = _create_axes(7.0, 5.2)
    axes.set_xlabel(plot.x_label, loc="right")
    axes.set_title(plot.y_label, loc="left", pad=10)
    colours, markers = itertools.cycle(CURVES), itertools.cycle(_MARKERS)
    hollow = itertools.cycle(_MARKERS)
    lines = [
        _draw_reported(axes, curve, next(hollow))
        if curve.style == "reported"
        else _draw_measured(axes, curve, PLACEHOLDERS[next(colours)], next(markers))
        for curve in plot.curves
    ]
    _add_legend(figure, lines, [curve.label for curve in plot.curves])
    names = [
        (name, x, y, _MUTED if curve.style == "reported" else _INK)
        for curve in plot.curves
        for name, x, y in zip(curve.names, curve.x, curve.y, strict=False)
    ]
    place_names(figure, axes, names)
    return create_inline(figure, plot.caption)


@_set_up()
def draw_bars(bars: Bars) -> str:
    """The bars as an SVG element in the page's colours, each below its label.

    It is narrow enough for a phone, where labels of more than one line are wrapped.
    """
    labels = ["\n".join(textwrap.wrap(label, _LABEL)) for label in bars.bars]
    lines = max((label.count("\n") + 1 for label in labels), default=0)
    slot = 0.55 + 0.2 * lines  # inches, as are heights on the axes
    figure, axes = _create_axes(4.5, 0.8 + slot * len(labels))
    stops = itertools.cycle(STOPS)
    colours = [PLACEHOLDERS[_KINDS.get(kind) or next(stops)] for kind in bars.kinds]
    for row, (label, shares) in enumerate(zip(labels, bars.bars.values(), strict=True), 1):
        _draw_bar(axes, row * slot, shares, colours)
        axes.text(0, row * slot - _THICK - 0.06, label, va="bottom", linespacing=1.15)
    axes.set(xlim=(0, 100), ylim=(slot * len(labels) + 0.06, 0.1), yticks=[])
    axes.set_xticks(range(0, 101, 25), [f"{share} %" for share in range(0, 101, 25)])
    first, *_, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")  # so that the bars are as wide as the figure
    last.set_horizontalalignment("right")
    axes.spines["bottom"].set_visible(False)
    axes.grid(False)
    patches = [Patch(facecolor=colour, edgecolor="none") for colour in colours]
    _add_legend(figure, patches, bars.kinds, handlelength=0.9)
    return create_inline(figure, bars.caption)


def _draw_bar(axes: Axes, low: float, shares: Sequence[float], colours: Sequence[str]) -> None:
    left, middle = 0.0, low - _THICK / 2
    for share, colour in zip(shares, colours, strict=True):
        if share > 0:
            axes.barh(middle, share, _THICK, left, color=colour, edgecolor=_PAPER, linewidth=1.2)
        if share >= _LEAST:
            at, ink = left + share / 2, PLACEHOLDERS["on-piece"]
            axes.text(at, middle, f"{share:.1f}", ha="center", va="center_baseline", color=ink)
        left += share


def _create_axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)  # which can measure text
    return figure, figure.subplots()


def _draw_measured(axes: Axes, curve: Curve, colour: str, marker: str) -> ErrorbarContainer:
    return axes.errorbar(
        curve.x,
        curve.y,
        curve.spread or None,
        color=colour,
        marker=marker,
        linestyle="-" if curve.style == "line" else "none",
        markevery=max(len(curve.x) // _MARKED, 1),
        markeredgecolor=_PAPER,
        elinewidth=1.2,
        capsize=3,
        zorder=3,
    )


def _draw_reported(axes: Axes, curve: Curve, marker: str) -> ErrorbarContainer:
    return axes.errorbar(
        curve.x,
        curve.y,
        curve.spread or None,
        color=_MUTED,
        marker=marker,
        linestyle="none",
        markerfacecolor=_PAPER,
        markeredgewidth=1.5,
        elinewidth=1.2,
        capsize=3,
        zorder=2.5,
    )


def _add_legend(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], **options: Any
) -> None:
    if not handles:
        return
    wide = 0.6 * _SIZE * max(map(len, labels)) + 38  # about what one takes
    columns = min(int(figure.bbox.width // wide) or 1, len(labels))
    order = [i for column in range(columns) for i in range(len(labels))[column::columns]]
    figure.legend(
        [handles[i] for i in order],  # which goes down the columns, while one reads along the rows
        [labels[i] for i in order],
        loc="outside upper left",
        ncols=columns,
        **options,
    )
