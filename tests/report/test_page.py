import csv
import io
import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from sofnet_jax.report import plot
from sofnet_jax.report.curves import create_reported
from sofnet_jax.report.page import create_page, write_section
from sofnet_jax.report.plot import draw, place_names
from sofnet_jax.report.section import Bars, Curve, Picture, Plot, Row, Section, Table
from sofnet_jax.report.text import format_section

VOID = {"meta", "link", "img", "br", "col", "hr"}
COLOURS = {plot._PAPER, plot._INK, plot._MUTED, plot._RULE, plot._ON_BARS}
COLOURS |= {*plot._CURVES, *plot._STOPS, *plot._KINDS.values()}
HOSTILE = '<script>alert("1")</script> & $x_'


class Reader(HTMLParser):
    """The elements of a page; fails at a tag that is not closed in its turn."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def create_png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


TABLE = Table(
    "Two, with a comma",
    ("method", "backbone", "mAP %", "GFLOPs", "top-1 %"),
    (
        Row("TSN", ("R50", "73.7†", "40.3", ""), measured=False),
        Row('SoF-Net "ours"', ("R50", "75.6 ± 0.2", "31.7", "–")),
    ),
    (("", 1), ("ActivityNet", 2), ("Mini-Kinetics", 1)),
)
PLOT = Plot(
    "cost",
    "GFLOPs",
    "mAP",
    (
        Curve("ours", [(1.0, 1.0), (2.0, 2.0), (3.0, 2.5)]),
        Curve("single", [(1.5, 1.0)], "points", ("a",)),
        Curve("others", [(1.0, 2.0), (2.0, 1.0)], "reported", ("b", "c")),
    ),
)
BARS = Bars("frames", ("res1", "exit", "used"), {"measured": (20.0, 5.0, 75.0)})
SECTION = Section(
    "table1",
    "Table 1",
    ("A sentence.",),
    (TABLE, TABLE),
    (PLOT, BARS, Picture("strip", create_png(40, 20))),
    ("A note.",),
    {"map": [0.737, None], "name": "ρ"},
)


def create() -> str:
    # With the same plot twice: what it refers to is named differently the second time.
    second = Section(name="figure3", title=HOSTILE, lead=(HOSTILE,), drawings=(PLOT, BARS))
    return create_page("A report", ("Lead.",), [SECTION, second])


@pytest.fixture(scope="module")
def page() -> str:
    return create()


def test_tags_are_balanced_and_every_part_is_in_the_contents(page):
    elements = Reader(page).elements
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in elements if tag == "a"]
    assert links == ["#table1", "#figure3"]
    assert [a["id"] for tag, a in elements if tag == "section"] == ["table1", "figure3"]
    used = [a["xlink:href"] for tag, a in elements if tag == "use"]
    used += re.findall(r"url\((.*?)\)", page)
    assert used and {reference[1:] for reference in used} <= set(ids)


def test_page_needs_nothing_from_elsewhere(page):
    namespaces = re.sub(r'xmlns(:\w+)?="http://www\.w3\.org/[\w/]+"', "", page)
    assert not re.search(r"https?:|//\w|<!DOCTYPE svg|<\?xml|@import|@font-face", namespaces)
    for tag, attributes in Reader(page).elements:
        assert tag != "script"
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))


def test_text_of_users_is_text():
    section = Section(
        name="p",
        title=HOSTILE,
        lead=(HOSTILE,),
        tables=(Table(HOSTILE, (HOSTILE,) * 2, (Row(HOSTILE, (HOSTILE,)),), ((HOSTILE, 1),)),),
        drawings=(
            Plot(HOSTILE, HOSTILE, HOSTILE, (Curve(HOSTILE, [(1.0, 1.0)], names=(HOSTILE,)),)),
            Bars(HOSTILE, (HOSTILE,), {HOSTILE: (100.0,)}),
            Picture(HOSTILE, create_png(1, 1)),
        ),
        notes=(HOSTILE, "\x1b[2J"),
    )
    reader = Reader(create_page(HOSTILE, (HOSTILE,), [section]))
    assert "script" not in {tag for tag, _ in reader.elements}
    # Page: title, h1, lead. Section: contents, h2, lead, note. Table: caption, a group, two
    # headings, two cells. Plot: caption, two axes, legend, name. Bars: caption, legend, label. A
    # picture's caption.
    assert reader.texts.count(HOSTILE) == 3 + 4 + 6 + 5 + 3 + 1
    assert "\x1b" not in format_section(section)


@pytest.mark.parametrize("drawing", [PLOT, BARS])
def test_drawings_have_the_colours_of_the_report(drawing):
    styles = " ".join(e.get("style", "") for e in ElementTree.fromstring(draw(drawing)).iter())
    assert not re.search(r"rgb|DejaVu", styles)
    values = set(re.findall(r"(?:fill|stroke): (\S+?)(?:;| |$)", styles))
    assert values <= {"none", *COLOURS}


def test_points_are_where_their_values_are():
    curve = Curve("", [(1.0, 0.0), (2.0, 1.0), (4.0, 1.5)], "points")
    root = ElementTree.fromstring(draw(Plot("", "", "", (curve,))))
    uses = [
        e for e in root.iter() if e.tag.endswith("}use") and plot._CURVES[0] in e.get("style", "")
    ]
    (x1, y1), (x2, y2), (x3, y3) = [(float(e.get("x")), float(e.get("y"))) for e in uses[:3]]
    assert x3 - x2 == pytest.approx(2 * (x2 - x1))
    assert y1 - y2 == pytest.approx(2 * (y2 - y3))  # y goes down


def test_pieces_are_as_long_as_their_shares():
    svg = draw(BARS)
    widths = {}
    for element in ElementTree.fromstring(svg).iter():
        kind = re.search(r"fill: (#\w+);", element.get("style", ""))
        if kind and element.get("clip-path"):
            x = [float(x) for x in re.findall(r"[ML] (\S+)", element.get("d"))]
            widths[kind[1]] = max(x) - min(x)
    [stop, *_], unseen, used = plot._STOPS, plot._KINDS["exit"], plot._KINDS["used"]
    assert widths[stop] == pytest.approx(4 * widths[unseen], rel=1e-4)
    assert widths[used] == pytest.approx(15 * widths[unseen], rel=1e-4)
    assert ">20.0<" in svg and ">75.0<" in svg and ">5.0<" not in svg  # too narrow for its number


def test_names_of_neighbouring_points_do_not_cover_each_other():
    figure = Figure(figsize=(7, 5), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    points = [(1.0, 1.0), (1.1, 1.0), (1.1, 1.05), (1.2, 1.02), (5.0, 5.0), (9.0, np.nan)]
    axes.plot(*zip(*points, strict=True), "o")
    place_names(figure, axes, [("a name of some length", x, y, "black") for x, y in points])
    boxes = [text.get_window_extent() for text in axes.texts if text.get_text()]
    assert len(boxes) == 5  # none of the point that is nowhere
    assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_leader_lines_do_not_cross_names():
    figure = Figure(figsize=(7, 5), dpi=72, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    systems = create_reported("mini_kinetics")  # FrameExit's line crossed AdaFocus' name
    axes.plot(*zip(*systems.points, strict=True), "o")
    points = zip(systems.names, systems.points, strict=True)
    place_names(figure, axes, [(name, *point, "black") for name, point in points])
    names = {tuple(text.xy): text.get_window_extent() for text in axes.texts if text.get_text()}
    leaders = [text for text in axes.texts if not text.get_text()]
    assert leaders
    for leader in leaders:
        start, offset = axes.transData.transform(leader.xy), np.array(leader.get_position())
        others = [box for point, box in names.items() if point != tuple(leader.xy)]
        line = [start + share * offset for share in np.linspace(0.2, 0.9, 50)]
        assert not any(box.contains(*point) for box in others for point in line)


@pytest.mark.parametrize(
    "drawing",
    [
        Plot("", "", "", ()),
        Plot("", "", "", (Curve("", ()), Curve("", [(1.0, np.nan)], "line", ("a",)))),
        Bars("", (), {}),
        Bars("", ("used",), {"": (0.0,)}),
    ],
)
def test_little_can_be_drawn(drawing):
    assert draw(drawing).startswith("<svg")


def test_files_hold_what_the_part_holds(tmp_path):
    paths = write_section(tmp_path, SECTION)
    csvs = ["table1.csv", "table1_2.csv"]
    names = ["table1.json", *csvs, "table1.svg", "table1_2.svg", "table1.png"]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)
    assert json.loads(paths[0].read_text()) == SECTION.data
    table = [
        [
            "method",
            "backbone",
            "ActivityNet: mAP %",
            "ActivityNet: GFLOPs",
            "Mini-Kinetics: top-1 %",
        ],
        ["TSN", "R50", "73.7†", "40.3", ""],
        ['SoF-Net "ours"', "R50", "75.6 ± 0.2", "31.7", "–"],
    ]
    for path in paths[1:3]:
        with path.open(encoding="utf-8", newline="") as file:
            assert list(csv.reader(file)) == table
    for path in paths[3:5]:
        text = path.read_text(encoding="utf-8")
        ElementTree.fromstring(text)
        assert set(re.findall(r"(?<=: )#\w+", text)) <= COLOURS
    assert paths[5].read_bytes() == SECTION.drawings[2].png


def test_same_parts_give_the_same_bytes(page, tmp_path):
    files = [
        {path.name: path.read_bytes() for path in write_section(tmp_path / name, SECTION)}
        for name in ("a", "b")
    ]
    assert files[0] == files[1]
    assert create() == page


def test_text_for_the_terminal_is_in_columns():
    lines = format_section(SECTION).split("\n")
    assert lines[:2] == ["Table 1", "======="]
    first = lines.index("Two, with a comma") + 2
    assert lines[first : first + 5] == [
        "                             ActivityNet      Mini-Kinetics",
        "method          backbone       mAP %  GFLOPs        top-1 %",
        "-----------------------------------------------------------",
        "TSN             R50            73.7†    40.3",
        'SoF-Net "ours"  R50       75.6 ± 0.2    31.7              –',
    ]
    assert {"Plot: cost", "Bars: frames", "Picture: strip", "A note."} <= set(lines)
