"""A check that time and memory stay constant over an hour of a stream."""

import contextlib
import itertools
import socket
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path

import av

from sofnet_jax.benchmark.stopwatch import describe_tenths
from sofnet_jax.benchmark.videos import RATE, write_video
from sofnet_jax.benchmark.workload import Workload
from sofnet_jax.data.video.live import connect
from sofnet_jax.data.views import Sampler
from sofnet_jax.host.memory import read_memory
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.prediction import Meter, Prediction
from sofnet_jax.systems.early_exit import NEVER

WINDOW = 10.0  # seconds
MINUTE = 60  # seconds of the video that is sent repeatedly
TENTHS = 10
QUANTITIES = ("network, ms a frame", "decoding, ms a window", "times real time", "MiB")


def benchmark_stream(work: Workload, minutes: int) -> list[str]:
    """Measure a stream over TCP, predicted as fast as possible; return lines."""
    classes = tuple(map(str, range(work.network.architecture.num_classes)))
    sampler = Sampler(len(work.videos[0]), work.size, short_side=256)
    model = TrainedModel(work.network, classes, sampler, NEVER)
    kept = looked = 0
    rows: dict[str, list[float]] = {name: [] for name in QUANTITIES}
    with tempfile.TemporaryDirectory() as folder:
        video = write_video(Path(folder) / "minute.ts", frames=MINUTE * RATE, width=340, height=256)
        windows = _watch(model, video, minutes)
        next(windows)  # compiles
        each = (minutes * MINUTE // int(WINDOW) - 2) // TENTHS
        for _ in range(TENTHS):
            start = time.perf_counter()
            part = list(itertools.islice(windows, each))
            frames = sum(len(window.trace) for window in part)
            speed = each * WINDOW / (time.perf_counter() - start)
            network = sum(window.network_ms or 0.0 for window in part) / frames
            decoding = sum(window.decode_ms or 0.0 for window in part) / each
            tenth = network, decoding, speed, read_memory() / 2**20
            for values, value in zip(rows.values(), tenth, strict=True):
                values.append(value)
            kept, looked = kept + sum(window.kept for window in part), looked + frames
        windows.close()
    times, *_, memory = rows.values()
    return [
        f"{minutes} minutes of 340×256 at {RATE} frames/s over TCP, windows of {WINDOW:g} s with "
        f"{model.num_frames} frames each, {100 * kept / looked:.0f} % of them used, by tenths:",
        *describe_tenths(rows, 1),
        f"  the last tenth takes {times[-1] / times[0]:.2f} × the first's time a frame "
        f"and {memory[-1] / memory[0]:.3f} × its memory",
    ]


def _watch(model: TrainedModel, video: Path, minutes: int) -> Generator[Prediction, None, None]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sender = threading.Thread(target=_send, args=(server, video, minutes))
        sender.start()
        meter = Meter()
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        connections = connect(address, short_side=256, say=print, decoding=meter.decoding)
        with contextlib.closing(connections):
            yield from model.watch(next(connections), seconds=WINDOW, meter=meter)
        sender.join()


def _send(server: socket.socket, video: Path, minutes: int) -> None:
    """Send a video repeatedly, as one that continues, to the first client."""
    playlist = video.with_suffix(".txt")
    playlist.write_text(f"file '{video}'\n" * minutes)
    connection, _ = server.accept()
    with (
        connection,
        connection.makefile("wb") as file,
        contextlib.suppress(OSError, av.FFmpegError),  # the client is gone
        av.open(str(playlist), format="concat", options={"safe": "0"}) as source,
        av.open(file, "w", format="mpegts") as out,
    ):
        template = source.streams.video[0]
        stream = out.add_stream_from_template(template)
        for packet in source.demux(template):
            if packet.dts is not None and packet.pts is not None:
                packet.stream = stream
                out.mux(packet)
