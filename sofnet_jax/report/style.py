"""Colours of the report: CSS variables and their values on light and dark paper."""

import re
from collections.abc import Mapping

# Curves are distinct to the colour-blind and contrast with the paper by 3:1, text by 4.5:1.
CURVES = ("curve-1", "curve-2", "curve-3", "curve-4", "curve-5")
STOPS = ("piece-1", "piece-2", "piece-3", "piece-4", "piece-5")  # from pale to dark

_COLOURS = {  # on light and on dark paper
    "paper": ("#ffffff", "#15171b"),
    "ink": ("#1b1d22", "#e6e8eb"),
    "muted": ("#62676f", "#9aa1ab"),
    "rule": ("#dfe2e6", "#33373e"),
    "accent": ("#0b5cad", "#7db8f2"),
    "curve-1": ("#174f86", "#4b8cf5"),
    "curve-2": ("#de5f10", "#cf7f42"),
    "curve-3": ("#12a078", "#7bedb8"),
    "curve-4": ("#bd48bd", "#e64aa0"),
    "curve-5": ("#574308", "#f5de6a"),
}
_PIECES = {  # under dark text on both papers
    "piece-1": "#fbeec8",
    "piece-2": "#f6cd84",
    "piece-3": "#ea9f5e",
    "piece-4": "#d67a5c",
    "piece-5": "#b0718f",
    "piece-exit": "#c3c8d0",
    "piece-used": "#6aa5e0",
    "on-piece": "#16181d",
}
LIGHT, DARK = ({name: pair[paper] for name, pair in _COLOURS.items()} | _PIECES for paper in (0, 1))

# Stand for the variables where only a colour is understood.
PLACEHOLDERS = {name: f"#f0e1{i:02x}" for i, name in enumerate(LIGHT)}
_NAMES = {colour: name for name, colour in PLACEHOLDERS.items()}


def format_theme(theme: Mapping[str, str]) -> str:
    """CSS that sets the variables."""
    values = "; ".join(f"--{name}: {value}" for name, value in theme.items())
    return f":root {{ {values} }}"


def resolve(text: str, theme: Mapping[str, str]) -> str:
    """Replace variables by their values."""
    return re.sub(r"var\(--([\w-]+)\)", lambda match: theme[match[1]], text)


def name_colours(text: str) -> str:
    """Replace placeholders by variables. Raises KeyError at any other colour."""
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: f"var(--{_NAMES[match[0]]})", text)
