"""The content of a report before it is formatted: sections with tables and drawings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """A table row; `measured` is false if none of its cells holds a result of ours."""

    label: str
    cells: tuple[str, ...]
    measured: bool = True


@dataclass(frozen=True)
class Table:
    """A table of text; `columns` starts with the heading of the row labels.

    `groups` are headings above neighbouring columns, each with its span. They cover all columns
    but the labels'; a table may have none.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    groups: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Curve:
    """Points of a plot, with a legend label and optionally a name beside each point.

    A "line" joins its points; "reported" marks numbers that were not measured here.
    """

    label: str
    points: Sequence[tuple[float, float]]
    style: Literal["line", "points", "reported"] = "line"
    names: Sequence[str] = ()


@dataclass(frozen=True)
class Plot:
    """Curves over common axes."""

    caption: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Bars:
    """Stacked horizontal bars: by label, the percentages of some kinds of frames, at most 100."""

    caption: str
    kinds: tuple[str, ...]
    bars: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class Picture:
    """A PNG."""

    caption: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """A table or figure of the report, in the order in which its fields are shown.

    `name` selects it on the command line and names its files; `data` is for the JSON file.
    """

    name: str
    title: str
    lead: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    drawings: tuple[Plot | Bars | Picture, ...] = ()
    notes: tuple[str, ...] = ()
    data: Mapping[str, Any] = field(default_factory=dict)
