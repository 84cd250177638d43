import numpy as np
from PIL import Image

from sofnet_jax.evaluation.strip import BAR, CELL, GAP, TEXT, draw_decisions, write_picture


def test_cells_show_kept_stopped_and_unseen_frames(tmp_path):
    # One video of three frames, red, green and blue: the first kept, the second stopped by the
    # first of two gates, the third never looked at; the action is in the first alone.
    frames = np.zeros((1, 3, 8, 8, 3), np.uint8)
    frames[0, range(3), :, :, range(3)] = 255
    image = draw_decisions(
        frames=frames,
        stop=np.array([[2, 0, 2]]),
        observed=np.array([2]),
        relevant=np.array([[1.0, 0.0, np.nan]]),
        gate_names=("res1", "res2"),
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
        stop=np.array([[2, 0, 0]]),
        observed=np.array([1]),
        relevant=np.full((1, 3), np.nan),
        gate_names=("res1", "res2"),
        captions=["a video"],
        lengths=np.array([2]),
    )
    image = np.asarray(image)
    y = GAP + TEXT + CELL + GAP + 5
    cells = [tuple(image[y, GAP + t * (CELL + GAP) + 5]) for t in range(3)]
    assert cells == [(0, 0, 0), (26, 26, 26), (255, 255, 255)]
