"""Articulated, textured figures for the synthetic videos.

A figure is twelve capsules hung on a skeleton. Lengths are in statures (a standing figure is about
1 high), directions in degrees in the image plane: 0 points down, 90 to where the figure faces
(+x), 180 up. Mirroring a figure never changes its class, so training may flip frames.
"""

from typing import NamedTuple

import numpy as np


class Pose(NamedTuple):
    """Directions of the limbs in degrees, and the amplitude of each one's swing.

    Order: torso, head, arm, forearm, other arm, forearm, thigh, shank, other thigh, shank.
    """

    angles: tuple[int, ...]
    swing: tuple[int, ...]


POSES = {
    "arms_raised": Pose(
        (180, 180, 158, 172, -158, -172, 4, 2, -4, -2), (2, 3, 14, 18, 14, 18, 1, 1, 1, 1)
    ),
    "arms_spread": Pose(
        (180, 180, 90, 90, -90, -90, 5, 3, -5, -3), (2, 3, 10, 14, -10, -14, 1, 1, 1, 1)
    ),
    "bow": Pose((98, 80, 8, 4, -6, 0, 2, -4, -6, -8), (16, 16, 8, 8, 8, 8, 2, 2, 2, 2)),
    "lunge": Pose(
        (176, 178, 40, 130, -40, -10, 80, 2, -48, -62), (4, 3, 10, 10, 10, 10, 8, 4, 6, 6)
    ),
    "kick": Pose(
        (198, 186, 60, 120, -50, -20, 98, 96, -4, -8), (5, 4, 12, 14, 12, 14, 14, 20, 3, 3)
    ),
    "star_jump": Pose(
        (180, 180, 128, 134, -128, -134, 32, 28, -32, -28), (2, 2, 12, 14, -12, -14, 9, 9, -9, -9)
    ),
    "squat": Pose((152, 165, 88, 92, 80, 86, 98, -22, 84, -28), (5, 5, 8, 8, 8, 8, 8, 6, 8, 6)),
    "handstand": Pose(
        (2, 5, 4, 2, -6, -2, 172, 178, -170, -176), (3, 6, 3, 3, 3, 3, 14, 14, 14, 14)
    ),
    "plank": Pose((106, 104, 4, 0, -4, 0, -76, -78, -72, -76), (5, 6, 8, -6, 8, -6, 4, 4, 4, 4)),
    "sit": Pose((188, 184, -24, -12, -32, -18, 92, 84, 84, 88), (6, 5, 6, 6, 6, 6, 6, 8, 6, 8)),
    "arabesque": Pose(
        (128, 150, 108, 104, -100, -96, -92, -96, 2, -2), (6, 6, 10, 10, 10, 10, 10, 12, 2, 2)
    ),
    "tree": Pose((180, 180, 152, -150, -152, 150, 62, -58, -2, 0), (3, 3, 6, 6, 6, 6, 7, 7, 1, 1)),
}

# Torso, neck, arm, forearm, thigh, shank, foot.
LENGTHS = (0.30, 0.10, 0.17, 0.17, 0.24, 0.24, 0.07)
SHOULDER, HIP = 0.055, 0.035  # half widths, from which the limbs start
# The limbs, far ones first, so that near ones cover them: garment, radii at start and end.
SHAPES = (
    ("shirt", 0.034, 0.028),  # far arm
    ("skin", 0.027, 0.024),
    ("trousers", 0.046, 0.036),  # far leg
    ("trousers", 0.036, 0.026),
    ("shoe", 0.026, 0.024),
    ("shirt", 0.066, 0.082),  # torso
    ("skin", 0.072, 0.072),  # head
    ("trousers", 0.046, 0.036),  # near leg
    ("trousers", 0.036, 0.026),
    ("shoe", 0.026, 0.024),
    ("shirt", 0.034, 0.028),  # near arm
    ("skin", 0.027, 0.024),
)
GARMENTS = ("shirt", "trousers", "shoe", "skin")
WORN = np.array([GARMENTS.index(garment) for garment, *_ in SHAPES])
RADII = np.array([radii for _, *radii in SHAPES])


class Paint(NamedTuple):
    """Striped colours of n limbs (RGB, 0 to 255)."""

    colour: np.ndarray  # (n, 3)
    other: np.ndarray  # (n, 3)
    wave: np.ndarray  # (n, 2) radians per radius of the limb, along and across it


class Person(NamedTuple):
    """What stays constant while a figure moves: build, clothes, posture."""

    length: np.ndarray  # (7,) factors of the lengths of the skeleton
    girth: float
    manner: np.ndarray  # (10,) degrees added to a pose's angles
    tempo: float  # radians a frame
    phase: float
    facing: int  # 1 or -1
    paint: Paint


def create_paint(rng: np.random.Generator, count: int) -> Paint:
    """Random colours and stripes for `count` limbs."""
    colour, other = rng.uniform(20, 245, (2, count, 3))
    other = colour + (other - colour) * rng.uniform(0, 0.8, (count, 1))
    return Paint(colour, other, rng.normal(0, 2, (count, 2)))


def create_person(rng: np.random.Generator, *, manner: float = 5.0) -> Person:
    """A random person; `manner` is the standard deviation of the angles, in degrees."""
    lean = rng.normal(0, manner)
    clothes = create_paint(rng, len(GARMENTS))
    return Person(
        length=rng.uniform(0.85, 1.15, 7),
        girth=rng.uniform(0.85, 1.3),
        manner=lean + rng.normal(0, manner, 10),
        tempo=rng.uniform(0.25, 0.7),
        phase=rng.uniform(0, 2 * np.pi),
        facing=int(rng.choice((-1, 1))),
        paint=Paint(*(part[WORN] for part in clothes)),
    )


def compute_limbs(pose: Pose, person: Person, frames: np.ndarray) -> np.ndarray:
    """Compute the ends of the twelve limbs at `frames` (t,): (t, 12, 2, 2) (x, y) in statures.

    The origin is the middle of the figure in each frame.
    """
    swing = np.sin(person.phase + person.tempo * frames)[:, None] * np.asarray(pose.swing)
    angles = np.radians(np.asarray(pose.angles) + swing + person.manner)
    directions = np.stack((np.sin(angles), np.cos(angles)), axis=-1)
    torso, head, arm, forearm, arm2, forearm2, thigh, shank, thigh2, shank2 = np.moveaxis(
        directions, 1, 0
    )
    length = person.length * LENGTHS
    neck = length[0] * torso  # the hip is the origin
    side = np.stack((-torso[:, 1], torso[:, 0]), axis=-1)  # the direction in which the torso faces
    face = neck + length[1] * head

    def reach(offset: float, upper: np.ndarray, lower: np.ndarray) -> list[np.ndarray]:
        shoulder = neck + offset * side
        elbow = shoulder + length[2] * upper
        return [shoulder, elbow, elbow, elbow + length[3] * lower]

    def stride(offset: float, upper: np.ndarray, lower: np.ndarray) -> list[np.ndarray]:
        hip = offset * side
        knee = hip + length[4] * upper
        ankle = knee + length[5] * lower
        forward = np.stack((lower[:, 1], -lower[:, 0]), axis=-1)
        return [hip, knee, knee, ankle, ankle, ankle + length[6] * forward]

    points = [
        *reach(-SHOULDER, arm2, forearm2),
        *stride(-HIP, thigh2, shank2),
        *(np.zeros_like(neck), neck),
        *(face, face + 0.02 * head),
        *stride(HIP, thigh, shank),
        *reach(SHOULDER, arm, forearm),
    ]
    limbs = np.stack(points, axis=1) * (person.facing, 1)
    limbs -= (limbs.max(1, keepdims=True) + limbs.min(1, keepdims=True)) / 2
    return limbs.reshape(len(frames), len(SHAPES), 2, 2)


def draw_person(
    layer: np.ndarray, limbs: np.ndarray, person: Person, centre: np.ndarray, stature: float
) -> None:
    """Draw `limbs`, scaled by `stature` pixels, into `layer` around `centre` (x, y)."""
    draw_capsules(layer, centre + limbs * stature, RADII * (person.girth * stature), person.paint)


def draw_capsules(layer: np.ndarray, ends: np.ndarray, radii: np.ndarray, paint: Paint) -> None:
    """Draw n rounded, shaded, striped limbs over `layer` (h, w, 4), one over another.

    The layer holds colour times coverage and, last, coverage. `ends` (n, 2, 2) are (x, y) of both
    ends, `radii` (n, 2) the radii there, in pixels. All limbs are shaded at once in patches of one
    size: a NumPy call costs more than the few hundred pixels of a limb.
    """
    low = np.floor(ends.min(1) - radii.max(1, keepdims=True)).astype(int) - 1
    high = np.ceil(ends.max(1) + radii.max(1, keepdims=True)).astype(int) + 2
    covers, colours = _shade_patches(int((high - low).max()), low, ends, radii, paint)
    height, width = layer.shape[:2]
    for (x, y), (right, bottom), cover, colour in zip(low, high, covers, colours, strict=True):
        left, top, right, bottom = max(x, 0), max(y, 0), min(right, width), min(bottom, height)
        if left < right and top < bottom:
            patch = slice(top - y, bottom - y), slice(left - x, right - x)
            box = layer[top:bottom, left:right]
            box *= 1 - cover[patch]
            box += colour[patch]


def _shade_patches(
    side: int, low: np.ndarray, ends: np.ndarray, radii: np.ndarray, paint: Paint
) -> tuple[np.ndarray, np.ndarray]:
    """Coverage (n, side, side, 1) and increments to the layer (n, side, side, 4), from `low`."""
    grid = np.arange(side, dtype=np.float32)
    offset = (low - ends[:, 0]).astype(np.float32)
    x = (offset[:, :1] + grid)[:, None, :]
    y = (offset[:, 1:] + grid)[:, :, None]
    step = (ends[:, 1] - ends[:, 0]).astype(np.float32)
    length = np.sqrt((step**2).sum(1))[:, None, None]
    ux, uy = (step / np.maximum(length[:, 0], 1e-6)).T[..., None, None]
    first, last = radii.astype(np.float32).T[..., None, None]
    along, across = x * ux + y * uy, x * uy - y * ux
    axis = np.clip(along, 0, length)
    radius = first + axis * ((last - first) / np.maximum(length, 1e-6))
    distance = np.sqrt((x - axis * ux) ** 2 + (y - axis * uy) ** 2)
    cover = np.clip(radius - distance + 0.5, 0, 1)
    lit = cover * (1.15 - 0.7 * np.minimum(distance / radius, 1) ** 2)  # round, lit from the front
    wave = (paint.wave / radii.max(1, keepdims=True)).astype(np.float32).T[..., None, None]
    stripe = np.clip(0.5 + 1.5 * np.sin(along * wave[0] + across * wave[1]), 0, 1)
    added = np.empty((*cover.shape, 4), np.float32)
    for channel in range(3):
        base = paint.colour[:, channel, None, None].astype(np.float32)
        change = paint.other[:, channel, None, None].astype(np.float32) - base
        added[..., channel] = lit * (base + stripe * change)
    added[..., 3] = cover
    return cover[..., None], added
