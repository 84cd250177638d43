"""Shots, the runs of frames that a synthetic video is cut from, and the video itself.

A shot has one kind, one scene, one light and one movement of the camera:

- action: the class's pose, large and sharp, near the middle;
- confusing: a figure in any pose that is small, blurred, faint or half hidden;
- clutter: the limbs of a figure taken apart, so that limbs alone say nothing;
- repeated: copies of the last frame outside the action (of the bare scene if there is none).

Nothing but the pose of the action depends on the class. The pose of a confusing figure is drawn
from all classes, the video's own included: were that one left out, the poses seen outside the
action would say which class the video is not.

Sizes and places are in pixels, colours RGB from 0 to 255. A layer (h, w, 4) holds colour times
coverage and, last, coverage.
"""

import numpy as np
from PIL import Image, ImageFilter

from sofnet_jax.data.figure import (
    RADII,
    Pose,
    compute_limbs,
    create_paint,
    create_person,
    draw_capsules,
    draw_person,
)

# How likely each kind is outside the action.
KINDS = {"confusing": 0.65, "clutter": 0.2, "repeated": 0.15}
SHORTEST, LONGEST = 3, 8  # frames in a shot outside the action


def draw_video(
    rng: np.random.Generator, poses: list[Pose], label: int, num_frames: int, size: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """Draws one video of the pose `label`.

    Returns:
      frames (t, size, size, 3) uint8, and the action's first frame and the frame after its last.
    """
    home = draw_scene(rng, size)
    still = home[:size, :size]  # the empty scene, where nothing came before
    shots: list[np.ndarray] = []
    span = (0, 0)
    for kind, length in plan_shots(rng, num_frames):
        if kind == "repeated":
            shots.append(np.broadcast_to(still, (length, *still.shape)))
            continue
        pose = poses[label if kind == "action" else rng.integers(len(poses))]
        scene = home if kind == "action" or rng.random() < 0.5 else draw_scene(rng, size)
        shot = film(rng, scene, DRAW[kind](rng, pose, length, size))
        if kind == "action":
            start = sum(map(len, shots))
            span = (start, start + length)
        else:
            still = shot[-1]
        shots.append(shot)
    return np.concatenate(shots), span


def plan_shots(rng: np.random.Generator, num_frames: int) -> list[tuple[str, int]]:
    """Kinds and lengths of a video's shots: one action, anywhere, with others around it."""
    action = round(num_frames * rng.uniform(0.25, 0.45))
    before = int(rng.integers(num_frames - action + 1))
    lengths = _cut(rng, before)
    place = len(lengths)
    lengths += _cut(rng, num_frames - action - before)
    kinds = [str(kind) for kind in rng.choice(list(KINDS), len(lengths), p=list(KINDS.values()))]
    shots = list(zip(kinds, lengths, strict=True))
    return [*shots[:place], ("action", action), *shots[place:]]


def _cut(rng: np.random.Generator, total: int) -> list[int]:
    """Cuts `total` frames into shots; a rest too short for a shot joins the last one."""
    lengths = []
    while total:
        length = int(rng.integers(SHORTEST, LONGEST + 1))
        lengths.append(length if total - length >= SHORTEST else total)
        total -= lengths[-1]
    return lengths


def film(rng: np.random.Generator, scene: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Lays the layers (t, h, w, 4) over a moving view of the scene, in changing light, as uint8."""
    length, size = layers.shape[:2]
    image = Image.fromarray(scene)
    windows = _sweep(rng.uniform(0.62, 0.95, 2), length) * len(scene)
    places = _sweep(rng.uniform(0, 1, (2, 2)), length)
    flicker = 0.1 * np.sin(rng.uniform(0, 2 * np.pi) + 0.3 * np.arange(length))
    level = np.exp(rng.normal(-0.05, 0.2) + flicker).astype(np.float32)
    slope, ramp = (
        rng.normal(0, 0.35, 2),
        np.linspace(-0.5, 0.5, size),
    )  # brighter on one side
    light = np.clip(1 + slope[0] * ramp[:, None] + slope[1] * ramp, 0.3, 2)[..., None]
    light = (light * np.exp(rng.normal(0, 0.1, 3))).astype(np.float32)
    frames = np.empty((length, size, size, 3), np.uint8)
    for i, (window, place) in enumerate(zip(windows, places, strict=True)):
        x, y = place * (len(scene) - window)
        view = image.resize((size, size), Image.Resampling.BILINEAR, (x, y, x + window, y + window))
        mixed = view * (1 - layers[i, ..., 3:]) + layers[i, ..., :3]
        frames[i] = np.clip(mixed * (light * level[i]), 0, 255)
    return frames


def _sweep(ends: np.ndarray, length: int) -> np.ndarray:
    """From the first to the second of `ends`, in `length` steps."""
    return np.linspace(ends[0], ends[1], length)


def draw_scene(rng: np.random.Generator, size: int) -> np.ndarray:
    """A cluttered scene (s, s, 3) uint8, larger than the frame, for the camera to roam in."""
    side = size * 3 // 2
    scene = np.ones((side, side, 4), np.float32)
    horizon = int(side * rng.uniform(0.5, 0.85))
    scene[:horizon, :, :3] = _draw_surface(rng, horizon, side)
    scene[horizon:, :, :3] = _draw_surface(rng, side - horizon, side)
    for _ in range(rng.integers(2, 5)):  # furniture
        height, width = rng.integers(side // 12, side // 3, 2).tolist()
        x, y = rng.integers(0, side - width), rng.integers(0, side - height)
        scene[y : y + height, x : x + width, :3] = _draw_surface(rng, height, width)
    count = int(rng.integers(3, 8))  # discs and bars
    start = rng.uniform(0, side, (count, 2))
    step = rng.normal(0, 0.15 * size, (count, 2)) * rng.integers(0, 2, (count, 1))
    radii = size * rng.uniform(0.012, 0.06, (count, 1)).repeat(2, axis=1)
    draw_capsules(scene, np.stack((start, start + step), 1), radii, create_paint(rng, count))
    return np.clip(scene[..., :3], 0, 255).astype(np.uint8)


def _draw_surface(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """A blotchy surface (h, w, 3) float32 between two muted colours."""
    shade = np.full((height, width), 0.5, np.float32)
    for cells in (3, 8, 20):
        grid = Image.fromarray(rng.normal(0, 1 / cells, (cells, cells)).astype(np.float32))
        shade += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
    colours = rng.uniform(20, 235, (2, 3)).astype(np.float32)
    low, high = 0.4 * colours + 0.6 * colours.mean(1, keepdims=True)
    return low + 0.5 * (high - low) * np.clip(shade, 0, 1)[..., None]


def _draw_action(rng: np.random.Generator, pose: Pose, length: int, size: int) -> np.ndarray:
    """Layers (t, size, size, 4) of one large, sharp figure near the middle."""
    return _draw_actor(rng, pose, length, size, stature=size * rng.uniform(0.6, 0.8), spread=0.07)


def _draw_confusing(rng: np.random.Generator, pose: Pose, length: int, size: int) -> np.ndarray:
    """Layers of one figure with a flaw that tells it from an action."""
    flaw = str(rng.choice(("small", "blurred", "faint", "hidden")))
    share = rng.uniform(0.27, 0.4) if flaw == "small" else rng.uniform(0.5, 0.75)
    layers = _draw_actor(rng, pose, length, size, stature=size * share, spread=0.15)
    if flaw == "blurred":
        return _blur(layers, size * rng.uniform(0.014, 0.026))
    if flaw == "faint":
        return layers * np.float32(rng.uniform(0.25, 0.45))
    if flaw == "hidden":
        _hide_half(rng, layers)
    return layers


def _draw_clutter(rng: np.random.Generator, pose: Pose, length: int, size: int) -> np.ndarray:
    """Layers of a figure taken apart: its limbs scattered, turning and adrift."""
    person = create_person(rng)
    limbs = compute_limbs(pose, person, np.zeros(1))[0]
    limbs -= limbs.mean(1, keepdims=True)
    count, stature = len(limbs), size * rng.uniform(0.3, 0.8)
    turn = rng.uniform(0, 2 * np.pi, count) + rng.normal(0, 0.06, (length, count)).cumsum(0)
    rotation = np.array(((np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))))
    turned = np.einsum("xytn,ney->tnex", rotation, limbs) * stature
    drift = rng.normal(0, 0.01, (count, 1, 2)) * np.arange(length)[:, None, None, None]
    ends = turned + size * (rng.uniform(0.1, 0.9, (count, 1, 2)) + drift)
    layers = np.zeros((length, size, size, 4), np.float32)
    for layer, points in zip(layers, ends, strict=True):
        draw_person(layer, points / stature, person, np.zeros(2), stature)
    return layers


DRAW = {"action": _draw_action, "confusing": _draw_confusing, "clutter": _draw_clutter}


def _draw_actor(
    rng: np.random.Generator,
    pose: Pose,
    length: int,
    size: int,
    stature: float,
    spread: float,
) -> np.ndarray:
    """Layers of one person in `pose`, who wanders and comes nearer or goes, but stays in view.

    `stature` is in pixels, `spread` the standard deviation of the place in widths of the frame.
    """
    person = create_person(rng)
    time = np.arange(length)
    limbs = compute_limbs(pose, person, time)
    progress = ((time - length / 2) / max(length, 12))[:, None]
    statures = stature * np.exp(progress * rng.normal(0, 0.15))
    centres = size * (0.5 + rng.normal(0, spread, 2) + progress * rng.normal(0, 0.08, 2))
    reach = np.abs(limbs).max((1, 2)) + RADII.max()
    room = np.maximum(size / 2 - statures * reach, 0)
    centres = np.clip(centres, size / 2 - room, size / 2 + room)
    layers = np.zeros((length, size, size, 4), np.float32)
    for layer, ends, centre, scale in zip(layers, limbs, centres, statures[:, 0], strict=True):
        draw_person(layer, ends, person, centre, scale)
    return layers


def _blur(layers: np.ndarray, radius: float) -> np.ndarray:
    """Blurs each layer; colour is already times coverage, so edges mix as light does."""
    scale = np.array((1, 1, 1, 255), np.float32)
    blurred = []
    for layer in layers:
        image = Image.fromarray(np.clip(layer * scale, 0, 255).astype(np.uint8), "RGBX")
        blurred.append(np.asarray(image.filter(ImageFilter.GaussianBlur(radius))))
    return np.stack(blurred) / scale


def _hide_half(rng: np.random.Generator, layers: np.ndarray) -> None:
    """Puts a board in front of one side of the figure, up to about its middle."""
    axis, far = rng.integers(0, 2, 2)  # along y or x, from which end
    size = layers.shape[1]
    inside = np.nonzero(layers[0, ..., 3] > 0.5)[axis]
    edge = int(np.quantile(inside, rng.uniform(0.55, 0.7) if far else rng.uniform(0.3, 0.45)))
    board = layers.swapaxes(1, 2) if axis else layers
    board = board[:, edge:] if far else board[:, : max(edge, 1)]
    board[..., 3] = 1
    board[..., :3] = _draw_surface(rng, board.shape[1], size)
