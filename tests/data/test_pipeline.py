"""The laws of the input pipeline; see the module for their statement."""

import errno
import itertools
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest
from numbered_frame import read_numbers

from sofnet_jax.data.pipeline import create_eval_iterator, create_train_iterator
from sofnet_jax.data.source import Source, Video, create_source
from sofnet_jax.data.video.decode import VideoError
from sofnet_jax.data.views import show
from sofnet_jax.host.errors import UserError


@dataclass(frozen=True)
class _Drawn:
    """A video of 100 frames, whose colour tells the video (red), the frame (green)."""

    number: int
    labels: tuple[int, ...] = (0,)
    bad: bool = False
    relevant: tuple[tuple[float, float], ...] | None = None

    @property
    def id(self):
        return str(self.number)

    def read(self, choose, look):
        if self.bad:
            raise VideoError(f"{self.number}: bad")
        chosen = choose(100)
        frames = np.zeros((len(chosen), 12, 16, 3), np.uint8)
        frames[..., 0] = self.number
        frames[..., 1] = chosen[:, None, None]
        frames[..., 2] = np.arange(16) * 16  # a gradient, so that crops and flips tell
        return show(frames, look(12, 16)), chosen / 10


class _Full(_Drawn):
    """Fails as shared memory does when /dev/shm is full."""

    def read(self, choose, look):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/psm_0")


class _Probe(_Drawn):
    """Says in its id what the process it is read in is like."""

    @property
    def id(self):
        backends = len(jax._src.xla_bridge._backends)
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return f"{os.getpid()} {backends} {blocked >= {signal.SIGINT, signal.SIGTERM}}"


def _drawn(count, bad=()):
    return Source(tuple(_Drawn(i, bad=i in bad) for i in range(count)), ("run", "jump"))


def _train(source, count, **kwargs):
    """The first batches of a training iterator."""
    options = {"batch_size": 4, "num_frames": 3, "size": 8, "seed": 5} | kwargs
    with closing(create_train_iterator(source, **options)) as batches:
        return list(itertools.islice(batches, count))


def _eval(source, **kwargs):
    return list(
        create_eval_iterator(source, **({"batch_size": 4, "num_frames": 4, "size": 8} | kwargs))
    )


def _assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for key in batch:
            assert type(batch[key]) is type(other[key])
            np.testing.assert_array_equal(batch[key], other[key], err_msg=key)


def _ids(batches):
    return [name for batch in batches for name in batch["id"]]


def test_batches_of_videos(write_video, tmp_path):
    for name in ("run/a.mp4", "jump/b.mkv", "jump/c.mp4"):
        write_video(tmp_path / name, size=(96, 64))
    source = create_source(tmp_path)
    [batch] = _train(source, 1, batch_size=3, num_frames=4, size=32, flip=False, scales=(1.0,))
    assert batch["frames"].shape == (3, 4, 32, 32, 3) and batch["frames"].dtype == np.uint8
    assert batch["labels"].shape == (3, 2) and batch["labels"].dtype == np.float32
    assert batch["index"].tolist() == [0, 1, 2] and batch["index"].dtype == np.int32
    assert batch["valid"].tolist() == [True] * 3 and batch["valid"].dtype == np.bool_
    assert np.isnan(batch["relevant"]).all() and batch["relevant"].dtype == np.float32
    assert sorted(batch["id"]) == ["jump/b.mkv", "jump/c.mp4", "run/a.mp4"]
    for name, labels in zip(batch["id"], batch["labels"], strict=True):
        assert labels.tolist() == ([0, 1] if name.startswith("run") else [1, 0])
    assert batch["errors"] == [{}] * 3

    [batch] = _eval(source, batch_size=3, num_frames=4, size=64)
    assert batch["id"] == ["jump/b.mkv", "jump/c.mp4", "run/a.mp4"]
    # 64 rows become 73, of which 64 stay; of the columns the centre 56 of 96 stays: stripes 1 to 6
    # of 8 whole ones. The centres of 4 segments of 16 frames are 8, 24, 40, 56.
    for frames in batch["frames"]:
        wide = np.zeros((4, 64, 110, 3), np.uint8)
        wide[:, :, 23:87] = frames
        assert [n & 0b0111_1000 for n in read_numbers(wide)] == [8, 24, 40, 56]


def test_every_epoch_shows_every_video_once_in_a_new_order():
    ids = _ids(_train(_drawn(12), 9))
    epochs = [ids[:12], ids[12:24], ids[24:]]
    assert all(sorted(epoch, key=int) == [str(i) for i in range(12)] for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != [str(i) for i in range(12)]


def test_an_epoch_leaves_out_what_does_not_fill_a_batch():
    ids = _ids(_train(_drawn(11), 40))  # 20 epochs of 2 batches
    epochs = [set(ids[i : i + 8]) for i in range(0, len(ids), 8)]
    assert all(len(epoch) == 8 for epoch in epochs)
    assert set.union(*epochs) == {str(i) for i in range(11)}  # each comes in some epoch


def test_frames_crops_and_flips_are_new_in_every_epoch_and_seed():
    source = _drawn(4)

    def look(seed):
        first, second = _train(source, 2, seed=seed)
        order = [np.argsort(np.array(b["id"], int)) for b in (first, second)]
        return first["frames"][order[0]], second["frames"][order[1]]

    looks = [*look(0), *look(1)]
    for a, b in itertools.combinations(looks, 2):
        assert (a[..., 1] != b[..., 1]).any() and (a[..., 2] != b[..., 2]).any()


def test_resuming_anywhere_continues_exactly():
    source = _drawn(11)
    batches = _train(source, 7)
    for done in (1, 2, 5):
        _assert_equal(_train(source, 7 - done, start=4 * done), batches[done:])


@pytest.mark.slow
def test_processes_share_the_global_batches():
    source = _drawn(11, bad=(3,))
    whole = _train(source, 5, batch_size=6)
    for count in (2, 3):
        parts = [
            _train(source, 5, batch_size=6, process_index=i, process_count=count)
            for i in range(count)
        ]
        for step, batch in enumerate(whole):
            for i in range(count):
                part = parts[i][step]
                assert part["index"].tolist() == list(range(i, 6, count))
                for key in batch:
                    np.testing.assert_array_equal(part[key], batch[key][i::count])


@pytest.mark.slow
@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_workers_change_no_training_batch(num_workers):
    source = _drawn(11, bad=(3,))
    _assert_equal(_train(source, 5, num_workers=num_workers), _train(source, 5))
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_workers_change_no_evaluation_batch():
    source = _drawn(7, bad=(2,))  # two batches for three workers, the last one padded
    _assert_equal(_eval(source, num_workers=3), _eval(source))
    assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_workers_stop_when_closed_early():
    assert jax.local_device_count() == 4  # JAX runs with several devices beside the workers
    for count in (0, 1):
        _train(_drawn(8), count, num_workers=2)
        deadline = time.time() + 10
        while multiprocessing.active_children() and time.time() < deadline:
            time.sleep(0.1)
        assert multiprocessing.active_children() == []


@pytest.mark.slow
def test_workers_leave_devices_and_signals_alone():
    source = Source(tuple(_Probe(i) for i in range(4)), ("run",))
    ids = _ids(_train(source, 2, num_workers=1))
    pids, backends, blocked = zip(*(name.split() for name in ids), strict=True)
    assert set(pids) != {str(os.getpid())}
    assert set(backends) == {"0"} and set(blocked) == {"True"}
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGINT, signal.SIGTERM}


_SCRIPT = """
import os, signal, sys, time
sys.path[:0] = {path!r}
from test_pipeline import _drawn
from sofnet_jax.data.pipeline import create_train_iterator
if __name__ == "__main__":
    for s in (signal.SIGINT, signal.SIGTERM):
        signal.signal(s, lambda *_: None)
    batches = create_train_iterator(
        _drawn(8), batch_size=4, num_frames=3, size=8, seed=0, num_workers=2
    )
    print("starting", flush=True)
    next(batches), next(batches)
    print("ready", flush=True)
    {then}
"""


def _start(tmp_path, then):
    """Starts a script with two workers in a process group of its own."""
    script = tmp_path / "script.py"
    here = Path(__file__)
    path = [os.getcwd(), str(here.parent), str(here.parents[1])]
    script.write_text(_SCRIPT.format(path=path, then=then))
    process = subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "starting\n"
    return process


@pytest.mark.slow
def test_workers_survive_signals_to_the_process_group(tmp_path):
    then = "time.sleep(1); [next(batches) for _ in range(9)]; batches.close(); print('done')"
    then += "; time.sleep(1)"  # grain frees shared memory in a thread, a little later
    process = _start(tmp_path, then)
    for _ in range(10):  # while the workers start, and later
        os.killpg(process.pid, signal.SIGINT)
        os.killpg(process.pid, signal.SIGTERM)
        time.sleep(0.3)
    assert process.communicate(timeout=60)[0] == "ready\ndone\n"
    assert process.returncode == 0


@pytest.mark.slow
def test_workers_die_with_their_parent(tmp_path):
    process = _start(tmp_path, "time.sleep(60)")
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.communicate(timeout=10)  # returns when the workers, too, have left the pipe


@pytest.mark.slow
def test_a_worker_that_dies_is_reported():
    options = {"batch_size": 4, "num_frames": 3, "size": 8, "seed": 0, "num_workers": 1}
    with closing(create_train_iterator(_drawn(8), **options)) as batches:
        next(batches)
        [worker] = multiprocessing.active_children()
        worker.kill()
        with pytest.raises(UserError, match="a data worker died"):
            for _ in range(9):
                next(batches)


@pytest.mark.slow
def test_full_shared_memory_is_named():
    source = Source(tuple(map(_Full, range(4))), ("run", "jump"))
    with pytest.raises(UserError, match="^no space is left in /dev/shm; .* fewer workers .1 now"):
        _train(source, 1, num_workers=1)


def test_bad_videos_are_replaced_by_others():
    bad = (1, 4, 7)
    source = _drawn(12, bad)
    batches = _train(source, 9)
    assert not {str(i) for i in bad} & set(_ids(batches))
    clean = _train(_drawn(12), 9)
    replaced = 0
    for batch, wanted in zip(batches, clean, strict=True):
        assert batch["valid"].all()
        for i, name in enumerate(wanted["id"]):
            if int(name) in bad:
                replaced += 1
                assert batch["errors"][i][name].startswith(f"{name}: bad")
            else:  # the others are as if nothing had happened
                assert batch["errors"][i] == {} and batch["id"][i] == name
                np.testing.assert_array_equal(batch["frames"][i], wanted["frames"][i])
            assert (batch["frames"][i, ..., 0] == int(batch["id"][i])).all()
    assert replaced == 3 * len(bad)
    _assert_equal(_train(source, 9), batches)


@pytest.mark.parametrize("num_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_no_readable_video(num_workers):
    with pytest.raises(UserError) as caught:
        _train(_drawn(4, bad=range(4)), 1, num_workers=num_workers)
    message = r"no readable video among the 4 tried; the first: \d: bad"
    assert re.fullmatch(message, str(caught.value))  # in one line, also from a worker


def test_not_all_videos_are_tried():
    with pytest.raises(UserError, match="among the 2[01] tried"):
        _train(_drawn(300, bad=range(300)), 1)


@pytest.mark.parametrize("count", [1, 9, pytest.param(12, marks=pytest.mark.slow)])
@pytest.mark.parametrize("processes", [1, 2, pytest.param(5, marks=pytest.mark.slow)])
def test_evaluation_sees_every_video_once(count, processes):
    source = _drawn(count, bad=(0,))
    parts = [
        _eval(source, batch_size=2, process_index=i, process_count=processes)
        for i in range(processes)
    ]
    assert len({len(part) for part in parts}) == 1
    seen = []
    for i, part in enumerate(parts):
        index = np.concatenate([batch["index"] for batch in part])
        assert len(index) == 2 * len(part)
        expected = list(range(i, count, processes))
        assert index.tolist() == expected + [-1] * (len(index) - len(expected))
        seen += expected
        for batch in part:
            assert batch["valid"].tolist() == [k > 0 for k in batch["index"]]  # video 0 is bad
            blank = ~batch["valid"]
            assert not batch["frames"][blank].any() and np.isnan(batch["relevant"][blank]).all()
            for k, name, errors in zip(batch["index"], batch["id"], batch["errors"], strict=True):
                assert name == ("" if k < 0 else str(k))
                assert errors == ({"0": "0: bad"} if k == 0 else {})
    assert sorted(seen) == list(range(count))


def test_evaluation_does_not_depend_on_batch_size():
    source = _drawn(9)
    frames = [
        np.concatenate([b["frames"][b["valid"]] for b in _eval(source, batch_size=size)])
        for size in (1, 4, 9)
    ]
    # The centres of 4 segments of 25 frames: 12, 37, 62, 87.
    assert frames[0][:, :, 0, 0, 1].tolist() == [[12, 37, 62, 87]] * 9
    np.testing.assert_array_equal(frames[0], frames[1])
    np.testing.assert_array_equal(frames[0], frames[2])


def test_relevant_frames():
    videos = (
        _Drawn(0),
        _Drawn(1, relevant=()),
        _Drawn(2, relevant=((1.2, 3.0), (8.0, 9.0))),  # frames are at 1.2, 3.7, 6.2, 8.7 s
        _Drawn(3, labels=(0, 1), relevant=((3.8, 6.1),)),
    )
    [batch] = _eval(Source(videos, ("run", "jump")))
    assert np.isnan(batch["relevant"][0]).all()
    assert batch["relevant"][1:].tolist() == [[0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]]
    assert batch["labels"].tolist() == [[1, 0], [1, 0], [1, 0], [1, 1]]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"batch_size": 9}, r"batch_size 9 is larger than the data \(8 videos\)"),
        ({"batch_size": 4, "process_count": 3}, "batch_size 4 must be a multiple of 3 processes"),
        ({"seed": -1}, "seed -1 is negative"),
    ],
)
def test_mistakes_are_found_at_once(kwargs, message):
    options = {"batch_size": 4, "num_frames": 3, "size": 8, "seed": 0} | kwargs
    with pytest.raises(UserError, match=message):
        create_train_iterator(_drawn(8), **options)


def test_a_missing_file_is_found_when_it_is_read(write_video, tmp_path):
    write_video(tmp_path / "a.mp4", range(8))
    videos = tuple(Video(n, str(tmp_path / n), (0,)) for n in ("a.mp4", "gone.mp4"))
    source = Source(videos, ("run",))
    [batch] = _train(source, 1, batch_size=2)
    assert batch["id"] == ["a.mp4", "a.mp4"]
    assert {"gone.mp4": f"{tmp_path / 'gone.mp4'}: no such file"} in batch["errors"]
    [batch] = _eval(source, batch_size=2)
    assert batch["valid"].tolist() == [True, False]
