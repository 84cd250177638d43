"""Synthetic action videos: real encoded files whose action fills only a known part of each.

A class is a pose of an articulated figure, moving through a cluttered scene. The rest of a video is
what the paper wants stopped: irrelevant frames (scenes with loose limbs and other clutter), repeated
frames (a frozen earlier one), and confusing frames (a small, blurred, faint or half hidden figure in
any pose). Nothing but the action depends on the class. In particular the pose of a confusing figure
is drawn from all classes, the video's own included: were that one left out, the poses that a video
does show outside its action would say which class it is not.
"""

import csv
import fcntl
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

from sofnet_jax.data import figure
from sofnet_jax.errors import UserError

VERSION = 1  # of what is drawn and how it is stored: raise it with any change to either
FPS = 12
SPLITS = ("train", "val")
FIELDS = ("path", "label", "relevant_start", "relevant_end")


def create_synthetic(
    root: Path,
    *,
    num_classes: int = 10,
    train_videos: int = 50,
    val_videos: int = 25,
    num_frames: int = 48,
    size: int = 80,
    seed: int = 0,
    num_workers: int | None = None,
) -> None:
    """Writes a data set of `train_videos` and `val_videos` per class into `root`, once.

    `root` comes to hold `train/<class>/<id>.mp4` (H.264, `num_frames` frames of `size` x `size`
    pixels at 12 a second), the same for `val`, and `train.csv`, `val.csv` that list each video's
    path, label and the seconds its action starts and ends. A frame belongs to the action if
    `relevant_start` <= its time < `relevant_end`, exactly.

    Everything is written beside `root` and renamed at the end, so `root` is whole whenever it
    exists. If it exists and was made with the same arguments, nothing is done; processes that start
    together wait for the first. `num_workers` processes (default: one a core) draw the videos; the
    pixels do not depend on how many. They are spawned, so a script calls this under
    `if __name__ == "__main__"`.

    Raises:
      UserError: impossible arguments, or `root` holds anything else.
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
    _check_arguments(meta)
    if _is_whole(root, meta):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with _only_writer(root):
        if _is_whole(root, meta):  # another process wrote it while this one waited
            return
        for leftover in root.parent.glob(f".{root.name}.*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        partial_root = Path(
            tempfile.mkdtemp(prefix=f".{root.name}.", suffix=".partial", dir=root.parent)
        )
        try:
            _write_dataset(partial_root, meta, num_workers)
            partial_root.chmod(0o755)  # mkdtemp's folders are private
            partial_root.rename(root)
        finally:
            shutil.rmtree(partial_root, ignore_errors=True)


def _check_arguments(meta: dict[str, int]) -> None:
    """Refuses what cannot be drawn."""
    limits = {
        "num_classes": (2, len(figure.POSES)),
        "train_videos": (1, None),
        "val_videos": (1, None),
        "num_frames": (16, None),
        "size": (32, None),
        "seed": (0, None),
    }
    for name, (low, high) in limits.items():
        if meta[name] < low or (high is not None and meta[name] > high):
            bounds = f"at least {low}" if high is None else f"from {low} to {high}"
            raise UserError(f"Synthetic data: {name} is {meta[name]}, but must be {bounds}.")
    if meta["size"] % 2:
        raise UserError(f"Synthetic data: size is {meta['size']}, but H.264 needs an even one.")


def _is_whole(root: Path, meta: dict[str, int]) -> bool:
    """Whether `root` holds this data set; False if nothing is there."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = json.loads((root / "meta.json").read_text())
    except (OSError, ValueError):
        raise UserError(
            f"{root} exists but is no synthetic data set: choose another folder."
        ) from None
    differing = [name for name in meta if found.get(name) != meta[name]]
    if differing:
        changes = ", ".join(f"{name} {found.get(name)} (asked: {meta[name]})" for name in differing)
        raise UserError(f"{root} was made with {changes}: delete it or choose another folder.")
    return True


@contextmanager
def _only_writer(root: Path) -> Iterator[None]:
    """Holds the lock beside `root`; the system frees it however its holder ends."""
    with open(root.parent / f".{root.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write_dataset(root: Path, meta: dict[str, int], num_workers: int | None) -> None:
    """Writes every file of the data set into the folder `root`."""
    videos = [
        Video(split, label, number)
        for split in SPLITS
        for label in range(meta["num_classes"])
        for number in range(meta[f"{split}_videos"])
    ]
    for path in {(root / video.path).parent for video in videos}:
        path.mkdir(parents=True)
    write = partial(_write_video, root, meta)
    rows = list(_map_in_processes(write, videos, num_workers or len(os.sched_getaffinity(0))))
    for split in SPLITS:
        with open(root / f"{split}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(FIELDS)
            writer.writerows(
                row for video, row in zip(videos, rows, strict=True) if video.split == split
            )
    (root / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")


def _map_in_processes(function, items: list, num_workers: int) -> Iterator:
    """`map` in order, with a bar. Spawned, because a forked copy of a running JAX may hang."""
    bar = partial(tqdm, total=len(items), desc="Drawing videos", unit="video", disable=None)
    if num_workers == 1:
        yield from bar(map(function, items))
        return
    with ProcessPoolExecutor(
        num_workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent
    ) as executor:
        yield from bar(executor.map(function, items, chunksize=4))


def _end_with_parent() -> None:
    """Ends this worker when its parent is killed, which would leave it waiting for work."""

    def wait() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


class Video(NamedTuple):
    """Which video of a data set."""

    split: str
    label: int
    number: int

    @property
    def name(self) -> str:
        """The name of its class."""
        return list(figure.POSES)[self.label]

    @property
    def path(self) -> str:
        """Its path below the root."""
        return f"{self.split}/{self.name}/{self.name}_{self.split}_{self.number:04d}.mp4"


def _write_video(root: Path, meta: dict[str, int], video: Video) -> tuple:
    """Draws and encodes one video; returns its row of the CSV file."""
    rng = np.random.default_rng([meta["seed"], SPLITS.index(video.split), *video[1:]])
    frames, (start, end) = draw_video(
        rng, video.label, meta["num_classes"], meta["num_frames"], meta["size"]
    )
    encode_video(root / video.path, frames)
    # Full precision: frame i is read at exactly the float i / FPS.
    return video.path, video.name, start / FPS, end / FPS


def encode_video(path: Path, frames: np.ndarray) -> None:
    """Encodes frames (t, h, w, 3) uint8 as H.264 in MP4, a keyframe a second."""
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FPS)
        stream.codec_context.gop_size = FPS
        stream.codec_context.thread_count = 1  # the workers fill the cores; bytes stay the same
        stream.options = {"preset": "veryfast", "crf": "21", "tune": "fastdecode", "bf": "0"}
        for array in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())


# What follows draws. A shot is a run of frames of one kind: one scene, one light, one camera move.


def draw_video(
    rng: np.random.Generator, label: int, num_classes: int, num_frames: int, size: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """The frames (t, size, size, 3) uint8 of one video, and the first frame and end of its action."""
    poses = list(figure.POSES.values())[:num_classes]
    home = _draw_scene(rng, size)
    frames: list[np.ndarray] = []
    still = None
    start = end = 0
    for kind, length in plan_shots(rng, num_frames):
        if kind == "repeated":
            frames += [still] * length
            continue
        pose = poses[label if kind == "action" else rng.integers(num_classes)]
        scene = home if kind == "action" or rng.random() < 0.5 else _draw_scene(rng, size)
        layers = {"action": _draw_action, "confusing": _draw_confusing, "clutter": _draw_clutter}
        shot = _film(rng, scene, layers[kind](rng, pose, length, size))
        if kind == "action":
            start, end = len(frames), len(frames) + length
        else:
            still = shot[-1]
        frames += list(shot)
    return np.stack(frames), (start, end)


def plan_shots(rng: np.random.Generator, num_frames: int) -> list[tuple[str, int]]:
    """Kinds and lengths of a video's shots: one action, and three to eight frames of the others."""
    action = round(num_frames * rng.uniform(0.35, 0.55))
    before = int(rng.integers(num_frames - action + 1))
    shots: list[tuple[str, int]] = []
    for length in (before, num_frames - action - before):
        while length:
            # A rest too short for a shot of its own joins this one.
            piece = int(rng.integers(3, 9))
            piece = length if length - piece < 3 else piece
            kind = str(rng.choice(("confusing", "clutter", "repeated"), p=(0.55, 0.25, 0.2)))
            if kind == "repeated" and all(previous == "action" for previous, _ in shots):
                kind = "confusing"  # nothing to repeat yet
            shots.append((kind, piece))
            length -= piece
        if len(shots) == 0 or all(kind != "action" for kind, _ in shots):
            shots.append(("action", action))
    return shots


def _draw_action(rng: np.random.Generator, pose: figure.Pose, length: int, size: int) -> np.ndarray:
    """Layers of the action: one large, sharp figure near the middle."""
    stature = size * rng.uniform(0.58, 0.8)
    return _draw_actor(rng, pose, length, size, stature, spread=0.07)


def _draw_confusing(
    rng: np.random.Generator, pose: figure.Pose, length: int, size: int
) -> np.ndarray:
    """Layers of a figure that is hard to read: small, blurred, faint or half hidden."""
    flaw = str(rng.choice(("small", "blurred", "faint", "hidden")))
    share = rng.uniform(0.25, 0.4) if flaw == "small" else rng.uniform(0.4, 0.65)
    layers = _draw_actor(rng, pose, length, size, size * share, spread=0.15)
    if flaw == "blurred":
        layers = _blur(layers, size * rng.uniform(0.02, 0.035))
    elif flaw == "faint":
        layers *= np.float32(rng.uniform(0.25, 0.45))
    elif flaw == "hidden":
        _hide(rng, layers)
    return layers


def _draw_actor(
    rng: np.random.Generator,
    pose: figure.Pose,
    length: int,
    size: int,
    stature: float,
    spread: float,
) -> np.ndarray:
    """Layers (t, size, size, 4) of one person in `pose`, wandering and changing scale.

    `stature` is in pixels; `spread` is the standard deviation of the place, in widths.
    """
    person = figure.create_person(rng)
    time = np.arange(length)
    limbs = figure.compute_limbs(pose, person, time)
    pace = (time - length / 2)[:, None] / max(length, 12)
    centre = size * (0.5 + rng.normal(0, spread, 2) + pace * rng.normal(0, 0.08, 2))
    statures = stature * np.exp(pace[:, 0] * rng.normal(0, 0.15))
    reach = statures[:, None] * np.abs(limbs).max((1, 2))  # half the figure's box
    room = np.maximum(size / 2 - reach, 0)
    centre = np.clip(centre, size / 2 - room, size / 2 + room)
    layers = np.zeros((length, size, size, 4), np.float32)
    for i in range(length):
        figure.draw_person(layers[i], limbs[i], person, centre[i], statures[i])
    return layers


def _draw_clutter(
    rng: np.random.Generator, pose: figure.Pose, length: int, size: int
) -> np.ndarray:
    """Layers of a figure taken apart: the same limbs, scattered and adrift."""
    person = figure.create_person(rng)
    limbs = figure.compute_limbs(pose, person, np.zeros(1))[0]
    limbs = limbs - limbs.mean(1, keepdims=True)
    turn = rng.uniform(0, 2 * np.pi, len(limbs)) + rng.normal(0, 0.06, (length, len(limbs))).cumsum(
        0
    )
    turn = np.stack((np.cos(turn), -np.sin(turn), np.sin(turn), np.cos(turn)), -1)
    turned = np.einsum("nek,tnxk->tnex", limbs, turn.reshape(length, len(limbs), 2, 2))
    centre = rng.uniform(0.1, 0.9, (len(limbs), 1, 2)) * size
    drift = rng.normal(0, 0.01 * size, (len(limbs), 1, 2)) * np.arange(length)[:, None, None, None]
    stature = size * rng.uniform(0.3, 0.72)
    layers = np.zeros((length, size, size, 4), np.float32)
    for i in range(length):
        figure.draw_person(
            layers[i], (turned[i] + (centre + drift[i]) / stature), person, np.zeros(2), stature
        )
    return layers


def _blur(layers: np.ndarray, radius: float) -> np.ndarray:
    """Gaussian blur, `radius` in pixels; colour is already times coverage, so edges stay right."""
    blurred = []
    for layer in layers:
        scaled = np.clip(layer * (1, 1, 1, 255), 0, 255).astype(np.uint8)
        image = Image.fromarray(scaled, "RGBX").filter(ImageFilter.GaussianBlur(radius))
        blurred.append(np.asarray(image) * np.float32((1, 1, 1, 1 / 255)))
    return np.stack(blurred)


def _hide(rng: np.random.Generator, layers: np.ndarray) -> None:
    """Puts a board in front of one half of the figure."""
    size = layers.shape[1]
    ys, xs = np.nonzero(layers[0, ..., 3] > 0.5)
    side = int(rng.integers(4))
    top, bottom, left, right = 0, size, 0, size
    cut = rng.uniform(0.35, 0.55)
    if side == 0:
        bottom = int(np.quantile(ys, cut))
    elif side == 1:
        top = int(np.quantile(ys, 1 - cut))
    elif side == 2:
        right = int(np.quantile(xs, cut))
    else:
        left = int(np.quantile(xs, 1 - cut))
    layers[:, top:bottom, left:right, 3] = 1
    layers[:, top:bottom, left:right, :3] = _draw_surface(rng, bottom - top, right - left)


def _draw_surface(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A blotchy surface (h, w, 3) float32 in shades between two colours."""
    shade = np.zeros((height, width), np.float32)
    for cells in (3, 8, 20):
        grid = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        shade += (
            np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))
            / cells
        )
    low, high = rng.uniform(20, 235, (2, 3)).astype(np.float32)
    low, high = (0.4 * colour + 0.6 * colour.mean() for colour in (low, high))  # muted
    high = 0.5 * (low + high)
    return low + (high - low) * np.clip(0.5 + shade, 0, 1)[..., None]


def _draw_scene(rng: np.random.Generator, size: int) -> np.ndarray:
    """A cluttered scene (s, s, 3) uint8, larger than the frame, for the camera to roam in."""
    side = size * 3 // 2
    layer = np.ones((side, side, 4), np.float32)
    layer[..., :3] = _draw_surface(rng, side, side)
    horizon = int(side * rng.uniform(0.5, 0.85))
    layer[horizon:, :, :3] = _draw_surface(rng, side - horizon, side)
    for _ in range(rng.integers(2, 5)):  # furniture
        height, width = rng.integers(side // 12, side // 3, 2)
        x, y = rng.integers(0, side - width), rng.integers(0, side - height)
        layer[y : y + height, x : x + width, :3] = _draw_surface(rng, height, width)
    count = int(rng.integers(3, 8))  # discs, bars and pieces like limbs
    start = rng.uniform(0, side, (count, 2))
    step = rng.normal(0, size * 0.15, (count, 2)) * rng.integers(0, 2, (count, 1))
    radii = size * rng.uniform(0.012, 0.06, (count, 1)).repeat(2, axis=1)
    figure.draw_capsules(
        layer, np.stack((start, start + step), 1), radii, figure.create_paint(rng, count)
    )
    return np.clip(layer[..., :3], 0, 255).astype(np.uint8)


def _film(rng: np.random.Generator, scene: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Lays the layers over a moving view of the scene, in changing light: (t, h, w, 3) uint8."""
    length, size = layers.shape[:2]
    image = Image.fromarray(scene)
    windows = np.linspace(*rng.uniform(0.62, 0.95, 2), length) * len(scene)
    places = np.linspace(*rng.uniform(0, 1, (2, 2)), length)
    colour = np.exp(rng.normal(0, 0.1, 3))
    level = np.exp(
        rng.normal(-0.05, 0.2) + 0.1 * np.sin(rng.uniform(0, 6) + 0.3 * np.arange(length))
    )
    slope = rng.normal(0, 0.35, 2)
    ramp = np.linspace(-0.5, 0.5, size)
    light = np.clip(1 + slope[0] * ramp[:, None] + slope[1] * ramp, 0.3, 2)[..., None] * colour
    frames = np.empty((length, size, size, 3), np.uint8)
    for i, (window, place) in enumerate(zip(windows, places, strict=True)):
        x, y = place * (len(scene) - window)
        view = image.resize((size, size), Image.Resampling.BILINEAR, (x, y, x + window, y + window))
        mixed = view * (1 - layers[i, ..., 3:]) + layers[i, ..., :3]
        frames[i] = np.clip(mixed * (light * level[i]).astype(np.float32), 0, 255)
    return frames
