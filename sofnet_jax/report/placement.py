"""Where the names of points go in a plot."""

import itertools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Annotation

_SIZE = 10.5  # of the names, in points
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
_DISTANCES = range(7, 71, 9)  # from the point, in points
_BRIDGED = 10.0  # a leader line bridges larger distances
_HALF = 5.0  # half the side of a box around a point
_FAR = 0.1  # the area in square points that a name may cover to be one point nearer


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
            text = axes.annotate(name, xytext=(0, 0), size=_SIZE, color=colour, **where)
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
