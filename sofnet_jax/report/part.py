"""What a report consists of: parts, each with tables, plots and pictures, before they are drawn."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Style = Literal["line", "points", "reported"]


@dataclass(frozen=True)
class Row:
    """A line of a table, as text.

    Attributes:
        label: what it is of.
        cells: one for each further column; "" is shown as an empty cell.
        measured: whether there is anything of ours in it; rows without are shown paler.
    """

    label: str
    cells: tuple[str, ...]
    measured: bool = True


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        caption: a line above it.
        groups: headings over neighbouring columns, with how many they span; the first column, of
            the labels, is not counted. Empty if there are none.
        columns: headings of all columns; the first is that of the labels.
        rows: the lines.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    groups: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Curve:
    """Points of a plot: joined, single, or single and marked as reported by others.

    Attributes:
        label: in the legend; beside each point if `names` are given.
        x, y: the values.
        style: how it is drawn.
        names: of the points, drawn beside them.
        spread: standard deviations of y, if known, drawn as bars.
    """

    label: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    style: Style = "line"
    names: tuple[str, ...] = ()
    spread: tuple[float, ...] = ()


@dataclass(frozen=True)
class Plot:
    """Curves over common axes."""

    caption: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Bars:
    """Stacked horizontal bars (Figure 3).

    Attributes:
        caption: a line above.
        kinds: what the pieces of each bar are, in order: "res1" … "exit", "used".
        bars: percentages by label of the bar, one for each kind; they add to 100 or less.
    """

    caption: str
    kinds: tuple[str, ...]
    bars: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Picture:
    """A PNG."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class Part:
    """One table or figure of the paper, or one of our own.

    Attributes:
        name: as in `python -m sofnet_jax.report NAME`; of its files, too.
        title: its heading.
        lead: sentences below the heading.
        tables, plots, bars, pictures: what it shows, in this order.
        notes: small print: what was not run, what to know of the runs.
        data: everything that was drawn, for JSON.
    """

    name: str
    title: str
    lead: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()
    bars: tuple[Bars, ...] = ()
    pictures: tuple[Picture, ...] = ()
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
