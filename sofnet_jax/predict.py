"""Recognise actions in videos and streams, computing only what the gates let through.

usage: python -m sofnet_jax.predict VIDEO… --checkpoint=RUN [FLAGS]
       python -m sofnet_jax.predict --manifest=CSV --output=FOLDER --checkpoint=RUN [FLAGS]
example: python -m sofnet_jax.predict videos/val --checkpoint=runs/mine --visualize=out.png

VIDEO is a file, a folder, a pattern such as 'videos/*.mp4', a camera (/dev/video0), an address
(rtsp://, rtmps://, http:// and others), a named pipe, or - for standard input. RUN is the folder
of a run, a weight file, or hub:owner/name. Streams are predicted window by window as they arrive,
and so are files if --window is given. Times exclude compilation, which is cached in
~/.cache/sofnet_jax. If a video fails, the others are still processed and the exit code is 1.

--manifest is a CSV of paths, or of path,start,end with a header. Its videos are predicted in
lockstep on Apache Beam: with --beam="--direct_num_workers=2" in two processes, or on many machines
(docs/archives.md). FOLDER receives results-…, one JSON line per video, and dead_letters.csv, the
videos that failed. Rerun the same command to resume.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

from absl import flags

from sofnet_jax.host import command_line
from sofnet_jax.host.beam import require_beam
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.paths import expand
from sofnet_jax.host.streams import printing
from sofnet_jax.host.workers import count_cores
from sofnet_jax.run.fields import INFERENCE_PRECISIONS, LARGEST_SIZE, MOST_FRAMES

# Modules that import JAX are imported where the work starts, so that --help is quick.

CHECKPOINT = flags.DEFINE_string("checkpoint", "", "Run folder, weight file or hub:owner/name.")
WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "Checkpoint of a run.")
TOP_K = flags.DEFINE_integer("top_k", 5, "Number of classes to name.", 1)
JSON = flags.DEFINE_bool("json", False, "Print one JSON line per prediction.")
VISUALIZE = flags.DEFINE_string("visualize", "", "Draw the gates' decisions: a .png, or an .mp4.")
WINDOW = flags.DEFINE_float(
    "window", 0.0, "Seconds per window; 0: a whole file, 10 s of a stream.", 0.0
)
EVERY = flags.DEFINE_float("every", 0.0, "Seconds between windows; 0: the window's length.", 0.0)
EARLY = flags.DEFINE_bool("early", True, "Let a video end early once its prediction is sure.")
DTYPE = flags.DEFINE_enum(
    "dtype",
    None,
    INFERENCE_PRECISIONS,
    "Precision of the layers; default: the device's fastest in JAX. int8: see quantize.",
)
ENGINE = flags.DEFINE_enum(
    "engine",
    "jax",
    ["jax", "onnxruntime", "openvino", "auto"],
    "What runs the layers on a CPU; auto: the fastest that is installed.",
)
SIZE = flags.DEFINE_integer(
    "size", None, "Side of the frames in pixels; default: the run's.", 1, LARGEST_SIZE
)
NUM_FRAMES = flags.DEFINE_integer(
    "num_frames", None, "Frames per video; default: the run's.", 1, MOST_FRAMES
)
VARIANT = flags.DEFINE_string(
    "variant", "", "Configuration variant for a bare weight file, e.g. release."
)
MANIFEST = flags.DEFINE_string("manifest", "", "Archive: CSV of its videos.")
OUTPUT = flags.DEFINE_string("output", "", "Archive: folder for the results.")
FORMAT = flags.DEFINE_enum("format", "jsonl", ["jsonl", "parquet"], "Archive: file format.")
SHARD_SIZE = flags.DEFINE_integer("shard_size", 100, "Archive: videos per output file.", 1)
TIME_LIMIT = flags.DEFINE_float(
    "time_limit", 600.0, "Seconds for a file; in an archive, for some video to be finished.", 1.0
)
NUM_THREADS = flags.DEFINE_integer(
    "num_threads", None, "Archive: reading threads per worker; default: the number of cores.", 1
)
BEAM = flags.DEFINE_string("beam", "", "Archive: options of Apache Beam.")
SHORTEST, LONGEST = 0.01, 86_400.0  # seconds of a window


def main(argv: list[str]) -> None:
    """Predict the named videos, or those of an archive; exit with 1 if one failed."""
    if MANIFEST.value or OUTPUT.value:
        command_line.refuse_arguments(argv)
        failed = _predict_archive()
    else:
        failed = _predict_videos(argv[1:])
    if failed:
        sys.exit(1)


def _read_options() -> dict[str, Any]:
    """Which network to load, and what to show it."""
    options = (WHICH, DTYPE, SIZE, NUM_FRAMES, VARIANT, ENGINE)
    return {flag.name: flag.value for flag in options}


def _predict_videos(names: list[str]) -> bool:
    """Print the predictions of videos; return whether one failed."""
    if not names:
        raise UserError("say what to recognise: python -m sofnet_jax.predict VIDEO… --checkpoint=…")
    if not CHECKPOINT.value:
        raise UserError("--checkpoint is missing: a run's folder, a weight file or hub:owner/name")
    for flag in (WINDOW, EVERY):
        if flag.value and not SHORTEST <= flag.value <= LONGEST:
            limits = f"{SHORTEST} to {LONGEST:.0f} seconds, or 0"
            raise UserError(f"--{flag.name}={flag.value}: give {limits}")
    from sofnet_jax.data.video.live import is_live
    from sofnet_jax.host.compilation import keep_compiled_programs
    from sofnet_jax.host.memory import keep_freed_memory
    from sofnet_jax.inference.load import load
    from sofnet_jax.inference.printer import Printer, are_many, find_sources, require_picture

    if EVERY.value and not WINDOW.value and not any(map(is_live, names)):
        raise UserError("--every needs --window, the length of a window in seconds")
    picture = Path(expand(VISUALIZE.value)) if VISUALIZE.value else None
    if picture:
        require_picture(picture, names)
    sources = find_sources(names)
    many = are_many(sources, WINDOW.value)
    if many:
        keep_freed_memory()
    keep_compiled_programs(least_seconds=0.0)  # the network is many small programs
    printer = Printer(
        load(CHECKPOINT.value, **_read_options(), many=many),
        top_k=TOP_K.value,
        early=EARLY.value,
        window=WINDOW.value,
        every=EVERY.value,
        time_limit=TIME_LIMIT.value,
        as_json=JSON.value,
        picture=picture,
    )
    # Without a picture to draw, the work ends with the reader of what is printed.
    with contextlib.nullcontext() if picture else printing():
        printer.print(sources)
    return printer.failed


def _predict_archive() -> bool:
    """Predict the videos of a manifest, print a summary, and return whether one failed."""
    for flag in (WINDOW, EVERY, VISUALIZE, JSON):
        if flag.present:
            raise UserError(f"--{flag.name} does not apply to a manifest, whose results are files")
    for flag in (MANIFEST, OUTPUT, CHECKPOINT):
        if not flag.value:
            raise UserError(f"--{flag.name} is missing; see --help")
    require_beam()
    from sofnet_jax.archive.pipeline import process_archive
    from sofnet_jax.archive.recognition import Settings
    from sofnet_jax.weights.load import load_weights

    checkpoint, output = CHECKPOINT.value or "", expand(OUTPUT.value or "")
    if not checkpoint.startswith("hub:"):
        checkpoint = os.path.abspath(expand(checkpoint))
    options = _read_options()
    settings = Settings(
        checkpoint,
        digest=load_weights(checkpoint, options["which"]).digest,
        top_k=TOP_K.value,
        early=EARLY.value,
        num_threads=NUM_THREADS.value or count_cores(),
        time_limit=TIME_LIMIT.value,
        **options,
    )
    account = process_archive(
        expand(MANIFEST.value or ""),
        output,
        settings,
        form=FORMAT.value,
        shard_size=SHARD_SIZE.value,
        beam_options=BEAM.value or "",
    )
    print("\n".join(account.describe(OUTPUT.value or "")), flush=True)
    return account.tally.dead > 0


if __name__ == "__main__":
    command_line.run(main)
