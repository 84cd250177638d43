"""The synthetic videos: whole or absent, the same every time, and telling only by their action."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from scipy.stats import binom

from sofnet_jax.data.synthetic.dataset import _encode, create_synthetic
from sofnet_jax.data.synthetic.people import POSES
from sofnet_jax.data.synthetic.scenes import draw_video
from sofnet_jax.host.errors import UserError

TINY = {"num_classes": 2, "train_videos": 3, "val_videos": 1, "num_frames": 16, "size": 32}
SCRIPT = """
import sys
from pathlib import Path
from sofnet_jax.data.synthetic.dataset import create_synthetic
if __name__ == "__main__":
    create_synthetic(Path(sys.argv[1]), train_videos=int(sys.argv[2]), val_videos=1, size=32,
                     num_classes=2, num_frames=16, num_workers=2)
"""


def read_rows(root: Path, split: str) -> list[dict[str, str]]:
    with open(root / f"{split}.csv") as file:
        return list(csv.DictReader(file))


def read_video(path: Path) -> tuple[np.ndarray, np.ndarray, list[bool]]:
    """Frames (t, h, w, 3), their times in seconds, and which are keyframes."""
    converter = av.video.reformatter.VideoReformatter()
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        decoded = list(container.decode(video=0))
    frames = [converter.reformat(frame, format="rgb24").to_ndarray() for frame in decoded]
    times = np.array([frame.time for frame in decoded])
    return np.stack(frames), times, [frame.key_frame for frame in decoded]


def read_bytes(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Enough videos to measure what can be read from them."""
    root = tmp_path_factory.mktemp("synthetic") / "videos"
    create_synthetic(
        root, num_classes=4, train_videos=30, val_videos=30, num_frames=24, size=48, num_workers=2
    )
    return root


def test_files_are_the_same_for_any_number_of_workers(tmp_path):
    for workers in (1, 2):
        create_synthetic(tmp_path / str(workers), **TINY, num_workers=workers)
    one, two = (read_bytes(tmp_path / name) for name in ("1", "2"))
    assert len(one) == 2 * (3 + 1) + 3  # videos of both splits, two tables, meta.json
    assert one == two


def test_encoding_is_deterministic(tmp_path):
    # Some settings of the encoder differ from themselves about once in fifty times.
    frames, _ = draw_video(np.random.default_rng(0), list(POSES.values()), 0, 16, 32)
    written = set()
    for _ in range(100):
        _encode(tmp_path / "video.mp4", frames)
        written.add((tmp_path / "video.mp4").read_bytes())
    assert len(written) == 1


def test_a_video_depends_on_nothing_but_its_seed_split_class_and_number(tmp_path):
    create_synthetic(tmp_path / "few", **TINY, num_workers=1)
    create_synthetic(tmp_path / "more", **TINY | {"train_videos": 4}, num_workers=1)
    create_synthetic(tmp_path / "other", **TINY, seed=1, num_workers=1)
    few, more, other = (read_bytes(tmp_path / name) for name in ("few", "more", "other"))
    videos = [name for name in few if name.endswith(".mp4")]
    assert all(few[name] == more[name] for name in videos)
    assert all(few[name] != other[name] for name in videos)
    assert len({few[name] for name in videos}) == len(videos)


@pytest.mark.slow
def test_videos_are_h264_with_frequent_keyframes(dataset):
    for row in read_rows(dataset, "val")[::20]:
        frames, times, keys = read_video(dataset / row["path"])
        assert frames.shape == (24, 48, 48, 3)
        assert times.tolist() == [i / 12 for i in range(24)]
        assert keys[0]
        assert np.diff([*np.flatnonzero(keys), 24]).max() <= 12


def test_tables_list_every_video_with_a_span_inside_it(dataset):
    starts = []
    for split in ("train", "val"):
        rows = read_rows(dataset, split)
        assert {row["path"] for row in rows} == {
            str(path.relative_to(dataset)) for path in (dataset / split).rglob("*.mp4")
        }
        for row in rows:
            assert Path(row["path"]).parts[:2] == (split, row["label"])
            start, end = float(row["relevant_start"]), float(row["relevant_end"])
            inside = sum(start <= i / 12 < end for i in range(24))
            assert inside == round((end - start) * 12)
            assert 0 <= start < end <= 24 / 12
            assert round(0.2 * 24) <= inside <= round(0.4 * 24)
            starts.append(start)
    assert min(starts) == 0
    assert np.std(starts) > 0.2  # seconds; anywhere in the video


def test_written_once(tmp_path):
    root = tmp_path / "videos"
    create_synthetic(root, **TINY, num_workers=1)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    create_synthetic(root, **TINY, num_workers=2)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_other_arguments_are_refused(tmp_path):
    root = tmp_path / "videos"
    create_synthetic(root, **TINY, num_workers=1)
    with pytest.raises(UserError, match=r"seed 0 \(now 1\): delete it or choose another folder"):
        create_synthetic(root, **TINY, seed=1)
    meta = json.loads((root / "meta.json").read_text())
    (root / "meta.json").write_text(json.dumps(meta | {"version": 0}))
    with pytest.raises(UserError, match="version 0"):
        create_synthetic(root, **TINY)


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="not a synthetic data set"):
        create_synthetic(tmp_path, **TINY)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    "wrong",
    [{"num_classes": len(POSES) + 1}, {"num_classes": 1}, {"size": 33}, {"num_frames": 8}],
)
def test_impossible_arguments_are_refused(tmp_path, wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        create_synthetic(tmp_path / "videos", **TINY | wrong)
    assert not any(tmp_path.iterdir())


def start_writing(root: Path, train_videos: int) -> subprocess.Popen:
    script = root.parent / "write.py"
    script.write_text(SCRIPT)
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, str(script), str(root), str(train_videos)],
        env=os.environ | {"PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )


def wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_killed_writer_leaves_nothing_that_reads_as_whole(tmp_path):
    root = tmp_path / "videos"
    process = start_writing(root, train_videos=500)
    wait_until(lambda: any(tmp_path.glob(".videos.*.partial/train/*/*.mp4")))
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)  # until its workers, who share its output, have ended too
    assert not root.exists()
    assert 0 < len(list(tmp_path.rglob("*.mp4"))) < 1002
    create_synthetic(root, **TINY, num_workers=1)
    assert len(read_bytes(root)) == 11
    assert not list(tmp_path.glob(".videos.*.partial"))


def test_two_writers_at_once_both_end_with_the_whole(tmp_path):
    root = tmp_path / "videos"
    processes = [start_writing(root, train_videos=3) for _ in range(2)]
    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0
    create_synthetic(tmp_path / "alone", **TINY, num_workers=1)
    assert read_bytes(root) == read_bytes(tmp_path / "alone")
    assert not list(tmp_path.glob(".videos.*.partial"))


def describe(frames: np.ndarray) -> np.ndarray:
    """What a simple classifier sees: colours, small grey pictures, directions of edges."""
    t, h, w, _ = frames.shape
    colours = [
        np.stack([np.histogram(frame[..., c], 8, (0, 256))[0] for frame in frames])
        for c in range(3)
    ]
    grey = frames.mean(-1)
    small = grey.reshape(t, 12, h // 12, 12, w // 12).mean((2, 4)).reshape(t, -1)
    dy, dx = np.gradient(grey, axis=(1, 2))
    angle = np.floor(np.arctan2(dy, dx) % np.pi / np.pi * 8 - 1e-6)
    strength = np.hypot(dx, dy)
    edges = [
        np.where(angle == k, strength, 0)
        .reshape(t, 6, h // 6, 6, w // 6)
        .mean((2, 4))
        .reshape(t, -1)
        for k in range(8)
    ]
    return np.concatenate([*colours, small, *edges], axis=1)


def load_descriptions(root: Path, split: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """For each video the mean and spread over frames inside the action, outside it, and labels."""
    pooled: dict[bool, list[np.ndarray]] = {True: [], False: []}
    rows = read_rows(root, split)
    for row in rows:
        frames, times, _ = read_video(root / row["path"])
        relevant = (float(row["relevant_start"]) <= times) & (times < float(row["relevant_end"]))
        described = describe(frames)
        for inside, features in pooled.items():
            chosen = described[relevant == inside]
            features.append(np.concatenate((chosen.mean(0), chosen.std(0))))
    return np.stack(pooled[True]), np.stack(pooled[False]), [row["label"] for row in rows]


@pytest.mark.slow
def test_the_class_is_in_the_action_and_nowhere_else(dataset):
    *train, train_labels = load_descriptions(dataset, "train")
    *val, val_labels = load_descriptions(dataset, "val")

    def count_right(train_features: np.ndarray, val_features: np.ndarray) -> int:
        # Ridge regression of the classes on standardised features.
        mean, deviation = train_features.mean(0), train_features.std(0) + 1e-9
        x, y = ((features - mean) / deviation for features in (train_features, val_features))
        classes = np.unique(train_labels)
        targets = (np.array(train_labels)[:, None] == classes) - 1 / len(classes)
        scores = y @ x.T @ np.linalg.solve(x @ x.T + 1000 * np.eye(len(x)), targets)
        return int(np.sum(classes[scores.argmax(1)] == val_labels))

    inside, outside = map(count_right, train, val)
    # 120 videos, 4 classes: who guesses has more than `limit` right once in 10,000 times.
    limit = binom.ppf(1 - 1e-4, 120, 1 / 4)
    assert outside <= limit
    assert inside > limit + 12
