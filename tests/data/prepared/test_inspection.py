"""What is said of a data set is what is in it."""

import numpy as np
import pytest
from PIL import Image

from sofnet_jax.data.prepared.contact_sheet import (
    CELL,
    GAP,
    TEXT,
    Sample,
    Sheet,
    draw_contact_sheet,
)
from sofnet_jax.data.prepared.inspection import describe_split, draw_histogram
from sofnet_jax.data.prepared.record import Summary

CLASSES = ("jump", "run", "swim")


def _summary(name, labels, duration, size=(320, 240), segments=None):
    return Summary(name, labels, 16, 100, duration, *size, segments)


VIDEOS = (
    _summary("a", (0,), 10.0, segments=((1.0, 3.0), (2.0, 5.0))),  # 4 seconds in all
    _summary("b", (0, 1), 30.0, segments=()),
    _summary("c", (0,), 3560.0, size=(640, 360)),
    _summary("d", (1,), 0.0),
)


def test_lines():
    lines = describe_split("train", VIDEOS, CLASSES)
    assert lines[0] == "train: 4 videos, 1.00 hours"
    assert lines[1] == "  seconds      0.0 to 3560.0, median 20.0, mean 900.0"
    assert lines[2] == "  resolutions  320×240 3, 640×360 1"
    assert lines[3] == "  frames       64 stored"
    assert lines[4] == "  segments     of 2 videos, 10 % of their time"  # 4 of 40 seconds
    assert lines[5] == "  labels       1 videos have several"


def test_histogram():
    assert draw_histogram(VIDEOS, CLASSES) == [
        "jump      3 " + "█" * 40,
        "run       2 " + "█" * 27,
        "1 classes have none",
    ]


def test_contact_sheet_shows_the_frames_and_both_crops(tmp_path):
    columns = np.arange(140) * 255 // 139
    frame = np.broadcast_to(columns[None, :, None], (105, 140, 3)).astype(np.uint8)
    sample = Sample("caption", np.stack([frame, frame]), np.array([False, True]))
    draw_contact_sheet(Sheet(tmp_path / "a/sheet.png", 84, (1.0,), 0), [sample])
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["sheet.png"]
    image = np.asarray(Image.open(tmp_path / "a/sheet.png").convert("RGB")).astype(int)
    assert image.shape[1] == 2 * (CELL + GAP) + GAP
    whole = TEXT + TEXT + (CELL - 84) // 2  # 112 of 140 pixels: the frame is 84 high
    row = image[whole + 2, GAP : GAP + CELL].mean(-1)
    assert abs(row[5] - columns[6]) < 12 and abs(row[-5] - columns[-6]) < 12
    # For testing 84 of 96 x 128 pixels: a factor .9143; columns 22 to 106 were 24 to 116 before.
    cell = image[TEXT + TEXT + CELL + GAP :][:CELL, GAP : GAP + CELL].mean(-1)
    assert abs(cell[50, 0] - columns[24]) < 6 and abs(cell[50, -1] - columns[115]) < 6
    green = np.argwhere((image == (0x00, 0xC8, 0x53)).all(-1) & (image[..., :1] >= 0).all(-1))
    left, right = (edge(green[green[:, 0] > 2 * TEXT][:, 1]) for edge in (min, lambda x: max(x)))
    assert abs(left - (GAP + 24 * 0.8)) <= 1  # of the first frame
    assert abs(right - (CELL + 2 * GAP + 116 * 0.8)) <= 2  # of the second
    blue = np.argwhere((image == (0x2F, 0x6F, 0xDE)).all(-1))
    assert blue[:, 1].min() == 2 * GAP + CELL  # the action is in the second frame alone


@pytest.mark.parametrize("shape", [(1, 100), (100, 1), (2, 300), (2, 4000), (4000, 2), (1, 1)])
def test_contact_sheet_of_lines(shape, tmp_path):
    sample = Sample("caption", np.full((1, *shape, 3), 200, np.uint8), np.array([False]))
    draw_contact_sheet(Sheet(tmp_path / "sheet.png", 84, (1.0, 0.66), 0), [sample])
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width == CELL + 2 * GAP


def test_a_caption_in_a_script_without_a_font_is_legible(no_fonts, tmp_path):
    def draw(caption):
        path = tmp_path / "sheet.png"
        sample = Sample(caption, np.zeros((2, 9, 9, 3), np.uint8), np.array([False, True]))
        draw_contact_sheet(Sheet(path, 84, (1.0,), 0), [sample])
        return path.read_bytes()

    assert draw("\u8dd1") == draw(r"\u8dd1") != draw(r"\u8d70")
