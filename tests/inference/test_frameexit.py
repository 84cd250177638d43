"""FrameExit in files, windows, archives, programs and on streams: in its order, and no more."""

import json

import jax
import numpy as np
import pytest
from gated_network import SIZE
from run_folder import write_run
from scene_video import write_scene
from specimens import create_specimen

import sofnet_jax
from sofnet_jax.archive.manifest import Entry
from sofnet_jax.data.video.reader import VideoReader
from sofnet_jax.data.views import Sampler
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.drawing import draw_picture
from sofnet_jax.inference.many import predict_videos
from sofnet_jax.inference.printer import Printer
from sofnet_jax.systems.early_exit import NEVER

CLASSES = ["a", "b", "c", "d", "e"]
T = 6


@pytest.fixture(
    scope="module", params=["frameexit", pytest.param("frameexit_online", marks=pytest.mark.slow)]
)
def model(request, tmp_path_factory):
    specimen = create_specimen(request.param)
    architecture = specimen.system.architecture
    fields = {
        "model.system": "frameexit",
        "model.backbone": "tiny",
        "model.width": 8,
        "data.size": SIZE,
        "data.num_frames": T,
        "data.short_side": 40,
        "frameexit.features": 24,
        "frameexit.gate_features": (8, 4),
        "frameexit.online": architecture.online,
        "eval.threshold": 1.0,
        "eval.min_frames": 0,
    }
    folder = tmp_path_factory.mktemp(request.param)
    return sofnet_jax.load(
        write_run(folder, specimen.variables, CLASSES, fields, architecture), dtype="float32"
    )


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for v in range(5):
        write_scene(root / f"{v}.mp4", seed=v)
    return [root / f"{v}.mp4" for v in range(5)]


def evaluate(model, path, early=None):
    """What masked evaluation does with the frames that the model sees of a file."""
    with VideoReader(path, short_side=40) as reader:
        frames = [model.sampler.crop(pixels) for pixels, _ in reader.read(model.sampler.choose)]
    name = "frameexit_online" if model.network.architecture.online else "frameexit"
    logits, [steps] = create_specimen(name).evaluate(np.stack(frames)[None], early or NEVER)
    return jax.nn.softmax(logits[0]), steps


def test_files_are_looked_at_in_order_and_as_evaluation_does(model, videos):
    lengths = set()
    for path in videos:
        scores, steps = evaluate(model, path)
        prediction = model.predict(path)
        trace = prediction.trace
        assert list(zip(trace.time.tolist(), trace.action.tolist(), strict=True)) == steps
        np.testing.assert_allclose(prediction.scores, scores, atol=1e-4)
        times = np.argsort(np.argsort([prediction.times[i] for i in range(len(trace))]))
        assert (times == np.argsort(np.argsort(trace.time))).all()  # seconds follow the frames
        assert prediction.kept == len(trace) and prediction.unseen == T - len(trace)
        assert prediction.stops == {}
        told = json.loads(json.dumps(prediction.to_json()))
        names = [action.name for action in model.network.architecture.actions]
        assert told["frames"]["stop"] == [names[action] for _, action in steps]
        lengths.add(len(trace))
    assert len(lengths) > 1  # gates decide


def test_only_frames_that_are_looked_at_are_decoded(model, videos, monkeypatch):
    read, crop = [], Sampler.crop

    def count(sampler, pixels):
        read.append(1)
        return crop(sampler, pixels)

    monkeypatch.setattr(Sampler, "crop", count)
    for path in videos:
        read.clear()
        assert len(model.predict(path).trace) == len(read)


def test_an_archive_decides_as_predict_does(model, videos):
    entries = [Entry(str(path), None, None) for path in videos]
    for number, outcome in predict_videos(model, entries, num_threads=2):
        alone = model.predict(videos[number])
        assert outcome.trace.action.tolist() == alone.trace.action.tolist()
        assert outcome.trace.time.tolist() == alone.trace.time.tolist()
        assert outcome.times == alone.times and outcome.spent == alone.spent
        np.testing.assert_allclose(outcome.scores, alone.scores, atol=1e-5)


def test_windows_of_a_file_and_streams(model, videos):
    windows = list(model.segment(videos[0], seconds=0.8))
    assert [window.start for window in windows] == pytest.approx([0.0, 0.8, 1.6])
    assert all(window.is_window and len(window.trace) for window in windows)
    frames = [(0.1 * i, lambda: np.zeros((48, 48, 3), np.uint8)) for i in range(30)]
    if model.network.architecture.online:
        assert len(list(model.watch(iter(frames), seconds=1.0))) == 3
    else:
        with pytest.raises(UserError, match="out of order, which a stream cannot give"):
            list(model.watch(iter(frames), seconds=1.0, name="rtsp://x"))


def test_a_window_that_is_cut_short_is_answered_by_its_last_classifier(model):
    if not model.network.architecture.online:
        pytest.skip("a stream cannot run it")
    frames = [(0.1 * i, lambda: np.full((48, 48, 3), 99, np.uint8)) for i in range(3)]
    [window] = model.watch(iter(frames), seconds=1.0)
    assert 0 < len(window.trace) <= 3 and window.scores.sum() == pytest.approx(1)


def test_a_program_and_a_picture(model, videos, tmp_path):
    model.export(tmp_path / "program")
    program = jax.export.deserialize(bytearray((tmp_path / "program").read_bytes()))
    with VideoReader(videos[1], short_side=40) as reader:
        frames = [model.sampler.crop(pixels) for pixels, _ in reader.read(model.sampler.choose)]
    scores, _, done = program.call(np.stack(frames)[None])
    prediction = model.predict(videos[1])
    looked = dict(zip(prediction.trace.time, prediction.trace.action, strict=True))
    assert np.asarray(done)[0].tolist() == [looked.get(time, -1) for time in range(T)]
    np.testing.assert_allclose(scores[0], prediction.scores, atol=1e-5)
    draw_picture(tmp_path / "x.png", [prediction], model)
    assert (tmp_path / "x.png").stat().st_size > 0


def test_fewer_frames_than_positions(model, videos):
    short = model.predict([np.zeros((SIZE, SIZE, 3), np.uint8)] * 2)  # each is seen several times
    assert 0 < len(short.trace) <= T


def test_an_offline_network_does_not_even_connect_to_a_stream(model, capsys):
    printer = Printer(
        model, 1, early=True, window=0.0, every=0.0, time_limit=9.0, as_json=False, picture=None
    )
    address = "tcp://127.0.0.1:9/x"  # where nothing answers
    if model.network.architecture.online:
        pytest.skip("it would connect")
    printer.print([(address, None)])
    assert printer.failed and capsys.readouterr().err.startswith(f"error: {address}: this network")
