"""What a user calls a video on a command line: a file, a folder, a pattern, or a live source."""

import glob
import os
from pathlib import Path

from sofnet_jax.data.annotations.extension import EXTENSIONS, is_video
from sofnet_jax.data.annotations.material import find_files
from sofnet_jax.host.errors import UserError

STDIN = "-"
CAMERA = "/dev/video"


def is_live(name: str) -> bool:
    """Whether it is a camera, an address or standard input, of which nobody knows the end."""
    return name == STDIN or "://" in name or name.startswith(CAMERA)


def find_videos(name: str) -> list[str]:
    """The videos that a name stands for; a live source and a file stand for themselves.

    Raises UserError if there are none.
    """
    if is_live(name):
        return [name]
    path = os.path.expanduser(name)
    if os.path.isdir(path):
        videos = [str(file) for file in find_files(Path(path)) if is_video(file.name)]
        if not videos:
            raise UserError(f"{name}: no videos in it (looked for {' '.join(EXTENSIONS)})")
        return videos
    if os.path.exists(path):
        return [path]
    found = sorted(glob.glob(path, recursive=True)) if glob.has_magic(path) else []
    videos = [file for file in found if os.path.isfile(file)]
    if not videos:
        raise UserError(f"{name}: no such file" + (" fits" if glob.has_magic(path) else ""))
    return videos
