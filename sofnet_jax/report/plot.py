"""Plots and bars as SVG, inline or as files, in the colours of light paper."""

import io
import itertools
import math
import re
import textwrap
import warnings
from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib.style
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Annotation

from sofnet_jax.report.section import Bars, Curve, Plot

_PAPER, _INK, _MUTED, _RULE = "#ffffff", "#1b1d22", "#62676f", "#dfe2e6"
# Distinct to the colour-blind. They contrast with the paper by 3:1, text by 4.5:1.
_CURVES = ("#174f86", "#de5f10", "#12a078", "#bd48bd", "#574308")
_STOPS = ("#fbeec8", "#f6cd84", "#ea9f5e", "#d67a5c", "#b0718f")  # from pale to dark
_KINDS = {"exit": "#c3c8d0", "used": "#6aa5e0"}  # all others are stops
_ON_BARS = "#16181d"  # numbers
_SIZE = 11.5  # of text, in points; an SVG's unit is a point, too
_STYLE = {
    "svg.fonttype": "none",  # text remains text
    "text.parse_math": False,
    "font.size": _SIZE,
    "text.color": _INK,
    "axes.titlesize": _SIZE,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.xmargin": 0.07,
    "axes.ymargin": 0.1,
    "grid.color": _RULE,
    **dict.fromkeys((f"axes.{n}color" for n in ("title", "label", "edge")), _MUTED),
    **dict.fromkeys((f"axes.spines.{side}" for side in ("left", "right", "top")), False),
    **dict.fromkeys(("xtick.color", "ytick.color"), _MUTED),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 0),
    "lines.linewidth": 2,
    "lines.markersize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.4,
    "legend.handletextpad": 0.6,
    **dict.fromkeys(("legend.borderaxespad", "legend.borderpad"), 0),
    "figure.constrained_layout.h_pad": 0.04,
    "figure.constrained_layout.w_pad": 0.0,
}
_MARKERS = ("o", "s", "^", "D", "v", "P")
_MARKED = 16  # markers on a line, at most about twice as many
_THICK = 0.4  # inches, of a bar
_LABEL = 44  # characters of a bar's label on one line
_LEAST = 7.0  # percent of a bar in which a number fits

_NAME_SIZE = 10.5  # of the names of points, in points
_SIDES = (  # where a name may be: direction and alignment, by preference
    (1.0, 0.0, "left", "center_baseline"),
    (-1.0, 0.0, "right", "center_baseline"),
    (0.0, 1.0, "center", "bottom"),
    (0.0, -1.0, "center", "top"),
    (0.75, 0.75, "left", "bottom"),
    (0.75, -0.75, "left", "top"),
    (-0.75, 0.75, "right", "bottom"),
    (-0.75, -0.75, "right", "top"),
)
_DISTANCES = range(7, 71, 9)  # from the point, in points
_BRIDGED = 10.0  # a leader line bridges larger distances
_HALF = 5.0  # half the side of a box around a point
_FAR = 0.1  # the area in square points that a name may cover to be one point nearer

_SVG = "http://www.w3.org/2000/svg"
_GROW = 1.4  # limit of the width on the page, in pixels for a point
_MARGIN = 12  # points
_FONT = "system-ui, sans-serif"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")


def draw(drawing: Plot | Bars, salt: str = "sofnet_jax") -> str:
    """An SVG element, the same text for the same arguments.

    `salt` makes its ids differ from those of other elements on a page.
    """
    # Settings in a user's matplotlibrc have no effect.
    style = matplotlib.style.context(["default", _STYLE | {"svg.hashsalt": salt}])
    with style, warnings.catch_warnings():
        # Text is rendered later, with the reader's fonts.
        warnings.filterwarnings("ignore", "Glyph .* missing from font", UserWarning)
        figure = _draw_plot(drawing) if isinstance(drawing, Plot) else _draw_bars(drawing)
        return _format_svg(figure, drawing.caption)


def _draw_plot(plot: Plot) -> Figure:
    """Curves, with the label of the y axis above it."""
    figure, axes = _create_axes(7.0, 5.2)
    axes.set_xlabel(plot.x_label, loc="right")
    axes.set_title(plot.y_label, loc="left", pad=10)
    colours, markers, hollow = map(itertools.cycle, (_CURVES, _MARKERS, _MARKERS))
    lines = [
        _draw_curve(axes, curve, _MUTED, next(hollow))
        if curve.style == "reported"
        else _draw_curve(axes, curve, next(colours), next(markers))
        for curve in plot.curves
    ]
    _add_legend(figure, lines, [curve.label for curve in plot.curves])
    names = [
        (name, x, y, _MUTED if curve.style == "reported" else _INK)
        for curve in plot.curves
        for name, (x, y) in zip(curve.names, curve.points, strict=False)
    ]
    place_names(figure, axes, names)
    return figure


def _draw_curve(axes: Axes, curve: Curve, colour: str, marker: str) -> Line2D:
    options: dict[str, Any] = {
        "markeredgecolor": _PAPER,
        "markevery": max(len(curve.points) // _MARKED, 1),
        "zorder": 3,
    }
    if curve.style == "reported":
        options = {"markerfacecolor": _PAPER, "markeredgewidth": 1.5, "zorder": 2.5}
    joined = "-" if curve.style == "line" else "none"
    x, y = np.reshape(curve.points, (-1, 2)).T
    [line] = axes.plot(x, y, color=colour, marker=marker, linestyle=joined, **options)
    return line


def place_names(figure: Figure, axes: Axes, names: Iterable[tuple[str, float, float, str]]) -> None:
    """Write names beside their points, one after the other, each where it covers least.

    Args:
        figure: everything else is drawn already; its canvas must be able to measure text.
        axes: those of the points.
        names: with x, y and colour; a point that is not finite is left out.
    """
    figure.draw_without_rendering()  # from here on the axes stay where they are
    taken = np.concatenate([np.empty((0, 4)), *(_list_boxes(line, axes) for line in axes.lines)])
    for name, x, y, colour in names:
        if np.isfinite([x, y]).all():
            where: dict[str, Any] = {"xy": (x, y), "textcoords": "offset points"}
            text = axes.annotate(name, xytext=(0, 0), size=_NAME_SIZE, color=colour, **where)
            taken = np.concatenate([taken, _place(text, taken, axes)])
            if math.hypot(*text.get_position()) > _BRIDGED:
                line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkB": _HALF}
                axes.annotate("", xytext=text.get_position(), arrowprops=line, **where)
    for written in axes.texts:
        written.set_in_layout(False)


def _place(
    text: Annotation, taken: Float[np.ndarray, "m 4"], axes: Axes
) -> Float[np.ndarray, "n 4"]:
    """Move a name to its best place; returns the boxes that it and its leader line cover."""
    within, point = np.array([axes.bbox.extents]), axes.transData.transform(text.xy)
    places = []
    for distance, (x, y, horizontal, vertical) in itertools.product(_DISTANCES, _SIDES):
        offset = distance * np.array([x, y])
        place = {"position": offset, "ha": horizontal, "va": vertical}
        text.set(**place)
        name = np.array([text.get_window_extent().extents])
        length = math.hypot(*offset)
        steps = point + np.linspace(0.2, 0.8, 7 if length > _BRIDGED else 0)[:, None] * offset
        half = _HALF / 2
        boxes = np.concatenate([name, np.concatenate([steps - half, steps + half], axis=1)])
        cost = _compute_overlap(boxes, taken) - _compute_overlap(name, within) + _FAR * length
        places.append((cost, place, boxes))
    _, place, boxes = min(places, key=lambda candidate: candidate[0])
    text.set(**place)
    return boxes


def _compute_overlap(boxes: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> float:
    """The area that the boxes share with the others; a box is left, bottom, right, top."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, 2:], others[:, 2:])
    return float(np.prod(np.maximum(high - low, 0), axis=-1).sum())


def _list_boxes(line: Line2D, axes: Axes) -> Float[np.ndarray, "n 4"]:
    """Boxes in pixels around the points of a line and along what joins them."""
    path = line.get_path()
    if line.get_linestyle() != "None":
        path = path.interpolated(12)
    points: Float[np.ndarray, "n 2"] = axes.transData.transform(np.asarray(path.vertices))
    points = points[np.isfinite(points).all(axis=1)]
    return np.concatenate([points - _HALF, points + _HALF], axis=1)


def _draw_bars(bars: Bars) -> Figure:
    """Bars, each below its label; narrow enough for a phone, so that long labels are wrapped."""
    labels = ["\n".join(textwrap.wrap(label, _LABEL)) for label in bars.bars]
    lines = max((label.count("\n") + 1 for label in labels), default=0)
    slot = 0.55 + 0.2 * lines  # inches, as are heights on the axes
    figure, axes = _create_axes(4.5, 0.8 + slot * len(labels))
    stops = itertools.cycle(_STOPS)
    colours = [_KINDS.get(kind) or next(stops) for kind in bars.kinds]
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
    return figure


def _draw_bar(axes: Axes, low: float, shares: Sequence[float], colours: Sequence[str]) -> None:
    left, middle = 0.0, low - _THICK / 2
    for share, colour in zip(shares, colours, strict=True):
        if share > 0:
            axes.barh(middle, share, _THICK, left, color=colour, edgecolor=_PAPER, linewidth=1.2)
        if share >= _LEAST:
            place: dict[str, Any] = {"ha": "center", "va": "center_baseline", "color": _ON_BARS}
            axes.text(left + share / 2, middle, f"{share:.1f}", **place)
        left += share


def _create_axes(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)  # which can measure text
    return figure, figure.subplots()


def _add_legend(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], **options: Any
) -> None:
    if not handles:
        return
    wide = 0.6 * _SIZE * max(map(len, labels)) + 38  # about the width of an entry
    columns = min(int(figure.bbox.width // wide) or 1, len(labels))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns, **options)


def _format_svg(figure: Figure, caption: str) -> str:
    """An element that also is a file: on paper, with a margin, without what a page has once."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", metadata=nothing, facecolor="none")
    root = ElementTree.fromstring(_clean(text.getvalue()))
    root.remove(root[0])  # a style sheet, which would apply to the whole page
    for element in root.iter():
        if element.tag == f"{{{_SVG}}}g":
            element.attrib.pop("id", None)  # figure_1, axes_1 …, the same in every figure
        if style := element.get("style"):
            element.set("style", re.sub(r"'DejaVu Sans'.*sans-serif", _FONT, style))
    least, width = figure.bbox.width, figure.bbox.width + 2 * _MARGIN
    height = figure.bbox.height + 2 * _MARGIN
    root.attrib.update(
        {"role": "img", "aria-label": _clean(caption)},
        width=f"{width:g}pt",
        height=f"{height:g}pt",
        viewBox=f"{-_MARGIN} {-_MARGIN} {width:g} {height:g}",
        style=f"min-width: {least:.0f}px; max-width: {_GROW * width:.0f}px; stroke-linejoin: round",
    )
    paper = f"M{-_MARGIN} {-_MARGIN}h{width:g}v{height:g}h{-width:g}z"
    element = ElementTree.Element(f"{{{_SVG}}}path", {"d": paper, "style": f"fill: {_PAPER}"})
    root.insert(0, element)
    return ElementTree.tostring(root, encoding="unicode")


def _clean(text: str) -> str:
    """Replace control characters, which XML does not have."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "\ufffd", text)
