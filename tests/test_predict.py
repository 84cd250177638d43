"""The command as its user meets it."""

import contextlib
import json
import re
import signal
import subprocess
import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
import jax
import numpy as np
import pytest
from command import PYTHON, call
from endless_video import write_endless
from gated_network import SIZE
from PIL import Image
from run_folder import write_run
from scene_video import FRAMES, RATE, write_scene

import sofnet_jax
from sofnet_jax.evaluation.strip import CELL, GAP, TEXT
from sofnet_jax.inference import printer
from sofnet_jax.inference.many import predict_videos
from sofnet_jax.inference.prediction import Prediction
from sofnet_jax.systems.sofnet.architecture import create_architecture
from sofnet_jax.weights.load import create_shapes

ROOT = Path(__file__).parents[1]
CLASSES = ["run", "jump", "swim", "dive", "fall"]
T, MIN_FRAMES = 6, 2
HINT = "give a video, a folder, a pattern or an address"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A run whose gates forward everything and whose videos end after the third frame; videos."""
    root = tmp_path_factory.mktemp("place")
    architecture = create_architecture("tiny", num_classes=5, gates=(1, 2, 3, 4, 5), hidden=16)
    rng, shapes = np.random.default_rng(0), create_shapes(architecture)
    variables = jax.tree.map(lambda x: rng.uniform(0.01, 0.1, x.shape).astype(x.dtype), shapes)
    for name in architecture.gate_names:
        variables["params"][f"policy_{name}"]["b_q"][:] = 0, 1e6
    fields = {
        "data.size": SIZE,
        "data.num_frames": T,
        "data.short_side": 40,
        "eval.threshold": 0.01,
        "eval.min_frames": MIN_FRAMES,
    }
    write_run(root / "run", variables, CLASSES, fields)
    for name in ("videos/a.mp4", "videos/deep/b.mp4", "other.mp4"):
        write_scene(root / name, seed=len(name))
    write_scene(root / "stream.ts", seed=1)
    (root / "videos/bad.mp4").write_text("no video")
    return root


@pytest.fixture
def predict(place):
    """The command in this process, with the checkpoint unless another is given."""

    def run(*arguments):
        default = [f"--checkpoint={place / 'run'}"]
        given = any(str(argument).startswith("--checkpoint") for argument in arguments)
        return call("predict", *arguments, *([] if given else default))

    return run


@pytest.fixture
def program(place):
    """The command in a process of its own."""

    def run(*arguments, **kwargs):
        command = [sys.executable, "-m", "sofnet_jax.predict", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kwargs
        done = subprocess.run([*command, f"--checkpoint={place / 'run'}"], cwd=ROOT, **pipes)
        return done.returncode, (done.stdout or b"").decode(), (done.stderr or b"").decode()

    return run


@pytest.mark.slow
def test_what_cannot_be_read_does_not_keep_the_others(program, place, tmp_path):
    picture = tmp_path / "out.png"
    names = (place / "videos", place / "none.mp4", place / "oth*.mp4", place / "x*.mp4")
    code, stdout, stderr = program(*names, f"--visualize={picture}", "--top_k=2")
    assert code == 1
    assert stderr.splitlines() == [
        f"error: {place}/videos/bad.mp4: not a readable video (Invalid data found when processing "
        "input)",
        f"error: {place}/none.mp4: no such file or folder; {HINT}",
        f"error: {place}/x*.mp4: no file matches; {HINT}",
    ]
    videos = [str(place / name) for name in ("videos/a.mp4", "videos/deep/b.mp4", "other.mp4")]
    blocks = re.split(r"^(?=/)", stdout, flags=re.MULTILINE)[1:]
    assert [block.splitlines()[0] for block in blocks] == videos
    for block in blocks:
        guesses = re.findall(r"^ +([\d.]+) %  (\w+)$", block, re.MULTILINE)
        assert len(guesses) == 2 and {name for _, name in guesses} <= set(CLASSES)
        assert float(guesses[0][0]) >= float(guesses[1][0])
        assert "3 of 6 used; 3 never looked at" in block
        assert re.search(r"GFLOPs +[\d.]+, 5\d % of the plain backbone's [\d.]+", block)
        assert re.search(r"ms +[\d.]+ decode, [\d.]+ network", block)
    # A strip for each video, in which the last three decisions are black.
    image = np.asarray(Image.open(picture))
    assert image.shape[1] == T * (CELL + GAP) + GAP
    row = image[GAP + TEXT + CELL + GAP + 5]
    black = [(row[GAP + t * (CELL + GAP) + 5] == 26).all() for t in range(T)]
    assert black == [False] * 3 + [True] * 3


def test_lines_for_programs(predict, place):
    code, stdout, _ = predict(place / "videos", "--json", "--noearly")
    assert code == 1
    good, bad, deep = map(json.loads, stdout.splitlines())
    assert bad["video"].endswith("bad.mp4") and "not a readable video" in bad["error"]
    for line in (good, deep):
        assert [set(guess) for guess in line["classes"]] == [{"name", "probability"}] * 5
        assert sum(guess["probability"] for guess in line["classes"]) == pytest.approx(1, abs=1e-5)
        frames = line["frames"]
        assert (frames["chosen"], frames["looked_at"], frames["kept"]) == (T, T, T)
        assert frames["stop"] == ["kept"] * T and line["stops"]["res1"] == 0
        assert line["gflops"]["spent"] > line["gflops"]["plain"] > 0  # the gates cost, too
        assert line["ms"]["decode"] > 0 and line["ms"]["network"] > 0


def test_many_files_are_printed_in_order_as_one_at_a_time(predict, place, monkeypatch):
    """In lockstep, with what cannot be read among them."""
    endless = write_endless(place / "endless.y4m")
    names = [place / "none.mp4", place / "videos", endless, place / "other.mp4"]

    def read():
        code, stdout, stderr = predict(*names, "--time_limit=1", "--json")
        lines = list(map(json.loads, stdout.splitlines()))
        milliseconds = [line.pop("ms") for line in lines if "ms" in line]
        probabilities = [
            [guess.pop("probability") for guess in line.get("classes", [])] for line in lines
        ]
        return (code, stderr, lines), probabilities, milliseconds

    expected, probabilities, _ = read()
    monkeypatch.setattr(printer, "MANY_CPU", 2)
    found, together, milliseconds = read()
    assert found == expected and found[0] == 1 and len(found[2]) == 6
    for p, q in zip(probabilities, together, strict=True):
        np.testing.assert_allclose(p, q, atol=1e-5)
    assert all(ms["decode"] > 0 and ms["network"] is None for ms in milliseconds)


@pytest.mark.parametrize("many", [False, True])
def test_other_engines_predict_alike(many, predict, place, monkeypatch):
    """Files, windows and files in lockstep, which take an engine's models of their own."""
    monkeypatch.setattr(printer, "MANY_CPU", 1 if many else 99)
    arguments = [place / "videos/a.mp4", place / "other.mp4", "--json"]
    for more in ([],) if many else ([], ["--window=0.5", "--every=0.25"]):
        lines = {}
        for engine in ("jax", "onnxruntime", "openvino"):
            code, stdout, stderr = predict(*arguments, *more, f"--engine={engine}")
            assert (code, stderr) == (0, "")
            lines[engine] = list(map(json.loads, stdout.splitlines()))
        assert len(lines["jax"]) >= 2
        for own, *others in zip(*lines.values(), strict=True):
            for other in others:
                assert other["frames"] == own["frames"] and other["gflops"] == own["gflops"]
                for one, two in zip(own["classes"], other["classes"], strict=True):
                    assert one["name"] == two["name"]
                    assert one["probability"] == pytest.approx(two["probability"], abs=1e-5)


def test_the_fastest_engine_is_told(predict, place):
    code, _, stderr = predict(place / "other.mp4", "--engine=auto")
    assert code == 0
    pattern = (
        r"note: engine: \w+, float32; \w+ takes [\d.]+ × as long; \w+ takes [\d.]+ × as long\n"
    )
    assert re.fullmatch(pattern, stderr), stderr


def test_many_files_are_described_without_the_time_of_their_network(predict, place, monkeypatch):
    monkeypatch.setattr(printer, "MANY_CPU", 2)
    _, stdout, _ = predict(*[place / "other.mp4"] * 3)
    assert len(re.findall(r"^  ms       [\d.]+ decode$", stdout, re.MULTILINE)) == 3


def test_few_videos_are_under_way_at_a_time(place):
    model = sofnet_jax.load(place / "run", many=True)
    opened = []

    def fetch(name):
        opened.append(name)
        return contextlib.nullcontext(name)

    videos = [(str(place / "other.mp4"), None, None)] * 200
    outcomes = predict_videos(model, videos, fetch=fetch)
    assert all(isinstance(next(outcomes)[1], Prediction) for _ in range(3))
    outcomes.close()
    assert len(opened) < 40


def test_videos_that_nobody_waits_for_are_not_read_on(place, set_handler):
    set_handler(signal.default_int_handler)
    model = sofnet_jax.load(place / "run", many=True)
    endless = write_endless(place / "endless.y4m")
    begun, main = time.monotonic(), threading.main_thread().ident
    threading.Timer(0.5, signal.pthread_kill, [main, signal.SIGINT]).start()  # Ctrl-C
    with pytest.raises(KeyboardInterrupt):
        list(predict_videos(model, [(str(endless), None, None)], time_limit=20.0))
    assert time.monotonic() - begun < 5


def test_a_timeline_and_a_film(predict, place, tmp_path):
    film = tmp_path / "out.mp4"
    video = place / "videos/a.mp4"
    code, stdout, stderr = predict(video, "--window=1", "--top_k=1", f"--visualize={film}")
    assert code == 0 and stderr == ""
    first, *lines = stdout.splitlines()
    assert first == str(video)
    spans = [re.match(r"  0:00:(\S+) – 0:00:(\S+)  [\d.]+ % (\w+)", line) for line in lines]
    assert [span.groups()[:2] for span in spans if span] == [
        ("00.0", "01.0"), ("01.0", "02.0"), ("02.0", "02.4")
    ]  # fmt: skip
    with av.open(str(film)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == FRAMES and frames[-1].time == pytest.approx((FRAMES - 1) / RATE, abs=1e-3)
    assert (frames[0].width, frames[0].height) == (96, 64 + 24)
    last = frames[24].to_ndarray(format="rgb24")[-3, :, :].mean(-1)  # of the first window
    assert last[90] < 60 and last[2] > 80  # it ended early: the sixth decision is black


def test_a_long_video_is_told_of(predict, tmp_path):
    video = write_scene(tmp_path / "long.mp4", seed=0, rate=Fraction(1, 11))
    code, stdout, stderr = predict(video)
    assert code == 0 and stdout.startswith(f"{video}\n")
    assert stderr == f"note: {video} lasts 11 minutes; --window=10 makes a timeline\n"


@pytest.mark.parametrize("options", [[], ["--window=1"], ["--json"]])
def test_an_endless_video_fails_at_its_time_limit(options, predict, place):
    endless = write_endless(place / "endless.y4m")
    error = f"{endless}: not done after 1 s; raise --time_limit to wait longer"
    code, stdout, stderr = predict(endless, place / "other.mp4", "--time_limit=1", *options)
    assert (code, stderr) == (1, f"error: {error}\n")
    assert str(place / "other.mp4") in stdout
    assert ("--json" in options) == (json.dumps({"video": str(endless), "error": error}) in stdout)


@pytest.mark.parametrize("window", ["--window=0", "--window=1"])
def test_a_video_that_is_cut_off_is_told_of(window, predict, write_video, tmp_path):
    path = write_video(tmp_path / "a.mkv", range(128), codec="mpeg4")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    code, _, stderr = predict(path, window)
    note = rf"note: {path} is cut off: its header promises [12]\.\d s more\n"
    assert code == 0 and re.fullmatch(note, stderr)


def test_a_film_of_several_videos_is_refused_before_the_work(predict, place, tmp_path):
    film = tmp_path / "out.mp4"
    code, stdout, stderr = predict(place / "videos", f"--visualize={film}")
    assert (code, stdout) == (1, "")
    assert stderr == f"error: --visualize={film}: an .mp4 shows one video; give a .png\n"


def test_a_film_in_place_of_its_video_is_refused_before_the_work(predict, place):
    video = place / "videos/a.mp4"
    before = video.read_bytes()
    code, stdout, stderr = predict(video, f"--visualize={video}")
    assert (code, stdout, video.read_bytes()) == (1, "", before)
    reason = "the copy would replace its video; give another name"
    assert stderr == f"error: --visualize={video}: {reason}\n"


def test_standard_input(program, place):
    with open(place / "stream.ts", "rb") as file:
        code, stdout, stderr = program("-", "--window=1", "--json", stdin=file)
    assert code == 0, stderr
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert [(line["start"], line["frames"]["looked_at"]) for line in lines] == [
        (0, 3), (pytest.approx(1), 3), (pytest.approx(2), 2)
    ]  # fmt: skip


def test_no_password_is_printed(predict, place):
    code, stdout, stderr = predict("rtsp://user:secret@127.0.0.1:9/1", "--json")
    shown = "rtsp://user:***@127.0.0.1:9/1"
    error = f"{shown}: not a video stream (Connection refused)"
    assert (code, json.loads(stdout)) == (1, {"video": shown, "error": error})
    assert stderr == f"error: {error}\n"
    code, stdout, stderr = predict("rtsp:/user:secret@127.0.0.1:9/1", "--json")  # a file, then
    assert code == 1 and "secret" not in stdout + stderr


@pytest.mark.slow
def test_ctrl_c_while_standard_input_is_silent(place):
    command = [*PYTHON, "-m", "sofnet_jax.predict", "-", f"--checkpoint={place / 'run'}"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([*command, "--window=1"], cwd=ROOT, **pipes) as process:
        process.stdin.write((place / "stream.ts").read_bytes())
        process.stdin.flush()
        process.stdout.readline()  # it runs
        for _ in range(10):  # libav swallows one that comes while it is about to ask for more
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(6)
                break
        assert process.returncode == 130
        assert process.stderr.read().endswith(b"interrupted\n")


@pytest.mark.slow
def test_a_full_disk_and_names_that_would_move_the_cursor(predict, program, place, tmp_path):
    name = tmp_path / "a\x1b[31m\nb.mp4"
    name.write_bytes((place / "other.mp4").read_bytes())
    _, stdout, _ = predict(name)
    assert stdout.splitlines()[0] == f"{tmp_path}/a\\x1b[31m\\nb.mp4"
    with open("/dev/full", "wb") as full:
        code, _, stderr = program(name, stdout=full)
    assert code == 1
    assert stderr == "error: cannot write to standard output: No space left on device\n"


@pytest.mark.slow
def test_a_reader_that_has_seen_enough(place):
    command = f"{sys.executable} -m sofnet_jax.predict {'videos/a.mp4 ' * 20} --checkpoint=run"
    pipe = f"PYTHONPATH={ROOT} {command} | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", pipe], cwd=place, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "videos/a.mp4\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("stdout", [">&-", "| true"])
def test_picture_is_drawn_though_nobody_reads_the_predictions(stdout, place, tmp_path):
    picture = tmp_path / "out.png"
    command = f"{sys.executable} -m sofnet_jax.predict videos/a.mp4 --checkpoint=run"
    script = f"PYTHONPATH={ROOT} {command} --visualize={picture} {stdout}"
    done = subprocess.run(["bash", "-o", "pipefail", "-c", script], cwd=place, capture_output=True)
    assert done.returncode == 0, done.stderr
    with Image.open(picture) as image:
        image.load()


_MISTAKES = {
    "nothing": ([], "say what to recognise"),
    "no checkpoint": (["a.mp4", "--checkpoint="], "--checkpoint is missing"),
    "no such checkpoint": (["a.mp4", "--checkpoint=none/x.pth"], "none/x.pth"),
    "text for a picture": (["a.mp4", "--visualize=out.txt"], "give the name of a .png or an .mp4"),
    "a picture of a stream": (["-", "--visualize=out.png"], "--visualize is for files"),
    "a picture in a file": (["a.mp4", f"--visualize={__file__}/out.png"], "cannot write to /"),
    "an engine without bfloat16": (
        ["a.mp4", "--engine=onnxruntime", "--dtype=bfloat16"],
        "on this machine, not in bfloat16",
    ),
    "no window": (["a.mp4", "--every=1"], "--every needs --window"),
    "negative window": (["a.mp4", "--window=-1"], "window"),
    "window of no length": (["a.mp4", "--window=1e-12"], "--window=1e-12: give 0.01 to 86400"),
    "endless window": (["-", "--window=nan"], "--window=nan: give 0.01 to 86400"),
    "step without end": (["a.mp4", "--window=1", "--every=inf"], "--every=inf: give 0.01 to"),
}


@pytest.mark.parametrize("name", _MISTAKES)
def test_mistakes_are_one_line(name, predict):
    arguments, expected = _MISTAKES[name]
    code, stdout, stderr = predict(*arguments)
    assert (code, stdout) == (1, "")
    assert stderr.startswith("error: ") and stderr.count("\n") == 1 and expected in stderr
