"""Synthetic action videos: real encoded files whose action fills a known part of each.

A class is a pose of an articulated figure in a cluttered scene, recognisable from single frames of
the action. The rest of a video is what the paper's gates should stop: irrelevant, repeated and
confusing frames (see `scenes`), none of which depends on the class.
"""

import csv
import glob
import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from tqdm import tqdm

from sofnet_jax.data.synthetic.people import POSES
from sofnet_jax.data.synthetic.scenes import draw_video
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.lock import excludes_others, try_lock
from sofnet_jax.host.workers import Failure, count_cores, map_in_order

VERSION = 4  # of the pixels and files; raise it with any change to them
TIME_LIMIT = 3600.0  # seconds for a video
FPS = 12
SPLITS = ("train", "val")
COLUMNS = ("path", "label", "relevant_start", "relevant_end")
LIMITS = {
    "num_classes": (2, len(POSES)),
    "train_videos": (1, 9999),
    "val_videos": (1, 9999),
    "num_frames": (16, 100_000),
    "size": (32, 4096),
    "seed": (0, 2**63),
}


class Video(NamedTuple):
    """The identity of a video in a data set."""

    split: str
    label: int
    number: int

    @property
    def path(self) -> str:
        """Its path below the root."""
        name = list(POSES)[self.label]
        return f"{self.split}/{name}/{name}_{self.split}_{self.number:04d}.mp4"


def create_synthetic(
    root: Path,
    *,
    num_classes: int = 10,
    train_videos: int = 50,
    val_videos: int = 25,
    num_frames: int = 48,
    size: int = 64,
    seed: int = 0,
    num_workers: int | None = None,
) -> None:
    """Write `train_videos` and `val_videos` videos per class into the folder `root`, once.

    `root` will hold `train/<class>/<id>.mp4` (H.264, `num_frames` frames of `size` x `size` pixels,
    12 a second), likewise `val`, and `train.csv` and `val.csv` with each video's path, label, and
    the seconds at which its action starts and ends: a frame belongs to the action if and only if
    `relevant_start <= time < relevant_end`.

    Everything is written beside `root` and renamed at the end, so `root` is complete whenever it
    exists. A call with the arguments of an earlier one does nothing; if several processes start
    together, one writes and the others wait. `num_workers` processes (None: one per core) draw the
    videos; their number never changes the pixels. They are spawned, so a script must call this
    under `if __name__ == "__main__"`.

    Raises:
      UserError: arguments out of range, or `root` holds something else.
    """
    root = Path(root).resolve()
    meta = {
        "version": VERSION,
        "num_classes": num_classes,
        "train_videos": train_videos,
        "val_videos": val_videos,
        "num_frames": num_frames,
        "size": size,
        "seed": seed,
    }
    for name, (low, high) in LIMITS.items():
        if not low <= meta[name] <= high:
            raise UserError(f"Synthetic data: {name} is {meta[name]}, but must be {low} to {high}.")
    if size % 2:
        raise UserError(f"Synthetic data: size is {size}, but must be even for H.264.")
    if _is_written(root, meta):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(root.parent / f".{root.name}.lock", "a") as lock:
        try_lock(lock, wait=True)
        if not _is_written(root, meta):  # by the process that held the lock
            if excludes_others(lock):
                _remove_abandoned(root)
            _write_whole(root, meta, num_workers)


def is_synthetic(root: Path) -> bool:
    """Whether a folder holds a data set of `create_synthetic`, with any arguments."""
    return (root / "meta.json").is_file()


def _is_written(root: Path, meta: dict[str, int]) -> bool:
    """Whether `root` holds this data set; False if it is empty or missing. Raises UserError."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = dict(json.loads((root / "meta.json").read_text()))
    except (OSError, TypeError, ValueError):
        message = f"{root} exists, but is not a synthetic data set: choose another folder."
        raise UserError(message) from None
    differences = [
        f"{name} {found.get(name)} (now {value})"
        for name, value in meta.items()
        if found.get(name) != value
    ]
    if differences:
        raise UserError(
            f"{root} was made with {', '.join(differences)}: delete it or choose another folder."
        )
    return True


def _remove_abandoned(root: Path) -> None:
    """Remove what processes that were killed left; others must not be writing."""
    for abandoned in root.parent.glob(f".{glob.escape(root.name)}.*.partial"):
        shutil.rmtree(abandoned, ignore_errors=True)


def _write_whole(root: Path, meta: dict[str, int], num_workers: int | None) -> None:
    """Write the data set beside `root`, then rename it, unless another process was faster."""
    folder = Path(tempfile.mkdtemp(".partial", f".{root.name}.", root.parent))
    try:
        _write_files(folder, meta, num_workers)
        folder.chmod(0o755)  # mkdtemp makes it private
        try:
            folder.rename(root)
        except OSError:
            if not _is_written(root, meta):
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write_files(folder: Path, meta: dict[str, int], num_workers: int | None) -> None:
    """Write every file of the data set."""
    videos = [
        Video(split, label, number)
        for split in SPLITS
        for label in range(meta["num_classes"])
        for number in range(meta[f"{split}_videos"])
    ]
    for parent in {(folder / video.path).parent for video in videos}:
        parent.mkdir(parents=True)
    write, workers = partial(_write_video, folder, meta), num_workers or count_cores()
    done = (
        map(write, videos)
        if workers == 1
        else map_in_order(write, videos, num_workers=workers, time_limit=TIME_LIMIT)
    )
    rows = list(tqdm(done, total=len(videos), desc="Drawing", unit="video", disable=None))
    if failure := next((row for row in rows if isinstance(row, Failure)), None):
        raise UserError(f"a video could not be drawn: {failure.detail}; start again")
    for split in SPLITS:
        with open(folder / f"{split}.csv", "w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows(row for row in rows if row[0].startswith(f"{split}/"))
    (folder / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")


def _write_video(folder: Path, meta: dict[str, int], video: Video) -> tuple[str, str, float, float]:
    """Draw and encode a video; return its row of the table."""
    rng = np.random.default_rng(
        [meta["seed"], SPLITS.index(video.split), video.label, video.number]
    )
    poses = list(POSES.values())[: meta["num_classes"]]
    frames, (start, end) = draw_video(
        rng, poses, video.label, num_frames=meta["num_frames"], size=meta["size"]
    )
    _encode(folder / video.path, frames)
    # Not rounded: readers get the time of frame i as exactly i / FPS.
    return video.path, list(POSES)[video.label], start / FPS, end / FPS


def _encode(path: Path, frames: np.ndarray) -> None:
    """Encode frames (t, h, w, 3) uint8 as H.264 in MP4, with a keyframe a second or more."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # With its macroblock tree, x264 is not deterministic: one run in fifty differs.
        stream.options = {
            "preset": "veryfast",
            "tune": "fastdecode",
            "crf": "21",
            "bf": "0",
            "mbtree": "0",
        }
        stream.codec_context.gop_size = FPS
        stream.codec_context.thread_count = 1  # the processes fill the cores
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
