"""Draw synthetic videos as sequences of shots.

A shot has one kind, one scene, one light and one camera movement:

- action: the class's pose, large and sharp, near the middle;
- confusing: a figure in any pose, small, blurred, in haze or half hidden by a caption;
- clutter: the limbs of a figure taken apart, so that limbs alone tell nothing;
- repeated: copies of the last frame outside the action (of the bare scene if there is none).

Only the pose of the action depends on the class. The pose of a confusing figure is drawn from all
classes, including the video's own: without that one, the poses outside the action would exclude a
class.

Sizes and places are in pixels, colours RGB from 0 to 255. A layer (h, w, 4) holds colour times
coverage and, last, coverage.
"""

import numpy as np
from PIL import Image, ImageFilter

from sofnet_jax.data.synthetic.people import (
    RADII,
    Pose,
    compute_limbs,
    create_paint,
    create_person,
    draw_capsules,
    draw_person,
)

# Probabilities of the kinds outside the action.
KINDS = {"confusing": 0.65, "clutter": 0.2, "repeated": 0.15}
# Probabilities of the flaws of a confusing figure.
FLAWS = {"captioned": 0.5, "small": 0.2, "blurred": 0.15, "hazy": 0.15}
SHORTEST, LONGEST = 3, 8  # frames of a shot outside the action
CAPTION = (230, 20, 40)


def draw_video(
    rng: np.random.Generator, poses: list[Pose], label: int, num_frames: int, size: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """Draw one video of the pose `label`.

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
        shot = _draw_shot(rng, kind, scene, pose, length, size)
        if kind == "action":
            start = sum(map(len, shots))
            span = (start, start + length)
        else:
            still = shot[-1]
        shots.append(shot)
    return np.concatenate(shots), span


def plan_shots(rng: np.random.Generator, num_frames: int) -> list[tuple[str, int]]:
    """Choose kinds and lengths of a video's shots: one action, anywhere among others."""
    action = round(num_frames * rng.uniform(0.2, 0.4))
    before = int(rng.integers(num_frames - action + 1))
    lengths = _cut(rng, before)
    place = len(lengths)
    lengths += _cut(rng, num_frames - action - before)
    kinds = [str(kind) for kind in rng.choice(list(KINDS), len(lengths), p=list(KINDS.values()))]
    shots = list(zip(kinds, lengths, strict=True))
    return [*shots[:place], ("action", action), *shots[place:]]


def _cut(rng: np.random.Generator, total: int) -> list[int]:
    """Cut `total` frames into shots; a remainder too short for a shot joins the last."""
    lengths = []
    while total:
        length = int(rng.integers(SHORTEST, LONGEST + 1))
        lengths.append(length if total - length >= SHORTEST else total)
        total -= lengths[-1]
    return lengths


def compose(rng: np.random.Generator, scene: np.ndarray, layers: np.ndarray) -> np.ndarray:
    """Lay the layers (t, h, w, 4) over a moving view of the scene, in changing light, as uint8."""
    length, size = layers.shape[:2]
    image = Image.fromarray(scene)
    first, last = rng.uniform(0.62, 0.95, 2)
    windows = np.linspace(first, last, length) * len(scene)
    first, last = rng.uniform(0, 1, (2, 2))
    places = np.linspace(first, last, length)
    flicker = 0.1 * np.sin(rng.uniform(0, 2 * np.pi) + 0.3 * np.arange(length))
    level = np.exp(rng.normal(-0.05, 0.2) + flicker).astype(np.float32)
    slope, ramp = rng.normal(0, 0.35, 2), np.linspace(-0.5, 0.5, size)  # brighter on one side
    light = np.clip(1 + slope[0] * ramp[:, None] + slope[1] * ramp, 0.3, 2)[..., None]
    light = (light * np.exp(rng.normal(0, 0.1, 3))).astype(np.float32)
    frames = np.empty((length, size, size, 3), np.uint8)
    for i, (window, place) in enumerate(zip(windows, places, strict=True)):
        x, y = place * (len(scene) - window)
        view = image.resize((size, size), Image.Resampling.BILINEAR, (x, y, x + window, y + window))
        mixed = view * (1 - layers[i, ..., 3:]) + layers[i, ..., :3]
        frames[i] = np.clip(mixed * (light * level[i]), 0, 255)
    return frames


def draw_scene(rng: np.random.Generator, size: int) -> np.ndarray:
    """Draw a cluttered scene (s, s, 3) uint8, larger than the frame, for camera movements."""
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
    paint = create_paint(rng, count)
    paint = paint._replace(colour=_mute(paint.colour), other=_mute(paint.other))
    draw_capsules(scene, np.stack((start, start + step), 1), radii, paint)
    return np.clip(scene[..., :3], 0, 255).astype(np.uint8)


def _mute(colours: np.ndarray) -> np.ndarray:
    """Mute colours (n, 3) for a scene; only people are colourful."""
    return 0.4 * colours + 0.6 * colours.mean(-1, keepdims=True)


def _draw_surface(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw a blotchy surface (h, w, 3) float32 between two muted colours."""
    shade = np.full((height, width), 0.5, np.float32)
    for cells in (3, 8, 20):
        grid = Image.fromarray(rng.normal(0, 1 / cells, (cells, cells)).astype(np.float32))
        shade += np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
    low, high = _mute(rng.uniform(20, 235, (2, 3)).astype(np.float32))
    return low + 0.5 * (high - low) * np.clip(shade, 0, 1)[..., None]


def _draw_shot(
    rng: np.random.Generator, kind: str, scene: np.ndarray, pose: Pose, length: int, size: int
) -> np.ndarray:
    """Draw the frames (t, size, size, 3) uint8 of a shot."""
    if kind == "action":  # one large, sharp figure near the middle
        share = rng.uniform(0.62, 0.82)
        return compose(rng, scene, _draw_actor(rng, pose, length, size, share, 0.06))
    if kind == "clutter":
        return compose(rng, scene, _draw_limbs(rng, pose, length, size))
    flaw = str(rng.choice(list(FLAWS), p=list(FLAWS.values())))
    share = rng.uniform(0.2, 0.35) if flaw == "small" else rng.uniform(0.6, 0.85)
    frames = compose(rng, scene, _draw_actor(rng, pose, length, size, share, 0.15))
    if flaw == "captioned":
        return _caption(rng, frames)
    if flaw == "blurred":
        return _blur(frames, size * rng.uniform(0.025, 0.04))
    if flaw == "hazy":
        colour, density = rng.uniform(120, 230, 3), rng.uniform(0.65, 0.8)
        return (frames * (1 - density) + colour * density).astype(np.uint8)
    return frames


def _caption(rng: np.random.Generator, frames: np.ndarray) -> np.ndarray:
    """Cover the top or bottom of frames with a band of text lines."""
    size = frames.shape[1]
    band = np.full((int(size * rng.uniform(0.25, 0.4)), size, 3), CAPTION, np.uint8)
    line = max(size // 20, 2)
    for y in range(line, len(band) - line, 2 * line):
        x = line
        while x < size - 3 * line:
            word = int(rng.integers(line, 3 * line))
            band[y : y + line, x : x + word] = 255
            x += word + line
    captioned = frames.copy()
    top = int(rng.integers(2)) * (size - len(band))
    captioned[:, top : top + len(band)] = band
    return captioned


def _blur(frames: np.ndarray, radius: float) -> np.ndarray:
    """Blur frames by `radius` pixels."""
    blur = ImageFilter.GaussianBlur(radius)
    return np.stack([np.asarray(Image.fromarray(frame).filter(blur)) for frame in frames])


def _draw_limbs(rng: np.random.Generator, pose: Pose, length: int, size: int) -> np.ndarray:
    """Draw layers (t, size, size, 4) of a figure's limbs, scattered, turning and drifting."""
    person = create_person(rng)
    limbs = compute_limbs(pose, person, np.zeros(1))[0]
    limbs -= limbs.mean(1, keepdims=True)
    count, stature = len(limbs), size * rng.uniform(0.3, 0.5)
    turn = rng.uniform(0, 2 * np.pi, count) + rng.normal(0, 0.06, (length, count)).cumsum(0)
    rotation = np.array(((np.cos(turn), -np.sin(turn)), (np.sin(turn), np.cos(turn))))
    turned = np.einsum("xytn,ney->tnex", rotation, limbs) * stature
    drift = rng.normal(0, 0.01, (count, 1, 2)) * np.arange(length)[:, None, None, None]
    ends = turned + size * (rng.uniform(0.1, 0.9, (count, 1, 2)) + drift)
    layers = np.zeros((length, size, size, 4), np.float32)
    for layer, points in zip(layers, ends, strict=True):
        draw_person(layer, points / stature, person, np.zeros(2), stature)
    return layers


def _draw_actor(
    rng: np.random.Generator,
    pose: Pose,
    length: int,
    size: int,
    share: float,
    spread: float,
) -> np.ndarray:
    """Draw layers of a person in `pose` who wanders, nears or recedes, but stays in view.

    `share` is the stature and `spread` the standard deviation of the place, in frame widths.
    """
    person = create_person(rng)
    time = np.arange(length)
    limbs = compute_limbs(pose, person, time)
    progress = ((time - length / 2) / max(length, 12))[:, None]
    statures = size * share * np.exp(progress * rng.normal(0, 0.15))
    centres = size * (0.5 + rng.normal(0, spread, 2) + progress * rng.normal(0, 0.08, 2))
    reach = np.abs(limbs).max((1, 2)) + RADII.max()
    room = np.maximum(size / 2 - statures * reach, 0)
    centres = np.clip(centres, size / 2 - room, size / 2 + room)
    layers = np.zeros((length, size, size, 4), np.float32)
    for layer, ends, centre, scale in zip(layers, limbs, centres, statures[:, 0], strict=True):
        draw_person(layer, ends, person, centre, scale)
    return layers
