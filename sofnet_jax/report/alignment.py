"""Which columns of a table hold words, and which numbers."""

import re

from sofnet_jax.report.part import Table


def find_words(table: Table) -> list[bool]:
    """For each column whether it stands at its left: that of the labels, and those of words."""
    columns = zip(*(row.cells for row in table.rows), strict=True)
    found = [_are_words(cells) for cells in columns] or [False] * (len(table.columns) - 1)
    return [True, *found]


def _are_words(cells: tuple[str, ...]) -> bool:
    """Whether more cells begin with a letter than with a digit; signs before it do not count."""
    first = [re.search(r"[^\W_]", cell) for cell in cells]
    return sum(1 if match[0].isalpha() else -1 for match in first if match) > 0
