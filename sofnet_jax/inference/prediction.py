"""The prediction for a video and its cost, as text and as JSON."""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from sofnet_jax.host.address import mask_passwords
from sofnet_jax.host.command_line import make_printable
from sofnet_jax.systems.base import Action, Spending, Trace


class Guess(NamedTuple):
    """A class and its probability."""

    name: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The prediction for a video or a part of it.

    Attributes:
        video: its name; empty for an array of frames.
        start, end: seconds of the part; None for frames without times.
        guesses: the most probable classes, best first.
        scores: probabilities of all classes.
        actions: what can be done with a frame.
        trace: what was done with each frame looked at, in order.
        times: seconds of these frames; empty if unknown.
        num_frames: frames to look at, had the video not ended early.
        spent, plain: GFLOPs spent, and those of the plain backbone on all `num_frames`.
        decode_ms, network_ms: milliseconds without compilation; the network's are None if its
            batches held frames of several videos.
        missing: seconds that a file's header promises after its last frame.
        is_window: whether the part is one window of a file or a stream.
    """

    video: str
    start: float | None
    end: float | None
    guesses: tuple[Guess, ...]
    scores: Float[np.ndarray, "n"]
    actions: tuple[Action, ...]
    trace: Trace
    times: tuple[float, ...]
    num_frames: int
    spent: Spending
    plain: Spending
    decode_ms: float
    network_ms: float | None
    missing: float = 0.0
    is_window: bool = False

    @property
    def kept(self) -> int:
        """Number of frames that the answer depends on."""
        return sum(self.actions[i].uses for i in self.trace.action)

    @property
    def stops(self) -> dict[str, int]:
        """Number of frames stopped, by action: for SoF-Net after each stage."""
        counts = np.bincount(self.trace.action, minlength=len(self.actions)).tolist()
        return {a.name: n for a, n in zip(self.actions, counts, strict=True) if not a.uses}

    @property
    def unseen(self) -> int:
        """Number of frames never looked at after an early exit."""
        return self.num_frames - len(self.trace)

    def to_json(self) -> dict[str, Any]:
        """Everything except `scores`, as JSON."""
        return {
            "video": mask_passwords(self.video),
            "start": self.start,
            "end": self.end,
            "classes": [guess._asdict() for guess in self.guesses],
            "frames": {
                "chosen": self.num_frames,
                "looked_at": len(self.trace),
                "kept": self.kept,
                "times": list(self.times),
                "stop": [self.actions[i].name for i in self.trace.action],
            },
            "stops": self.stops,
            "gflops": {"spent": self.spent.paper, "plain": self.plain.paper},
            "gflops_full": {"spent": self.spent.full, "plain": self.plain.full},
            "ms": {"decode": self.decode_ms, "network": self.network_ms},
        }

    def describe(self) -> list[str]:
        """The prediction in several lines."""
        stops = [f"{count} at {name}" for name, count in self.stops.items() if count]
        frames = [f"{self.kept} of {self.num_frames} used"]
        frames += [f"stopped {', '.join(stops)}"] if stops else []
        frames += [f"{self.unseen} never looked at"] if self.unseen else []
        network = "" if self.network_ms is None else f", {self.network_ms:.1f} network"
        share = f"{100 * self.spent.paper / self.plain.paper:.0f} % of the plain backbone's"
        return [
            make_printable(mask_passwords(self.video)),
            *(
                f"  {100 * guess.probability:5.1f} %  {make_printable(guess.name)}"
                for guess in self.guesses
            ),
            f"  frames   {'; '.join(frames)}",
            f"  GFLOPs   {self.spent.paper:.4g}, {share} {self.plain.paper:.4g} "
            f"(all counted: {self.spent.full:.4g} of {self.plain.full:.4g})",
            f"  ms       {self.decode_ms:.1f} decode{network}",
        ]

    def describe_line(self) -> str:
        """The prediction as one line of a timeline."""
        start, end = (_format_time(t) for t in (self.start or 0.0, self.end or 0.0))
        best = ", ".join(
            f"{100 * guess.probability:.1f} % {make_printable(guess.name)}"
            for guess in self.guesses
        )
        return (
            f"{start} – {end}  {best}  ({self.kept} of {self.num_frames} frames, "
            f"{self.spent.paper:.3g} of {self.plain.paper:.3g} GFLOPs, "
            f"{self.decode_ms:.0f} + {self.network_ms:.0f} ms)"
        )


def _format_time(seconds: float) -> str:
    """Format seconds as 1:02:03.4."""
    tenths = round(seconds * 10)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{tenths / 10:04.1f}"


class Meter:
    """Two stopwatches, for decoding and for the network.

    Decoding may run within the network's time, and in threads of its own.
    """

    def __init__(self):
        self._decode: dict[int, float] = defaultdict(float)  # of each thread
        self._network = self._told = 0.0

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        """Count the time inside as decoding."""
        start = time.perf_counter()
        yield
        self._decode[threading.get_ident()] += time.perf_counter() - start

    @contextlib.contextmanager
    def computing(self) -> Iterator[None]:
        """Count the time inside as the network's, except for decoding in this thread."""
        thread = threading.get_ident()
        start, before = time.perf_counter(), self._decode[thread]
        yield
        self._network += time.perf_counter() - start - (self._decode[thread] - before)

    def read(self) -> tuple[float, float]:
        """Milliseconds of decoding and of the network since the last call."""
        decode = sum(list(self._decode.values()))
        read = 1000 * (decode - self._told), 1000 * self._network
        self._told, self._network = decode, 0.0
        return read
