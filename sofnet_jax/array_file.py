"""Archives of arrays: .npz, and the ZIP that PyTorch writes; what they may unpack to."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

_MOST_COMPRESSED = 50  # arrays of predictions come to 3, and a file made for it to 1000
_SMALL = 1 << 26  # bytes that nobody minds


def read_arrays(path: Path, names: Iterable[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of an .npz of these names, or all; no pickle is read.

    Raises:
        OSError: it cannot be opened.
        Exception: of any kind, for the readers raise anything at a damaged or hostile file.
    """
    # Not `np.load`, which takes a file for a pickle if it is no archive.
    with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as archive:
        check_archive(path)
        arrays = {name: archive[name] for name in names or archive.files}
    if odd := [name for name, value in arrays.items() if not isinstance(value, np.ndarray)]:
        raise ValueError(f"{odd[0]} is no array")
    return arrays


def check_archive(path: Path) -> None:
    """Raises ValueError for a ZIP that unpacks to more than any of ours; BadZipFile for another."""
    with zipfile.ZipFile(path) as archive:
        check_claim(sum(member.file_size for member in archive.infolist()), path.stat().st_size)


def check_claim(claimed: int, size: int) -> None:
    """Raises ValueError if files of `size` bytes claim to hold arrays that they hardly can."""
    if claimed > max(_MOST_COMPRESSED * size, _SMALL):
        raise ValueError(f"{size:,} bytes claim to be {claimed:,}")
