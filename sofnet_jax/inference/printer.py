"""Predicts named videos and streams one after another, and prints and draws the predictions."""

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax

from sofnet_jax.data.video.decode import VideoError
from sofnet_jax.data.video.live import connect, find_videos, is_live
from sofnet_jax.data.video.rewrite import require_other_file
from sofnet_jax.host.address import mask_passwords
from sofnet_jax.host.command_line import make_printable
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import format_json, require_place
from sofnet_jax.host.workers import Failure, count_cores
from sofnet_jax.inference.drawing import STRIPS, draw_film, draw_picture
from sofnet_jax.inference.many import predict_videos
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.prediction import Meter, Prediction

LIVE_WINDOW = 10.0  # seconds
# Numbers of videos up to which one at a time is faster, since lockstep takes longer to load.
MANY, MANY_CPU = 32, 256
LONG = 600.0  # seconds above which a single prediction hardly describes a video

Source = tuple[str, UserError | None]  # a video, or a name that stands for none and why


@dataclass
class Printer:
    """Prints predictions to standard output; notes and errors go to standard error.

    Attributes:
        window: seconds of a window; 0 is all of a file, and `LIVE_WINDOW` of a stream.
        every: seconds from one window to the next; 0 is the length of a window.
        time_limit: seconds that a file may take.
        as_json: print one JSON line per prediction.
        picture: where to draw the decisions, if anywhere.
        failed: whether a video could not be predicted.
    """

    model: TrainedModel
    top_k: int
    early: bool
    window: float
    every: float
    time_limit: float
    as_json: bool
    picture: Path | None
    failed: bool = False
    _drawn: list[Prediction] = field(default_factory=list)

    def print(self, sources: Sequence[Source]) -> None:
        """Predict all videos. Raises UserError for the picture alone."""
        for note in (*self.model.notes, *self._note_step()):
            _say(f"note: {note}")
        if are_many(sources, self.window):
            self._print_many(sources)
        else:
            for name, error in sources:
                if error:
                    self._fail(name, error)
                else:
                    self._print(name, self._predict(name))
        sys.stdout.flush()
        if self.picture and self._drawn:
            self._draw(self.picture)

    def _note_step(self) -> Iterator[str]:
        """A note if windows cannot follow each other exactly as requested."""
        step = self.model.round_step(self.every, self.window or LIVE_WINDOW)
        if self.every and abs(step - self.every) > 1e-3 * self.every:
            yield f"--every={self.every} is rounded to {step:.4g} s so that windows share frames"

    def _print_many(self, sources: Sequence[Source]) -> None:
        """Print in the order of the sources, each as soon as those before it are done."""
        places = [place for place, (_, error) in enumerate(sources) if not error]
        done: dict[int, Prediction | Failure | UserError] = {
            place: error for place, (_, error) in enumerate(sources) if error
        }
        outcomes = predict_videos(
            self.model,
            [(sources[place][0], None, None) for place in places],
            top_k=self.top_k,
            early=self.early,
            num_threads=count_cores(),
            time_limit=self.time_limit,
        )
        with contextlib.closing(outcomes):
            for place, (name, _) in enumerate(sources):
                while place not in done:
                    number, outcome = next(outcomes)
                    done[places[number]] = outcome
                self._print(name, _give(done.pop(place)))

    def _print(self, video: str, predictions: Iterator[Prediction]) -> None:
        shown, missing = False, 0.0
        try:
            for prediction in predictions:
                missing = prediction.missing
                if self.as_json:
                    lines = [format_json(prediction.to_json())]
                elif prediction.is_window:
                    lines = [] if shown else [make_printable(mask_passwords(video))]
                    lines.append(f"  {prediction.describe_line()}")
                else:
                    lines = prediction.describe()
                print("\n".join(lines), flush=True)
                shown = True
                if self.picture:
                    self._drawn.append(prediction)
                seconds = (prediction.end or 0.0) - (prediction.start or 0.0)
                if seconds > LONG and not prediction.is_window:
                    minutes = f"{seconds / 60:.0f} minutes"
                    _say(f"note: {video} lasts {minutes}; --window=10 makes a timeline")
            if not shown:
                raise VideoError(f"{video}: it ended before its first frame")
            if missing:
                _say(f"note: {video} is cut off: its header promises {missing:.1f} s more")
        except (VideoError, UserError) as error:
            self._fail(video, error)

    def _predict(self, video: str) -> Iterator[Prediction]:
        options: dict[str, Any] = {"top_k": self.top_k, "early": self.early}
        limited = {**options, "time_limit": self.time_limit}
        windows: dict[str, Any] = {"seconds": self.window or LIVE_WINDOW, "every": self.every}
        if is_live(video):
            self.model.require_online(video)
            meter, short_side = Meter(), self.model.sampler.short_side
            streams = connect(video, short_side=short_side, say=_say, decoding=meter.decoding)
            for frames in streams:
                yield from self.model.watch(frames, name=video, meter=meter, **options, **windows)
        elif self.window:
            yield from self.model.segment(video, **limited, **windows)
        else:
            yield self.model.predict(video, **limited)

    def _fail(self, video: str, error: Exception) -> None:
        self.failed = True
        if self.as_json:
            print(format_json({"video": mask_passwords(video), "error": str(error)}), flush=True)
        _say(f"error: {error}")

    def _draw(self, path: Path) -> None:
        try:
            if path.suffix == ".mp4":
                draw_film(path, self._drawn)
            else:
                draw_picture(path, self._drawn, self.model, time_limit=self.time_limit)
        except VideoError as error:
            raise UserError(str(error)) from error
        except OSError as error:
            raise UserError(f"cannot write to {path}: {error.strerror or error}") from error
        if len(self._drawn) > STRIPS and path.suffix == ".png":
            _say(f"note: {path} shows the first {STRIPS} of {len(self._drawn)} predictions")


def find_sources(names: Sequence[str]) -> list[Source]:
    """All videos that the names stand for."""
    sources: list[Source] = []
    for name in names:
        try:
            sources += [(video, None) for video in find_videos(name)]
        except UserError as error:
            sources.append((name, error))
    return sources


def are_many(sources: Sequence[Source], window: float) -> bool:
    """True if there are enough files for lockstep to be the faster way."""
    least = MANY_CPU if jax.default_backend() == "cpu" else MANY
    return len(sources) > least and not window and not any(is_live(name) for name, _ in sources)


def _give(outcome: Prediction | Failure | UserError) -> Iterator[Prediction]:
    if isinstance(outcome, UserError):
        raise outcome
    if isinstance(outcome, Failure):
        raise VideoError(outcome.detail)
    yield outcome


def require_picture(path: Path, names: Sequence[str]) -> None:
    """Raise UserError if decisions on these videos could not be drawn to this file."""
    if path.suffix not in (".png", ".mp4"):
        raise UserError(f"--visualize={path}: give the name of a .png or an .mp4")
    if any(map(is_live, names)):
        raise UserError("--visualize is for files; a stream is gone after its prediction")
    if path.suffix == ".mp4":
        video, *others = find_videos(names[0])
        if others or len(names) > 1:
            raise UserError(f"--visualize={path}: an .mp4 shows one video; give a .png")
        try:
            require_other_file(video, path)
        except VideoError as error:
            raise UserError(f"--visualize={error}") from error
    try:
        require_place(path)
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror or error}") from error


def _say(text: str) -> None:
    print(make_printable(mask_passwords(text)), file=sys.stderr, flush=True)
