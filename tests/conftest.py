"""Set-up for all tests: several CPU devices, and videos whose frames tell their number."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

# LLVM's optimisation takes longer than it gains in programs that run a few times. The processes
# that tests start inherit this.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
# One cache of compiled programs for all tests and their processes, kept between runs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parents[1] / ".cache/xla"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.05")

import signal

import av
import jax
import pytest
from absl import flags
from numbered_frame import draw_number

jax.config.update("jax_num_cpu_devices", 4)
flags.FLAGS.mark_as_parsed()  # grain's workers read flags


def _write_video(
    path: Path,
    numbers: Iterable[int] = range(64),
    *,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (96, 96),
    rate: int = 25,
    ticks: Sequence[int] | None = None,
    rotation: int | None = None,
    codec_options: dict[str, str] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = pix_fmt
        stream.options = codec_options or {}
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for i, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(draw_number(number, *size), format="rgb24")
            if ticks is not None:
                frame.pts = ticks[i]  # in frame intervals
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def write_video() -> Callable[..., Path]:
    """Writes a video of numbered frames: see `_write_video` for its options."""
    return _write_video


@pytest.fixture
def no_fonts(monkeypatch) -> Iterator[None]:
    """A machine without fontconfig, so without fonts but Pillow's own."""
    from sofnet_jax.host import fonts

    for cached in (fonts.choose_font, fonts._note_missing):
        cached.cache_clear()
    monkeypatch.setenv("PATH", "")
    yield
    for cached in (fonts.choose_font, fonts._note_missing):
        cached.cache_clear()


@pytest.fixture
def close_folder(monkeypatch) -> Callable[[Path], None]:
    """Takes all permissions of a folder away, also from root, who is refused nothing."""

    def close(folder: Path) -> None:
        def refuse(call, is_closed):
            def wrapped(path=".", *args, **kwargs):
                if not isinstance(path, int) and is_closed(Path(os.fsdecode(path))):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
                return call(path, *args, **kwargs)

            return wrapped

        for name in ("listdir", "scandir"):
            call = refuse(getattr(os, name), lambda path: path == folder or folder in path.parents)
            monkeypatch.setattr(os, name, call)
        monkeypatch.setattr(os, "stat", refuse(os.stat, lambda path: folder in path.parents))

    return close


@pytest.fixture(autouse=True, scope="module")
def _free_programs():
    """Drops compiled programs between files.

    Each takes tens of memory mappings. Linux allows a process 65,530, after which XLA crashes.
    """
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > 15_000:
        jax.clear_caches()


@pytest.fixture
def decoded(monkeypatch):
    """The packets that go to a decoder of a file."""
    from sofnet_jax.data.video import container

    packets = []
    decode = container.Video._decode_packet

    def count(self, packet):
        packets.extend([] if packet is None else [packet])
        return decode(self, packet)

    monkeypatch.setattr(container.Video, "_decode_packet", count)
    return packets


@pytest.fixture
def set_handler():
    """Sets what Ctrl-C does; in a background job it is ignored."""
    before = signal.getsignal(signal.SIGINT)
    yield lambda handler: signal.signal(signal.SIGINT, handler)
    signal.signal(signal.SIGINT, before)
