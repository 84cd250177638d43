"""Recognises actions in videos and streams, and computes no more than the gates let through.

python -m sofnet_jax.predict VIDEO… --checkpoint=RUN [--json] [--visualize=out.png]
python -m sofnet_jax.predict rtsp://camera/1 --checkpoint=RUN --window=10
python -m sofnet_jax.predict --manifest=all.csv --output=FOLDER --checkpoint=RUN

VIDEO is a file, a folder, a pattern such as 'videos/*.mp4', a camera (/dev/video0), an address
(rtsp:// http:// and what else FFmpeg knows), or - for standard input. RUN is the folder of a run, a
file of weights, or hub:owner/name. A camera, an address and standard input are recognised window by
window as they come, and so are files if --window is given. Milliseconds are without compilation,
which is kept in ~/.cache/sofnet_jax.

With --manifest, a CSV of paths (or with a header of path,start,end), an archive of any size is
recognised in lockstep on Apache Beam: with --beam="--direct_num_workers=2" by two processes, or on
many machines (docs/archives.md). The same command goes on with what is not done. FOLDER gets
results-…, a JSON line for each video, and dead_letters.csv, those that could not be recognised.

The exit code is 1 if a video could not be recognised; the others are all the same.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from absl import flags

from sofnet_jax.archive import flags as archive_command
from sofnet_jax.data.video.decode import VideoError
from sofnet_jax.data.video.live import connect, find_videos, is_live
from sofnet_jax.host import command_line
from sofnet_jax.host.command_line import make_printable
from sofnet_jax.host.compilation import keep_compiled_programs
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import format_json, require_place
from sofnet_jax.inference.drawing import STRIPS, draw_film, draw_picture
from sofnet_jax.inference.load import LARGEST_SIZE, MOST_FRAMES, load
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.prediction import Meter, Prediction
from sofnet_jax.run.checkpoint import Which
from sofnet_jax.run.config import DTYPES

CHECKPOINT = flags.DEFINE_string("checkpoint", "", "The trained network: RUN.")
WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "Of a run: which checkpoint.")
TOP_K = flags.DEFINE_integer("top_k", 5, "Classes to name.", 1)
JSON = flags.DEFINE_bool("json", False, "A line of JSON for each prediction.")
VISUALIZE = flags.DEFINE_string("visualize", "", "What the gates did: a .png, or one video's .mp4.")
WINDOW = flags.DEFINE_float("window", 0.0, "Seconds; 0: all of a file, 10 s of a stream.", 0.0)
EVERY = flags.DEFINE_float("every", 0.0, "Seconds from window to window; 0: a window's.", 0.0)
EARLY = flags.DEFINE_bool("early", True, "Whether a video may end early, once it is sure.")
DTYPE = flags.DEFINE_enum("dtype", None, list(DTYPES), "Of the stages, if not the device's best.")
SIZE = flags.DEFINE_integer("size", None, "Side of the frames, if not the run's.", 1, LARGEST_SIZE)
NUM_FRAMES = flags.DEFINE_integer(
    "num_frames", None, "To look at, if not the run's.", 1, MOST_FRAMES
)
VARIANT = flags.DEFINE_string("variant", "", "Of weights that are no run: release, for one.")
flags.adopt_module_key_flags(archive_command)
LIVE_WINDOW = 10.0  # seconds
SHORTEST, LONGEST = 0.01, 86_400.0  # seconds of a window
LONG = 600.0  # seconds, from which on one action is hardly all of a video


def main(argv: list[str]) -> None:
    """Prints what is recognised in each video, and goes on after those that cannot be read."""
    if archive_command.is_wanted():
        _recognize_archive(argv)
        return
    if not argv[1:]:
        raise UserError("say what to recognise: python -m sofnet_jax.predict VIDEO… --checkpoint=…")
    if not CHECKPOINT.value:
        raise UserError("--checkpoint is missing")
    if EVERY.value and not WINDOW.value and not any(map(is_live, argv[1:])):
        raise UserError("--every needs --window, the length of a window in seconds")
    _check_seconds()
    _check_visualize(argv[1:])
    keep_compiled_programs(least_seconds=0.0)  # of many small parts
    model = load(
        CHECKPOINT.value,
        cast(Which, WHICH.value),
        dtype=DTYPE.value,
        size=SIZE.value,
        num_frames=NUM_FRAMES.value,
        variant=VARIANT.value,
    )
    for note in (*model.notes, *_note_step(model)):
        _say(f"note: {note}")
    outcome = _Outcome()
    try:
        for name in argv[1:]:
            _recognize(name, model, outcome)
        sys.stdout.flush()
        if outcome.predictions:
            _visualize(outcome.predictions, model)
    except BrokenPipeError:  # whoever read it has seen enough
        _discard_output()
    except OSError as error:
        _discard_output()
        raise UserError(f"cannot write to standard output: {error.strerror or error}") from error
    if outcome.failed:
        sys.exit(1)


def _recognize_archive(argv: list[str]) -> None:
    """Recognises the videos of a manifest, into files."""
    command_line.refuse_arguments(argv)
    for flag in (WINDOW, EVERY, VISUALIZE, JSON):
        if flag.present:
            raise UserError(f"--{flag.name} is not for a manifest, whose results are files")
    dead = archive_command.process(
        checkpoint=CHECKPOINT.value,
        which=cast(Which, WHICH.value),
        dtype=DTYPE.value,
        size=SIZE.value,
        num_frames=NUM_FRAMES.value,
        variant=VARIANT.value,
        top_k=TOP_K.value,
        early=EARLY.value,
    )
    if dead:
        sys.exit(1)


@dataclass
class _Outcome:
    """What there is to draw, and whether a video could not be recognised."""

    predictions: list[Prediction] = field(default_factory=list)
    failed: bool = False


def _discard_output() -> None:
    """What is still to be written goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _recognize(name: str, model: TrainedModel, outcome: _Outcome) -> None:
    """Recognises all videos that a name stands for."""
    try:
        videos = find_videos(name)
    except UserError as error:
        outcome.failed = True
        _report(name, error)
        return
    for video in videos:
        _recognize_one(video, model, outcome)


def _recognize_one(video: str, model: TrainedModel, outcome: _Outcome) -> None:
    shown = False
    try:
        for prediction in _predict(video, model):
            if JSON.value:
                lines = [format_json(prediction.to_json())]
            elif prediction.is_window:
                lines = [] if shown else [make_printable(video)]
                lines.append(f"  {prediction.describe_line()}")
            else:
                lines = prediction.describe()
            print("\n".join(lines), flush=True)
            shown = True
            if VISUALIZE.value:
                outcome.predictions.append(prediction)
        if not shown:
            raise VideoError(f"{video}: it ended before there was a frame to look at")
    except (VideoError, UserError) as error:
        outcome.failed = True
        _report(video, error)


def _predict(video: str, model: TrainedModel) -> Iterator[Prediction]:
    options: dict[str, Any] = {"top_k": TOP_K.value, "early": EARLY.value}
    windows: dict[str, Any] = {"seconds": WINDOW.value or LIVE_WINDOW, "every": EVERY.value}
    if is_live(video):
        meter = Meter()
        streams = connect(video, short_side=model.short_side, say=_say, decoding=meter.decoding)
        for frames in streams:
            yield from model.watch(frames, name=video, meter=meter, **options, **windows)
    elif WINDOW.value:
        yield from model.segment(video, **options, **windows)
    else:
        prediction = model.predict(video, **options)
        yield prediction
        seconds = (prediction.end or 0.0) - (prediction.start or 0.0)
        if seconds > LONG:
            _say(f"note: {video} lasts {seconds / 60:.0f} minutes; --window=10 makes a timeline")


def _check_seconds() -> None:
    for flag in (WINDOW, EVERY):
        if flag.value and not SHORTEST <= flag.value <= LONGEST:
            raise UserError(
                f"--{flag.name}={flag.value}: give {SHORTEST} to {LONGEST:.0f} seconds, or 0"
            )


def _note_step(model: TrainedModel) -> Iterator[str]:
    """What --every becomes, if that is something else."""
    step = model.round_step(EVERY.value, WINDOW.value or LIVE_WINDOW)
    if EVERY.value and abs(step - EVERY.value) > 1e-3 * EVERY.value:
        yield f"--every={EVERY.value} is rounded to {step:.4g} s, for windows to share their frames"


def _check_visualize(names: Sequence[str]) -> None:
    """Refuses what would fail only after everything is done."""
    suffix = Path(VISUALIZE.value).suffix
    if VISUALIZE.value and suffix not in (".png", ".mp4"):
        raise UserError(f"--visualize={VISUALIZE.value}: give the name of a .png or an .mp4")
    if VISUALIZE.value and any(map(is_live, names)):
        raise UserError("--visualize is for files; a stream is gone when it has been recognised")
    if suffix == ".mp4" and (len(names) > 1 or len(find_videos(names[0])) > 1):
        raise UserError(f"--visualize={VISUALIZE.value}: an .mp4 is of one video; give a .png")
    if VISUALIZE.value:
        try:
            require_place(Path(VISUALIZE.value).expanduser())
        except OSError as error:
            raise UserError(
                f"cannot write to {VISUALIZE.value}: {error.strerror or error}"
            ) from error


def _visualize(predictions: Sequence[Prediction], model: TrainedModel) -> None:
    path = Path(VISUALIZE.value).expanduser()
    try:
        if path.suffix == ".mp4":
            draw_film(path, predictions)
        else:
            draw_picture(path, predictions, model)
    except VideoError as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror or error}") from error
    if len(predictions) > STRIPS and path.suffix == ".png":
        _say(f"note: {path} shows the first {STRIPS} of {len(predictions)} predictions")


def _report(video: str, error: Exception) -> None:
    if JSON.value:
        print(format_json({"video": video, "error": str(error)}), flush=True)
    _say(f"error: {error}")


def _say(text: str) -> None:
    print(make_printable(text), file=sys.stderr, flush=True)


if __name__ == "__main__":
    command_line.run(main)
