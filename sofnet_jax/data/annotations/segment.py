"""Where in a video its action is: what is left of an annotation when its mistakes are out."""

from collections.abc import Iterable

from sofnet_jax.data.annotations.clip import Interval
from sofnet_jax.data.annotations.note import Notes

_ROUNDING = 1.0  # seconds


def clean_segments(
    segments: Iterable[tuple[str, Interval]], duration: float | None, notes: Notes
) -> tuple[Interval, ...] | None:
    """The (place, interval) that lie in the video, each once, cut at its ends; None if none does.

    Segments decide neither a label nor which video it is, so that what is wrong with them is noted.
    """
    kept: dict[Interval, None] = {}
    for place, (start, end) in segments:
        problem = _find_problem(start, end, duration)
        if problem:
            notes.add(f"segments left out: {problem}", f"{place} {start:g} to {end:g} s")
            continue
        if start < 0:
            notes.add("segments cut: they begin before their video", f"{place} {start:g} s")
        if duration is not None and end > duration:
            by = f"up to {_ROUNDING:g} s" if end <= duration + _ROUNDING else "more than that"
            notes.add(
                f"segments cut: they end after their video, by {by}",
                f"{place} {end:g} of {duration:g} s",
            )
        interval = (max(start, 0.0), end if duration is None else min(end, duration))
        if interval in kept:
            notes.add("segments given twice: taken once", f"{place} {start:g} to {end:g} s")
        kept[interval] = None
    return tuple(kept) or None


def _find_problem(start: float, end: float, duration: float | None) -> str | None:
    if end < start:
        return "they end before they begin"
    if end == start:
        return "they have no length"
    if end <= 0:
        return "they end before their video"
    if duration is not None and start >= duration:
        return "they begin after their video"
    return None
