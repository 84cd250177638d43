"""Where the names of points go in a plot."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

Place = tuple[float, float, str, str]  # offset and alignment, each horizontal and vertical

_SIZE = 10.5  # of the names, in points, as are the offsets
_SIDES = (  # direction and alignment, by preference
    (1.0, 0.0, "left", "center_baseline"),
    (-1.0, 0.0, "right", "center_baseline"),
    (0.0, 1.0, "center", "bottom"),
    (0.0, -1.0, "center", "top"),
    (0.75, 0.75, "left", "bottom"),
    (0.75, -0.75, "left", "top"),
    (-0.75, 0.75, "right", "bottom"),
    (-0.75, -0.75, "right", "top"),
)
_DISTANCES = (7.0, 20.0, 34.0, 50.0)  # from the point
_BRIDGED = 10.0  # a leader line bridges larger distances
_PLACES: list[Place] = [(d * x, d * y, ha, va) for d in _DISTANCES for x, y, ha, va in _SIDES]
_HALF = 6.0  # half the side of a box around a point
_ROUNDS = 4
_FAR = 0.5  # the area in square points that a name may cover to be one point nearer


def place_names(figure: Figure, axes: Axes, names: Iterable[tuple[str, float, float, str]]) -> None:
    """Write names beside their points, each where it covers least.

    Args:
        figure: everything else is drawn already; its canvas must be able to measure text.
        axes: those of the points.
        names: with x, y and colour; a point that is not finite is left out.
    """
    figure.draw_without_rendering()  # from here on the axes stay where they are
    texts = [
        axes.annotate(name, (x, y), (0, 0), textcoords="offset points", size=_SIZE, color=colour)
        for name, x, y, colour in names
        if np.isfinite([x, y]).all()
    ]
    fixed = np.concatenate([np.empty((0, 4)), *(_list_boxes(line, axes) for line in axes.lines)])
    places = _choose_places(texts, fixed, axes)
    for text, place in zip(texts, places, strict=True):
        text.set_in_layout(False)
        _move(text, place)
        if math.hypot(*text.get_position()) > _BRIDGED:
            _draw_leader(axes, text)


def _choose_places(
    texts: Sequence[Annotation], fixed: Float[np.ndarray, "m 4"], axes: Axes
) -> list[Place]:
    """The best place of each text given those of the others, improved in a few rounds."""
    if not texts:
        return []
    boxes = np.array([[_measure(text, place) for place in _PLACES] for text in texts])
    distance = np.array([math.hypot(x, y) for x, y, *_ in _PLACES])
    within = _compute_overlap(boxes, np.array([axes.bbox.extents]))
    own_cost = _compute_overlap(boxes, fixed) - within + _FAR * distance
    leaders = np.array([_list_leaders(text, axes) for text in texts])
    chosen = own_cost.argmin(axis=1)
    for i in itertools.chain(*[range(len(texts))] * _ROUNDS):
        others = np.arange(len(texts)) != i
        names = boxes[others, chosen[others]]
        lines = leaders[others, chosen[others]].reshape(-1, 4)
        cost = own_cost[i] + _compute_overlap(boxes[i], np.concatenate([names, lines]))
        chosen[i] = (cost + _compute_overlap(leaders[i], names).sum(axis=1)).argmin()
    return [_PLACES[place] for place in chosen]


def _compute_overlap(
    boxes: Float[np.ndarray, "*n 4"], others: Float[np.ndarray, "m 4"]
) -> Float[np.ndarray, "*n"]:
    """The area that each box shares with the others; a box is left, bottom, right, top."""
    low = np.maximum(boxes[..., None, :2], others[:, :2])
    high = np.minimum(boxes[..., None, 2:], others[:, 2:])
    return np.prod(np.maximum(high - low, 0), axis=-1).sum(axis=-1)


def _measure(text: Annotation, place: Place) -> Float[np.ndarray, "4"]:
    _move(text, place)
    return np.array(text.get_window_extent().extents)


def _draw_leader(axes: Axes, text: Annotation) -> None:
    """A thin line between a distant name and its point."""
    line = {"arrowstyle": "-", "color": text.get_color(), "linewidth": 0.6, "shrinkB": _HALF}
    where: dict[str, Any] = {"xytext": text.get_position(), "textcoords": "offset points"}
    axes.annotate("", text.xy, arrowprops=line, **where).set_in_layout(False)


def _list_leaders(text: Annotation, axes: Axes) -> Float[np.ndarray, "p s 4"]:
    """Boxes along the leader line to each place; empty boxes where there is none."""
    offsets = np.array([(x, y) for x, y, *_ in _PLACES])
    along = np.linspace(0.2, 0.8, 7)[:, None] * offsets[:, None]
    half = _HALF / 2 * (np.hypot(*offsets.T) > _BRIDGED)[:, None, None]
    points = axes.transData.transform(text.xy) + along
    return np.concatenate([points - half, points + half], axis=-1)


def _move(text: Annotation, place: Place) -> None:
    x, y, horizontal, vertical = place
    text.set(position=(x, y), horizontalalignment=horizontal, verticalalignment=vertical)


def _list_boxes(line: Line2D, axes: Axes) -> Float[np.ndarray, "n 4"]:
    """Boxes in pixels around the points of a line and along what joins them."""
    path = line.get_path()
    if line.get_linestyle() != "None":
        path = path.interpolated(12)
    points: Float[np.ndarray, "n 2"] = axes.transData.transform(np.asarray(path.vertices))
    points = points[np.isfinite(points).all(axis=1)]
    return np.concatenate([points - _HALF, points + _HALF], axis=1)
