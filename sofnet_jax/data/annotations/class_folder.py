"""A folder with one sub-folder per class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sofnet_jax.data.annotations.extension import EXTENSIONS, is_video
from sofnet_jax.data.annotations.material import find_files
from sofnet_jax.host.errors import UserError


@dataclass(frozen=True)
class ClassFolder:
    """The videos in each sub-folder, by its name, and a line if there are other files."""

    videos: dict[str, list[Path]]
    notes: tuple[str, ...]


def list_folders(path: Path) -> list[str]:
    """The names of the sub-folders that are not hidden, sorted. Raises UserError if none is."""
    folders = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not folders:
        raise UserError(f"{path}: no sub-folders; put the videos of each class in a folder of it")
    return folders


def read_class_folder(path: Path) -> ClassFolder:
    """Lists the videos of each class. Raises UserError if there are none."""
    files = {folder: find_files(path / folder) for folder in list_folders(path)}
    videos = {
        folder: [file for file in found if is_video(file.name)] for folder, found in files.items()
    }
    if not any(videos.values()):
        raise UserError(f"{path}: no videos in its sub-folders (looked for {' '.join(EXTENSIONS)})")
    others = [file for found in files.values() for file in found if not is_video(file.name)]
    return ClassFolder(videos, _note_left_out(others))


def _note_left_out(files: Sequence[Path]) -> tuple[str, ...]:
    """A line on the files that are not videos, if there are any."""
    if not files:
        return ()
    more = f" (and {len(files) - 1} more)" if len(files) > 1 else ""
    return (f"{files[0]}{more}: not a video by its name; left out",)
