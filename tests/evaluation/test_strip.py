import numpy as np
from PIL import Image

from sofnet_jax.evaluation.strip import BAR, CELL, GAP, TEXT, draw_decisions, write_picture
from sofnet_jax.systems.base import Action, Trace
from sofnet_jax.systems.tsn import KEPT

_ACTIONS = (Action("res1", False, False), Action("res2", False, False), KEPT)
_KEPT, _STOPPED, _EXIT = (0, 0, 0), (220, 223, 228), (26, 26, 26)  # where frames are black


def _create_trace(*steps):
    """Of pairs (frame, action)."""
    time, action = np.array(steps).T
    return Trace(time, action)


def test_cells_show_kept_stopped_and_unseen_frames(tmp_path):
    # One video of three frames, red, green and blue: the first kept, the second stopped by the
    # first of two gates, the third never looked at; the action is in the first alone.
    frames = np.zeros((1, 3, 8, 8, 3), np.uint8)
    frames[0, range(3), :, :, range(3)] = 255
    image = draw_decisions(
        frames=frames,
        traces=[_create_trace((0, 2), (1, 0))],
        relevant=np.array([[1.0, 0.0, np.nan]]),
        actions=_ACTIONS,
        captions=["a video"],
    )
    write_picture(tmp_path / "decisions.png", image)
    image = np.asarray(Image.open(tmp_path / "decisions.png"))
    # A row of frames, a row of decisions, the bar; looked at near the corner of each cell, away
    # from the label.
    rows = [GAP + TEXT + 5, GAP + TEXT + CELL + GAP + 5, GAP + TEXT + 2 * (CELL + GAP) + BAR // 2]
    columns = [GAP + t * (CELL + GAP) + 5 for t in range(3)]
    above, below, bar = ([tuple(image[y, x]) for x in columns] for y in rows)
    assert above == [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    assert below == [(255, 0, 0), (220, 223, 228), (26, 26, 26)]
    assert bar == [(47, 111, 222), (255, 255, 255), (255, 255, 255)]


def test_videos_of_fewer_frames_leave_their_places_empty():
    image = draw_decisions(
        frames=np.zeros((1, 3, 8, 8, 3), np.uint8),
        traces=[_create_trace((0, 2))],
        relevant=np.full((1, 3), np.nan),
        actions=_ACTIONS,
        captions=["a video"],
        lengths=np.array([2]),
    )
    assert _read_cells(image, 3) == [_KEPT, _EXIT, (255, 255, 255)]


def test_steps_are_drawn_at_the_frames_that_they_looked_at():
    image = draw_decisions(
        frames=np.zeros((2, 4, 8, 8, 3), np.uint8),
        traces=[_create_trace((3, 2), (0, 1)), _create_trace((1, 0), (3, 2), (2, 2))],
        relevant=np.full((2, 4), np.nan),
        actions=_ACTIONS,
        captions=["a video", "another"],
    )
    assert _read_cells(image, 4) == [_STOPPED, _EXIT, _EXIT, _KEPT]
    assert _read_cells(image, 4, video=1) == [_EXIT, _STOPPED, _KEPT, _KEPT]


def test_actions_that_use_a_frame_repeat_it():
    # Whatever their names, and whether or not there is an answer after them.
    image = draw_decisions(
        frames=np.zeros((1, 3, 8, 8, 3), np.uint8),
        traces=[_create_trace((2, 0), (0, 1))],
        relevant=np.full((1, 3), np.nan),
        actions=(Action("next", True, False), Action("exit", True, True)),
        captions=["a video"],
    )
    assert _read_cells(image, 3) == [_KEPT, _EXIT, _KEPT]


def _read_cells(image, count, video=0):
    """The lower row of a video, near the corner of each cell, away from the label."""
    image, height = np.asarray(image), TEXT + 2 * CELL + GAP + BAR + 3 * GAP
    y = GAP + video * height + TEXT + CELL + GAP + 5
    return [tuple(image[y, GAP + t * (CELL + GAP) + 5].tolist()) for t in range(count)]


def test_a_caption_in_a_script_without_a_font_is_legible(no_fonts):
    def draw(caption):
        return draw_decisions(
            frames=np.zeros((1, 3, 8, 8, 3), np.uint8),
            traces=[_create_trace((0, 2))],
            relevant=np.full((1, 3), np.nan),
            actions=_ACTIONS,
            captions=[caption],
        )

    assert draw("\u8dd1.mp4") == draw(r"\u8dd1.mp4") != draw(r"\u8d70.mp4")
