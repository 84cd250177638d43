"""The style sheet of the page."""

from collections.abc import Mapping

from sofnet_jax.report.colour import DARK, LIGHT


def create_style() -> str:
    """CSS for light and dark paper, narrow and wide screens, and print."""
    dark = f"@media screen and (prefers-color-scheme: dark) {{\n{_format_theme(DARK)}}}\n"
    return _format_theme(LIGHT) + dark + _RULES


def _format_theme(theme: Mapping[str, str]) -> str:
    values = "; ".join(f"--{name}: {value}" for name, value in theme.items())
    return f":root {{ {values} }}\n"


_RULES = """\
* { box-sizing: border-box }
html { color-scheme: light dark; -webkit-text-size-adjust: 100%; text-size-adjust: 100% }
body {
  --edge: clamp(1rem, 5vw, 3rem);
  max-width: 72rem; margin: 0 auto; padding: 4rem var(--edge) 6rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, sans-serif;
  font-kerning: normal; overflow-wrap: break-word; hanging-punctuation: first;
}
h1, h2 { line-height: 1.2; letter-spacing: -0.015em; text-wrap: balance; font-weight: 650 }
h1 { font-size: clamp(1.9rem, 1.4rem + 2.2vw, 2.6rem); margin: 0 0 1.25rem }
h2 { font-size: 1.4rem; margin: 0 0 .75rem }
p { max-width: 40rem; margin: 0 0 .75rem; text-wrap: pretty }
header p { font-size: 1.1rem }
a { color: var(--accent); text-decoration-thickness: .06em; text-underline-offset: .2em }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 2px }

nav { margin: 2.5rem 0 0; padding: 1.25rem 0; border-block: 1px solid var(--rule) }
nav h2 { font-size: .8rem; letter-spacing: .06em; text-transform: uppercase; color: var(--muted) }
nav ol { columns: 3 17rem; column-gap: 2rem; list-style: none; margin: 0; padding: 0 }
nav li { break-inside: avoid; padding: .15rem 0 }
nav a { text-decoration: none }
nav a:hover { text-decoration: underline }

section { margin-top: 4.5rem; scroll-margin-top: 1.5rem }
figure, .scroll { margin: 1.75rem 0 }
figure .scroll { margin: 0 }
caption, figcaption { color: var(--muted); font-size: .9rem; line-height: 1.45; text-align: left }
figcaption { max-width: 40rem; margin-bottom: .9rem }
caption { padding-bottom: .7rem }
caption span {
  display: inline-block; position: sticky; left: 0;
  max-width: min(40rem, 100vw - 2 * var(--edge));
}
.scroll {
  position: relative; overflow-x: auto; overscroll-behavior-x: contain;
  background:
    linear-gradient(to left, var(--paper) 1.5rem, transparent) right / 2.5rem 100% local,
    linear-gradient(to left, var(--rule), transparent) right 1px top 1px / .75rem calc(100% - 2px);
  background-repeat: no-repeat;
}

table { width: max-content; border-collapse: collapse; font-size: .9rem; line-height: 1.35 }
table { font-variant-numeric: lining-nums tabular-nums }
th, td { padding: .42rem .65rem; text-align: right; vertical-align: baseline; white-space: nowrap }
th { font-weight: 400 }
.words { text-align: left }
thead th { color: var(--muted); font-size: .85rem; vertical-align: bottom }
thead tr:last-child > * { border-bottom: 1px solid var(--ink); padding-top: .25rem }
thead th[scope=colgroup] { text-align: center; color: var(--ink); padding: 0 .35rem }
thead th[scope=colgroup] span {
  display: block; padding: .3rem 0; border-bottom: 1px solid var(--muted);
}
tbody tr + tr > * { border-top: 1px solid var(--rule) }
tbody tr:last-child > * { border-bottom: 1px solid var(--ink) }
tr > :first-child {
  position: sticky; left: 0; background: var(--paper); padding-left: 0; text-align: left;
}
tr > :last-child { padding-right: .4rem }
tbody th { min-width: 6rem; max-width: 18rem; white-space: normal; font-weight: 600 }
.others > * { color: var(--muted); font-weight: 400 }
.mark { position: absolute }

svg { display: block; width: 100%; height: auto }
img { display: block; max-width: none; height: auto }
.notes { margin-top: 1.5rem }
.notes p { color: var(--muted); font-size: .85rem; line-height: 1.5; margin-bottom: .4rem }

@media (max-width: 40rem) {
  body { padding-top: 2.5rem }
  section { margin-top: 3.5rem }
  th, td { padding-inline: .55rem }
  tbody th { max-width: 9rem }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt }
  section, figure, tr { break-inside: avoid }
  .scroll { overflow: visible }
  svg { min-width: 0 !important }
}
"""
