"""How fast chosen frames of a video are decoded, beside other programs."""

import contextlib
import functools
import importlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
from jaxtyping import Int, UInt8

from sofnet_jax.benchmark.stopwatch import interleave
from sofnet_jax.benchmark.videos import DEFAULT_KEYFRAMES, RATE, write_video
from sofnet_jax.data.video.decode import read_frames
from sofnet_jax.data.views import segment_indices
from sofnet_jax.host.errors import first_line
from sofnet_jax.host.workers import count_cores

SECONDS = 120
WIDTH, HEIGHT = 1280, 720
CHOSEN = 16  # frames
KEYFRAMES = {
    2 * RATE: "a keyframe every 2 seconds",
    DEFAULT_KEYFRAMES: "keyframes as x264 sets them",
}
OURS = "sofnet_jax"

# (path, frames, threads) -> images
Read = Callable[[str, list[int], int], UInt8[np.ndarray, "t h w 3"]]


def benchmark_decoding(repeats: int) -> list[str]:
    """Measure reading 16 evenly spaced frames of generated videos, on one core and on all.

    A frame is wrong if, in a full decode, its predecessor or successor resembles it more. Returns
    lines.
    """
    programs, lines = _find_programs()
    with tempfile.TemporaryDirectory() as folder:
        for interval, description in KEYFRAMES.items():
            path = Path(folder) / f"{interval}.mp4"
            write_video(path, frames=SECONDS * RATE, width=WIDTH, height=HEIGHT, keyframes=interval)
            megabits = path.stat().st_size * 8e-6 / SECONDS
            lines.append(
                f"{CHOSEN} frames of {SECONDS} s, {WIDTH}×{HEIGHT}, H.264, {RATE} frames/s, "
                f"{megabits:.1f} Mbit/s, {description}, median of {repeats}:"
            )
            for threads in sorted({1, count_cores()}):
                lines += _measure(str(path), programs, threads, repeats)
    return lines


def _measure(path: str, programs: dict[str, Read], threads: int, repeats: int) -> list[str]:
    chosen = segment_indices(SECONDS * RATE, CHOSEN, None).tolist()
    neighbours = _decode_neighbours(path, chosen)
    runs: dict[str, Callable[[], Any]] = {
        name: functools.partial(read, path, chosen, threads) for name, read in programs.items()
    }
    wrong = {name: _count_wrong(run(), neighbours) for name, run in runs.items()}
    runs["the whole file, by PyAV"] = functools.partial(_decode_everything, path, threads)
    seconds = interleave(runs, repeats)
    lines = [f"  {threads} thread{'s' * (threads > 1)}, and the time as a multiple of ours"]
    for name, s in seconds.items():
        remark = f"  {wrong[name]} WRONG FRAMES" if wrong.get(name) else ""
        lines.append(f"    {name:<44} {1000 * s:7.0f} ms {s / seconds[OURS]:6.2f}{remark}")
    return lines


def _find_programs() -> tuple[dict[str, Read], list[str]]:
    """Ways to read frames with each installed program, and a line for each missing program."""
    programs: dict[str, Read] = {OURS: _read_by_us}
    lines = []
    for name, (module, ways) in _MODULES.items():
        try:
            found = importlib.import_module(module)
        except (ImportError, OSError, RuntimeError) as error:
            lines.append(f"{name} was not measured: {first_line(error)}")
            continue
        version = sys.modules[module.partition(".")[0]].__version__
        for way, read in ways.items():
            programs[f"{name} {version}{way}"] = functools.partial(read, found)
    ffmpeg = _create_ffmpeg_ways()
    if not ffmpeg:
        lines.append("ffmpeg was not measured: no such program, nor imageio-ffmpeg")
    return programs | ffmpeg, lines


def _read_by_us(path: str, chosen: list[int], threads: int) -> UInt8[np.ndarray, "t h w 3"]:
    return read_frames(path, lambda _: np.array(chosen), num_threads=threads)[0]


def _read_by_decord(decord, path, chosen, threads):
    return decord.VideoReader(path, num_threads=threads).get_batch(chosen).asnumpy()


def _read_by_torchcodec(decoders, path, chosen, threads, *, mode):
    decoder = decoders.VideoDecoder(
        path, seek_mode=mode, num_ffmpeg_threads=threads, dimension_order="NHWC"
    )
    return decoder.get_frames_at(chosen).data.numpy()


def _read_by_opencv(cv2, path, chosen, threads):
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])
    images = []
    for n in chosen:
        capture.set(cv2.CAP_PROP_POS_FRAMES, n)
        images.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
    return np.stack(images)


# Program -> its module, and the ways to use it.
_MODULES: dict[str, tuple[str, dict[str, Callable]]] = {
    "decord": ("decord", {"": _read_by_decord}),
    "torchcodec": (
        "torchcodec.decoders",
        {
            f", {mode}": functools.partial(_read_by_torchcodec, mode=mode)
            for mode in ("exact", "approximate")
        },
    ),
    "OpenCV": ("cv2", {", seeking": _read_by_opencv}),
}


def _create_ffmpeg_ways() -> dict[str, Read]:
    found = {"system": shutil.which("ffmpeg")}
    with contextlib.suppress(ImportError, RuntimeError):
        found["imageio"] = importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    return {
        f"ffmpeg, {way.__name__[1:].replace('_', ' ')} ({origin}'s)": functools.partial(
            way, program
        )
        for origin, program in found.items()
        if program
        for way in (_process_a_frame, _input_a_frame)
    }


def _run_ffmpeg(program: str, *arguments: str) -> UInt8[np.ndarray, "t h w 3"]:
    command = [program, "-nostdin", "-v", "fatal", *arguments]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    pixels = subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout
    return np.frombuffer(pixels, np.uint8).reshape(-1, HEIGHT, WIDTH, 3)


def _seek(n: int) -> tuple[str, str]:
    return "-ss", f"{(n - 0.5) / RATE:.6f}"


def _process_a_frame(program, path, chosen, threads):
    def read(n):
        return _run_ffmpeg(program, "-threads", "1", *_seek(n), "-i", path, "-frames:v", "1")

    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(read, chosen)))


def _input_a_frame(program, path, chosen, threads):
    arguments: list[str] = []
    for n in chosen:
        arguments += ["-threads", str(threads), *_seek(n), "-t", f"{0.9 / RATE:.6f}", "-i", path]
    first = "".join(f"[{i}:v]trim=end_frame=1[v{i}];" for i in range(len(chosen)))
    joined = "".join(f"[v{i}]" for i in range(len(chosen))) + f"concat=n={len(chosen)}"
    arguments += ["-filter_complex", first + joined, "-fps_mode", "passthrough"]
    return _run_ffmpeg(program, *arguments)


def _decode_everything(path: str, threads: int) -> int:
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = threads
        stream.thread_type = "FRAME" if threads > 1 else "SLICE"
        return sum(1 for _ in container.decode(stream))


def _decode_neighbours(path: str, chosen: list[int]) -> Int[np.ndarray, "n 3 h w 3"]:
    """Each chosen frame between its predecessor and successor, at a quarter of the size."""
    wanted = {n + d for n in chosen for d in (-1, 0, 1)}
    with av.open(path) as container:
        images = {
            n: frame.to_ndarray(format="rgb24")[::4, ::4].astype(np.int16)
            for n, frame in enumerate(container.decode(video=0))
            if n in wanted
        }
    return np.array([[images[n + d] for d in (-1, 0, 1)] for n in chosen])


def _count_wrong(
    images: UInt8[np.ndarray, "t h w 3"], neighbours: Int[np.ndarray, "n 3 h2 w2 3"]
) -> int:
    small = images[:, None, ::4, ::4].astype(np.int16)
    if len(small) != len(neighbours):
        return len(neighbours)
    distance = np.abs(small - neighbours).mean((2, 3, 4))
    return int((distance.argmin(1) != 1).sum())
