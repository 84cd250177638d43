"""What the rows of lists mean whose paths, or whose own names, tell the split."""

from pathlib import PurePosixPath

from sofnet_jax.data.annotations.cell import show
from sofnet_jax.data.annotations.extension import strip_extension
from sofnet_jax.data.annotations.identity import YOUTUBE, check_path
from sofnet_jax.data.annotations.material import Material, Row
from sofnet_jax.data.annotations.roster import Listed, split_right
from sofnet_jax.data.annotations.split import find_split, parse_split
from sofnet_jax.host.errors import UserError


class PathReader:
    """Reads rows `<path> <frames> <label>`; an id is the name of a file without its extension."""

    def __init__(self, material: Material):
        self._split = find_split(material.path)

    def __call__(self, row: Row) -> Listed:
        text, num_frames, labels = split_right(row)
        path = PurePosixPath(check_path(row.place, text).replace("\\", "/"))
        splits = {split for part in path.parts[:-1] if (split := parse_split(part))}
        split = splits.pop() if len(splits) == 1 else self._split
        if split is None:
            raise UserError(
                f"{row.place}: neither the path nor the list's name tells the split; put train "
                "or val into its name"
            )
        name = strip_extension(path.name)
        return Listed(row.place, name, split, labels, num_frames, path.parent.name, str(path))


class IdReader:
    """Reads rows that are ids of YouTube and nothing else."""

    def __init__(self, material: Material):
        self._split = require_split(material)

    def __call__(self, row: Row) -> Listed:
        if not YOUTUBE.fullmatch(row.text):
            raise UserError(f"{row.place}: {show(row.text)} is no id of YouTube")
        return Listed(row.place, row.text, self._split, ())


def require_split(material: Material) -> str:
    """The split that a file's name tells; raises UserError."""
    split = find_split(material.path)
    if split is None:
        raise UserError(
            f"{material.path}: neither its name nor its folder's tells the split; put train or val "
            "into the name"
        )
    return split
