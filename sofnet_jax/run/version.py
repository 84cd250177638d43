"""Refuses runs written by versions before 0.1.0."""

from collections.abc import Collection
from pathlib import Path

from sofnet_jax.host.errors import UserError


def refuse_older(path: Path, expected: Collection[str], found: Collection[str]) -> None:
    """Raises UserError if a file or folder of a run lacks fields that 0.1.0 writes."""
    if missing := sorted(set(expected) - set(found)):
        raise UserError(
            f"{path} was written by a version before 0.1.0, without {missing[0]}; train again, or "
            "use that version"
        )
