"""Figures of matplotlib as SVG: within a page, in its colours and fonts, or as a file."""

import io
import re
from xml.etree import ElementTree

from matplotlib.figure import Figure

from sofnet_jax.report.colour import LIGHT, name_colours, resolve

_SVG, _XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
_LEAST, _MOST = 1.0, 1.4  # how far it shrinks and grows with the page; 1 is a pixel for a point
_MARGIN = 12  # points, of a file
_FONT = "system-ui, sans-serif"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _XLINK)


def create_inline(figure: Figure, caption: str) -> str:
    """An SVG element in the page's colours; the same figure gives the same text."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", metadata=nothing, facecolor="none")
    root = ElementTree.fromstring(_clean(text.getvalue()))
    root.remove(root[0])  # a style sheet, which would hold for the whole page
    width = figure.bbox.width  # of the view box
    sizes = f"min-width: {_LEAST * width:.0f}px; max-width: {_MOST * width:.0f}px"
    root.set("style", f"{sizes}; stroke-linejoin: round")
    root.set("role", "img")
    root.set("aria-label", _clean(caption))
    for element in root.iter():
        if element.tag == f"{{{_SVG}}}g":
            element.attrib.pop("id", None)  # figure_1, axes_1 …, the same in every figure
        if style := element.get("style"):
            style = re.sub(r"'DejaVu Sans'.*sans-serif", _FONT, style)
            element.set("style", name_colours(style))
    return ElementTree.tostring(root, encoding="unicode")


def prefix_ids(svg: str, prefix: str) -> str:
    """The element with ids that no other has on the page."""
    root = ElementTree.fromstring(svg)
    for element in root.iter():
        for name, value in element.items():
            if name == "id":
                element.set(name, prefix + value)
            elif name == f"{{{_XLINK}}}href":
                element.set(name, f"#{prefix}{value[1:]}")
            elif name == "clip-path":
                element.set(name, value.replace("url(#", f"url(#{prefix}"))
    return ElementTree.tostring(root, encoding="unicode")


def create_standalone(svg: str) -> str:
    """The same as a file of its own: in the colours for light paper, on white with a margin."""
    root = ElementTree.fromstring(svg)
    width, height = (float(size) + 2 * _MARGIN for size in root.attrib["viewBox"].split()[2:])
    root.attrib.update(
        width=f"{width:g}pt",
        height=f"{height:g}pt",
        viewBox=f"{-_MARGIN} {-_MARGIN} {width:g} {height:g}",
        style="stroke-linejoin: round",
    )
    for element in root.iter():
        if style := element.get("style"):
            element.set("style", resolve(style, LIGHT))
    paper = f"M{-_MARGIN} {-_MARGIN}h{width:g}v{height:g}h{-width:g}z"
    style = f"fill: {LIGHT['paper']}"
    root.insert(0, ElementTree.Element(f"{{{_SVG}}}path", {"d": paper, "style": style}))
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def _clean(text: str) -> str:
    """The text without control characters, which XML does not have."""
    return re.sub(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", "\ufffd", text)
