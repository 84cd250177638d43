"""What a loaded network predicts is what evaluation says of the same frames, and costs less."""

import inspect
import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from gated_network import SIZE, create_network, draw_videos
from PIL import Image
from run_folder import write_run
from scene_video import write_scene
from scipy.special import softmax
from specimens import create_specimen

import sofnet_jax
from sofnet_jax.benchmark.workload import load_workload
from sofnet_jax.data.pipeline import create_eval_iterator
from sofnet_jax.data.source import create_source
from sofnet_jax.data.video import container
from sofnet_jax.data.video.decode import VideoError
from sofnet_jax.data.video.reader import VideoReader
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.drawing import read_frames
from sofnet_jax.systems.early_exit import NEVER, Rule
from sofnet_jax.weights.names import to_state_dict

ROOT = Path(__file__).parents[2]
CLASSES = ["run", "jump", "swim", "dive", "fall"]
FRAMES = 8
FIELDS = {
    "data.size": SIZE,
    "data.num_frames": FRAMES,
    "data.short_side": 40,
    "eval.threshold": 0.6,
    "eval.min_frames": 1,
}


def write_weights(path, variables, classes=None):
    tensors = {name: np.ascontiguousarray(x) for name, x in to_state_dict(variables).items()}
    metadata = {"classes": json.dumps(classes)} if classes else None
    safetensors.numpy.save_file(tensors, path, metadata)
    return path


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for v in range(6):
        write_scene(root / "run" / f"{v}.mp4", seed=v)
    return root


@pytest.fixture(scope="module")
def frames(videos):
    """What evaluation shows a network of them."""
    source = create_source(videos, classes=CLASSES, short_side=40)
    batches = create_eval_iterator(source, batch_size=6, num_frames=FRAMES, size=SIZE)
    return next(batches)["frames"]


@pytest.fixture(scope="module")
def variables(frames):
    """With gates that each forward about 0.8 of the frames of these videos that come to it."""
    architecture, model, variables = create_network()
    variables = jax.tree.map(np.array, variables)
    apply = jax.jit(model.apply)
    for k, name in enumerate(architecture.gate_names):
        decision = apply(variables, frames).decision
        margin = np.diff(decision.logits[:, :, k])[np.asarray(decision.stop) >= k]
        variables["params"][f"policy_{name}"]["b_q"][1] -= np.quantile(margin, 0.2)
    return variables


@pytest.fixture(scope="module")
def run(tmp_path_factory, variables):
    return write_run(tmp_path_factory.mktemp("run"), variables, CLASSES, FIELDS)


@pytest.fixture(scope="module")
def model(run):
    return sofnet_jax.load(run)


def test_predicts_what_evaluation_says(model, videos, frames, variables):
    specimen = replace(create_specimen("sofnet"), variables=variables)
    for early in (True, False):
        logits, steps = specimen.evaluate(frames, Rule(0.6, 1) if early else NEVER)
        scores = softmax(logits, axis=-1)
        looked = list(map(len, steps))
        for v, count in enumerate(looked):
            path = videos / "run" / f"{v}.mp4"
            for video in (path, str(path), frames[v], list(frames[v])):
                prediction = model.predict(video, early=early)
                assert prediction.trace.action.tolist() == [action for _, action in steps[v]]
                np.testing.assert_allclose(prediction.scores, scores[v], atol=1e-5)
                best = np.argsort(-scores[v])
                assert [guess.name for guess in prediction.guesses] == [CLASSES[i] for i in best]
                assert prediction.num_frames - prediction.unseen == count
        ended = sum(count < FRAMES for count in looked)
        assert 0 < ended < 6 if early else not ended  # some end early, and some do not


def test_frames_after_an_early_exit_are_not_decoded(model, videos, decoded):
    unseen = 0
    for v in range(6):
        decoded.clear()
        prediction = model.predict(videos / "run" / f"{v}.mp4")
        # 60 frames at 25 a second, each in a packet: the centres of 8 segments are 7.5 apart.
        last = int((len(prediction.trace) - 0.5) * 7.5)
        assert len(decoded) == last + 1
        assert prediction.times[-1] == pytest.approx(last / 25)
        unseen += prediction.unseen
    assert unseen


def test_tells_what_it_spent(model, videos):
    architecture, _, _ = create_network()
    prediction = model.predict(videos / "run/0.mp4", top_k=2, early=False)
    prices = architecture.prices(SIZE)
    paper, full = prices.paper.tolist(), prices.full.tolist()
    for each, spent in ((paper, prediction.spent.paper), (full, prediction.spent.full)):
        assert spent == pytest.approx(sum(each[action] for action in prediction.trace.action))
    assert sum(prediction.stops.values()) + prediction.kept == FRAMES
    assert prediction.spent.paper < prediction.plain.paper < FRAMES * paper[-1]
    assert prediction.decode_ms > 0 and prediction.network_ms > 0
    assert prediction.start == 0 and prediction.end == pytest.approx(60 / 25)
    assert len(prediction.guesses) == 2 and prediction.scores.shape == (5,)
    told = json.loads(json.dumps(prediction.to_json()))
    assert told["frames"]["kept"] == prediction.kept and len(told["classes"]) == 2
    assert told["gflops"]["spent"] == prediction.spent.paper


def test_files_are_cropped_and_frames_of_the_network_are_not(model, write_video, tmp_path):
    path = write_video(tmp_path / "small.mp4", range(16), size=(SIZE, SIZE))
    with VideoReader(path) as reader:
        frames = np.stack([pixels for pixels, _ in reader.read(lambda n: np.arange(1, n, 2))])
    # Evaluation scales the short side to 8/7 of the network's 32, 37, and cuts 32 of those out.
    expected = np.stack(
        [
            Image.fromarray(f).resize((SIZE, SIZE), Image.Resampling.BILINEAR, _cut(SIZE))
            for f in frames
        ]
    )
    np.testing.assert_allclose(
        model.predict(path, early=False).scores,
        model.predict(expected, early=False).scores,
        atol=1e-6,
    )
    assert not np.allclose(
        model.predict(frames, early=False).scores, model.predict(path, early=False).scores
    )


def _cut(size):
    """The box that is 2 to 34 of the 37 pixels that `size` are scaled to."""
    return tuple(x * size / 37 for x in (2, 2, 34, 34))


def test_part_of_a_file(model, videos):
    path = videos / "run/1.mp4"
    part = model.predict(path, start=0.8, end=1.6, early=False)
    with VideoReader(path, short_side=40) as reader:
        frames = [pixels for pixels, _ in reader.read(lambda n: np.arange(n))]
    expected = model.predict(frames[20:40], early=False)
    np.testing.assert_array_equal(part.trace.action, expected.trace.action)
    assert (part.start, part.end) == (0.8, 1.6) and 0.8 <= min(part.times) < max(part.times) < 1.6


def test_windows_of_a_file_are_its_parts(model, videos):
    path = videos / "run/2.mp4"
    windows = list(model.segment(path, seconds=0.64))
    assert [(w.start, w.num_frames) for w in windows] == [
        (pytest.approx(0.64 * i), 8 if i < 3 else 6) for i in range(4)
    ]  # 60 frames are 3.75 windows of 16 frames
    for window in windows[:3]:  # of 16 frames, number 1, 3, 5, … are the first from the centres
        with VideoReader(path, short_side=40) as reader:
            chosen = round(window.start * 25) + 1 + 2 * np.arange(8)
            frames = [pixels for pixels, _ in reader.read(lambda n, c=chosen: c)]
        expected = model.predict(frames)
        np.testing.assert_array_equal(window.trace.action, expected.trace.action)
        np.testing.assert_allclose(window.scores, expected.scores, atol=1e-6)
        assert read_frames(model, window).shape == (8, SIZE, SIZE, 3)
    assert model.round_step(0.15, 0.64) == pytest.approx(0.16)  # two of eight segments
    assert model.round_step(0.01, 0.64) == pytest.approx(0.08)  # never none
    (whole,) = model.segment(path, seconds=10.0)
    np.testing.assert_array_equal(whole.trace.action, model.predict(path).trace.action)


def test_windows_with_fewer_frames_than_segments(model, videos):
    """Frames that the file lacks are neither counted as unseen nor priced."""
    path = videos / "run/2.mp4"  # 25 frames a second, in segments of 1/50 s
    sure = replace(model, rule=Rule(0.0, 1))
    looked = [list(m.segment(path, seconds=0.16)) for m in (replace(model, rule=NEVER), sure)]
    for whole, ended in zip(*looked, strict=True):
        assert whole.unseen == 0 and whole.num_frames == len(whole.trace) <= 5
        assert ended.num_frames == whole.num_frames and ended.plain == whole.plain
    assert any(ended.unseen for ended in looked[1])


def test_a_slow_decoder_is_stopped_at_the_time_limit(model, videos, monkeypatch):
    packets, decode = [], container.Video._decode_packet

    def slow(self, packet):
        packets.append(packet)
        time.sleep(0.02)
        return decode(self, packet)

    path = videos / "run/1.mp4"
    whole = model.predict(path)
    monkeypatch.setattr(container.Video, "_decode_packet", slow)
    message = f"{path}: not done after 0.2 s; raise --time_limit"
    with pytest.raises(VideoError, match=message):
        model.predict(path, early=False, time_limit=0.2)
    assert 3 < len(packets) <= 10
    with pytest.raises(VideoError, match=message):
        list(model.segment(path, seconds=1.0, time_limit=0.2))
    with pytest.raises(VideoError, match=message):
        read_frames(model, whole, time_limit=0.2)


@pytest.mark.slow
def test_nothing_is_compiled_after_loading(model, videos):
    compiled = []

    def listen(event, duration, **_):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        for v in range(6):
            model.predict(videos / "run" / f"{v}.mp4")
            list(model.segment(videos / "run" / f"{v}.mp4", seconds=0.64, every=0.16))
        assert not compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_weights_without_a_configuration(tmp_path, variables):
    path = write_weights(tmp_path / "weights.safetensors", variables)
    loaded = sofnet_jax.load(path, size=SIZE)
    assert loaded.num_frames == 16 and loaded.classes == ("0", "1", "2", "3", "4")
    assert (loaded.rule.threshold, loaded.rule.min_frames) == (0.999, 3)
    video = draw_videos(1, 16)[0]
    expected = sofnet_jax.load(path, size=SIZE, num_frames=16, variant="release")
    assert (
        expected.sampler.via == 224
        and not expected.network.forces
        and expected.rule.min_frames == 4
    )
    assert len(loaded.predict(video, early=False).trace) == 16
    named = write_weights(tmp_path / "named.safetensors", variables, CLASSES)
    assert sofnet_jax.load(named, size=SIZE).classes == tuple(CLASSES)


def _refuse(source, **options):
    with pytest.raises(UserError) as error:
        sofnet_jax.load(source, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_cannot_be_loaded(tmp_path, run, variables):
    backbone = {k: v for k, v in to_state_dict(variables).items() if not k.startswith("fc.")}
    backbone = {name: np.ascontiguousarray(x) for name, x in backbone.items()}
    safetensors.numpy.save_file(backbone, tmp_path / "backbone.safetensors")
    assert "no classifier there" in _refuse(tmp_path / "backbone.safetensors")
    half = write_weights(tmp_path / "half.safetensors", variables)
    half.write_bytes(half.read_bytes()[:5000])
    assert "half.safetensors" in _refuse(half)
    other = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"encoder.weight": np.ones(3, np.float32)}, other)
    assert "other.safetensors" in _refuse(other)
    assert "nothing.pth" in _refuse(tmp_path / "nothing.pth")
    assert "cannot be read (File name too long)" in _refuse(tmp_path / ("x" * 300))
    assert "leave out 'release'" in _refuse(run, variant="release")
    whole = write_weights(tmp_path / "whole.safetensors", variables)
    assert "no variant 'big'" in _refuse(whole, variant="big")
    assert "dtype is 'int4'" in _refuse(run, dtype="int4")
    assert "JAX does not compute in int8" in _refuse(run, dtype="int8")
    assert "size is 0" in _refuse(run, size=0)


def test_a_run_that_is_damaged(tmp_path, run):
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    (copy / "config.json").write_text('{"eval": {"metric": "map"}, "data": {}}')
    assert "config.json" in _refuse(copy)
    (copy / "config.json").write_text('{"eval": ')
    assert _refuse(copy).startswith(f"{copy}/config.json is damaged")
    shutil.copy(run / "config.json", copy)
    for file in (copy / "checkpoints").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:100])
    assert "damaged or not whole" in _refuse(copy)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((3, 8, 8), np.uint8), r"not uint8 of \(8, 8\)"),
        (np.zeros((3, 8, 8, 4), np.uint8), r"not uint8 of \(8, 8, 4\)"),
        ([np.zeros((8, 8, 3), np.float32)], "not float32"),
        ([], "no frame was looked at"),
    ],
)
def test_what_is_no_video(given, message, model):
    with pytest.raises(ValueError, match=message):
        model.predict(given)


@pytest.mark.parametrize("given", [io.BytesIO(b"video"), b"video"])
def test_a_video_in_memory_is_refused_by_its_type(given, model):
    predict = inspect.unwrap(type(model).predict)  # tests check types, users' programs do not
    kind = type(given).__name__
    with pytest.raises(TypeError, match=f"video is a {kind}; give a file's path, or frames"):
        predict(model, given)


def test_files_that_are_no_videos(tmp_path, model):
    (tmp_path / "text.mp4").write_text("no video")
    for name in ("text.mp4", "nothing.mp4"):
        with pytest.raises(VideoError, match=name):
            model.predict(tmp_path / name)


def test_weights_that_do_not_tell_their_frames_are_noted(variables, tmp_path):
    path = write_weights(tmp_path / "w.safetensors", variables, CLASSES)
    assert "shown 16 frames of 32×32" in sofnet_jax.load(path, size=SIZE).notes[-1]
    assert not sofnet_jax.load(path, size=SIZE, num_frames=FRAMES).notes


def test_the_picture_of_a_part(model, videos):
    file = min(videos.rglob("*.mp4"))
    prediction = model.predict(file, start=1.0, end=2.0, early=False)
    with VideoReader(file, short_side=40) as reader:
        chosen = np.searchsorted(reader.times, prediction.times)
        expected = [model.sampler.crop(pixels) for pixels, _ in reader.read(lambda _: chosen)]
    assert reader.times[chosen].min() >= 1 and reader.times[chosen].max() < 2
    np.testing.assert_array_equal(read_frames(model, prediction), expected)


def test_scores_that_are_no_numbers(model, videos):
    *gated, final = model.network.spans
    final = replace(final, head=replace(final.head, bias=final.head.bias * np.nan))
    broken = replace(model, network=replace(model.network, spans=(*gated, final)))
    file = min(videos.rglob("*.mp4"))
    with pytest.raises(UserError, match="scores are not numbers"):
        broken.predict(file)


def test_windows_and_platforms_that_cannot_be(model, videos, tmp_path):
    file = min(videos.rglob("*.mp4"))
    for seconds in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="windows of"):
            list(model.segment(file, seconds=seconds))
    with pytest.raises(ValueError, match="top_k is 0"):
        model.predict(file, top_k=0)
    with pytest.raises(UserError, match="no platform tpux"):
        model.export(tmp_path / "program", platforms=["tpux"])


def test_a_program_for_jax_alone(model, frames, tmp_path):
    model.export(tmp_path / "program")
    program = jax.export.deserialize(bytearray((tmp_path / "program").read_bytes()))
    scores, _, stop = program.call(frames[:2])
    for video, row, its_scores in zip(frames, np.asarray(stop), scores, strict=False):
        prediction = model.predict(video)
        assert [s for s in row if s >= 0] == prediction.trace.action.tolist()
        np.testing.assert_allclose(its_scores, prediction.scores, atol=1e-5)
    with pytest.raises(UserError, match="cannot write to"):
        model.export(tmp_path / "program/in/a/file")


@pytest.mark.slow
def test_a_benchmark_of_a_trained_network_decides_as_it_does(run, videos, model, tmp_path, capsys):
    files = sorted(map(str, videos.rglob("*.mp4")))
    bad = tmp_path / "bad.mp4"
    bad.write_text("no video")
    work = load_workload(str(run), [str(bad), *files])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"left out: {bad}")
    with pytest.raises(UserError, match="none of the videos"):
        load_workload(str(run), [str(bad)])
    for file, stop in zip(files, work.stops, strict=True):
        assert stop.tolist() == model.predict(file).trace.action.tolist()
    spent = [model.predict(file).spent.full for file in files]
    plain = model.predict(files[0]).plain.full
    np.testing.assert_allclose(work.gflops, [plain, np.mean(spent)], rtol=1e-6)


def test_importing_the_package_imports_nothing_else():
    code = "import sys, sofnet_jax; print([m for m in ('jax', 'numpy', 'av') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


@pytest.fixture
def run_example(run, videos, tmp_path):
    """Runs the example number n of a page, and gives what it prints."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/mine").symlink_to(run)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/val").symlink_to(videos)

    def run_it(page, n, environment=None):
        examples = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
        done = subprocess.run(
            [sys.executable, "-c", examples[n]],
            cwd=tmp_path,
            env=os.environ | (environment or {"PYTHONPATH": str(ROOT)}),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run_it


@pytest.mark.slow
def test_the_example_of_lockstep(run_example):
    lines = run_example("docs/inference.md", 0)
    assert sorted(line.split()[0] for line in lines) == ["0", "1", "2"]
    assert all(line.split()[1] in CLASSES for line in lines)


@pytest.mark.slow
def test_the_examples_of_the_readme(run_example, model, tmp_path):
    *guesses, frames, gflops, first, _, _, _, last = run_example("README.md", 0)
    assert len(guesses) == 5 and all(re.fullmatch(r" *[\d.]+ %  \w+", line) for line in guesses)
    assert re.fullmatch(r"\{'res1': \d.*\} \d \d", frames) and gflops.endswith("GFLOPs")
    assert first.startswith("0.0 0.5 ") and last.startswith("2.0 ")
    [line] = run_example("docs/onnx.md", 0)  # of the program that the first has left
    assert re.fullmatch(r"\w+ \['(res\d|kept)'(, '(res\d|kept)')*\]", line)
    model.export(tmp_path / "mine.program")
    shape, *stops = run_example("docs/inference.md", 1)
    assert shape.startswith("(2, 5) ") and len(stops) >= 1


@pytest.mark.slow
def test_a_run_with_the_temporal_shift(tmp_path, frames, variables):
    """Shifts as in evaluation; a file of its weights does not tell that it is to."""
    _, plain, _ = create_network(shift="online")
    stop = np.asarray(jax.jit(plain.apply)(variables, frames[:2]).decision.stop)
    fields = FIELDS | {"model.shift": "online"}
    run = write_run(tmp_path / "run", variables, CLASSES, fields)
    file = write_weights(tmp_path / "weights.safetensors", variables, CLASSES)
    sizes = {"size": SIZE, "num_frames": FRAMES}
    for model in (sofnet_jax.load(run), sofnet_jax.load(file, variant="tsm_online", **sizes)):
        for v in range(2):
            np.testing.assert_array_equal(
                model.predict(frames[v], early=False).trace.action, stop[v]
            )
