"""Measure speed, as ratios of programs run beside each other in this process.

usage: python -m sofnet_jax.benchmark train --config=FILE
       python -m sofnet_jax.benchmark data
       python -m sofnet_jax.benchmark inference [VIDEO… --checkpoint=RUN] [FLAGS]
       python -m sofnet_jax.benchmark engines [--sizes=…] [--stops=…]
       python -m sofnet_jax.benchmark runtime --workdir=SWEEP
example: python -m sofnet_jax.benchmark inference --sizes=168,224

`inference` forces the gates to stop frames as in the paper's Figure 3, or as --stops says: the
percentages of frames stopped after res1 … res5, used, and never seen. With --checkpoint a trained
network decides, on videos. `engines` sets JAX, ONNX Runtime and OpenVINO beside each
other, on a CPU. `runtime` measures the networks of a sweep, for Table 3 of its report.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
from absl import flags

from sofnet_jax.benchmark.decoding import benchmark_decoding
from sofnet_jax.benchmark.forced_gates import FIGURE_3
from sofnet_jax.benchmark.inference import benchmark_inference
from sofnet_jax.benchmark.reading import benchmark_pipeline
from sofnet_jax.benchmark.runtime import benchmark_runtime
from sofnet_jax.benchmark.start import benchmark_start
from sofnet_jax.benchmark.stopwatch import describe_host
from sofnet_jax.benchmark.stream import benchmark_stream
from sofnet_jax.benchmark.training import benchmark_training
from sofnet_jax.benchmark.workload import create_workload, load_workload
from sofnet_jax.data.video.live import find_videos
from sofnet_jax.host import command_line
from sofnet_jax.host.command_line import CONFIG, DATASET, WORKDIR
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.memory import keep_freed_memory
from sofnet_jax.host.paths import expand
from sofnet_jax.report.collection import choose_collection, load_collections
from sofnet_jax.run.config import DTYPES

REPEATS = flags.DEFINE_integer("repeats", None, "Measurements; the median is reported.", 1)
VIDEOS = flags.DEFINE_integer("videos", 10_000, "data: videos sent through the pipeline.", 100)
CHECKPOINT = flags.DEFINE_string("checkpoint", "", "inference: a trained network.")
STOPS = flags.DEFINE_list("stops", list(map(str, FIGURE_3)), "inference: percent, see above.")
SIZES = flags.DEFINE_list(
    "sizes", ["168", "192", "224"], "inference: sides of the frames in pixels."
)
DTYPE = flags.DEFINE_enum("dtype", None, list(DTYPES), "inference: default is the device's best.")
MINUTES = flags.DEFINE_integer(
    "minutes", 60, "inference: length of the stream; 0 skips it and starts.", 0
)
for name in ("config", "workdir", "dataset"):
    flags.declare_key_flag(name)
SHORTEST = 4  # minutes of a stream that can be divided into tenths
RUNTIME_VIDEOS = 100  # of validation, for `runtime`


def main(argv: list[str]) -> None:
    """Run the benchmark named by the first argument."""
    match argv[1:]:
        case ["train"]:
            if CONFIG.value is None:
                raise UserError("--config is missing; see --help")
            lines: Iterable[str] = benchmark_training(CONFIG.value, REPEATS.value or 10)
        case ["data"]:
            print(describe_host(), flush=True)
            print("\n".join(benchmark_decoding(REPEATS.value or 10)), flush=True)
            lines = benchmark_pipeline(REPEATS.value or 10, VIDEOS.value)
        case ["inference", *videos]:
            lines = _measure_inference(videos)
        case ["engines"]:
            lines = _measure_engines()
        case ["runtime"]:
            if WORKDIR.value is None:
                raise UserError("--workdir is missing; give the folder of a sweep")
            keep_freed_memory()
            workdir = Path(expand(WORKDIR.value))
            collection = choose_collection(load_collections(workdir), DATASET.value)
            lines = benchmark_runtime(
                collection, num_videos=RUNTIME_VIDEOS, repeats=REPEATS.value or 5
            )
        case _:
            raise UserError(
                "say what to measure: python -m sofnet_jax.benchmark train --config …, data, "
                "inference, engines, or runtime"
            )
    for line in lines:
        print(line, flush=True)


def _measure_inference(videos: list[str]) -> Iterator[str]:
    if bool(videos) != bool(CHECKPOINT.value):
        raise UserError("a trained network is measured with videos: VIDEO… --checkpoint=RUN")
    if 0 < MINUTES.value < SHORTEST:
        raise UserError(f"--minutes={MINUTES.value}: 0, or from {SHORTEST} up")
    if CHECKPOINT.value:
        files = [file for name in videos for file in find_videos(name)]
        workloads = [load_workload(CHECKPOINT.value, files, dtype=DTYPE.value)]
    else:
        sizes, stops = _read_sizes(), _read_numbers("stops", STOPS.value)
        dtype = DTYPE.value and DTYPES[DTYPE.value]
        workloads = [create_workload(size, stops, dtype=dtype) for size in sizes]
    keep_freed_memory()  # to the advantage of all, including PyTorch
    yield describe_host()
    yield from benchmark_inference(workloads, REPEATS.value or 5)
    if MINUTES.value and not CHECKPOINT.value:
        yield from benchmark_stream(workloads[0], MINUTES.value)
        yield from benchmark_start(workloads[0].size)


def _measure_engines() -> Iterator[str]:
    try:
        from sofnet_jax.benchmark.engines import benchmark_engines  # needs the package onnx
    except ImportError as error:
        raise UserError(f"{error}: pip install '.[onnxruntime,openvino]'") from error
    if jax.default_backend() != "cpu":
        raise UserError("engines run on the CPU: set JAX_PLATFORMS=cpu")
    sizes, stops = _read_sizes(), _read_numbers("stops", STOPS.value)
    keep_freed_memory()
    yield describe_host()
    for size in sizes:
        yield from benchmark_engines(
            create_workload(size, stops, dtype="float32"), REPEATS.value or 5
        )


def _read_sizes() -> list[int]:
    sizes = _read_numbers("sizes", SIZES.value)
    if not sizes or not all(size in range(32, 4097) for size in sizes):
        raise UserError(f"--sizes={','.join(SIZES.value)}: give sides of 32 to 4096 pixels")
    return [int(size) for size in sizes]


def _read_numbers(flag: str, texts: list[str]) -> list[float]:
    try:
        return list(map(float, texts))
    except ValueError as error:
        raise UserError(f"--{flag}: {error}") from None


if __name__ == "__main__":
    command_line.run(main)
