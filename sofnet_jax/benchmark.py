"""Speed, as ratios of things run beside each other in this process.

python -m sofnet_jax.benchmark train --config configs/X.py
python -m sofnet_jax.benchmark data
python -m sofnet_jax.benchmark inference
"""

from absl import flags

from sofnet_jax import command_line
from sofnet_jax.command_line import CONFIG
from sofnet_jax.decoding_benchmark import benchmark_decoding
from sofnet_jax.errors import UserError
from sofnet_jax.inference_benchmark import benchmark_inference
from sofnet_jax.pipeline_benchmark import benchmark_pipeline
from sofnet_jax.stopwatch import describe_host
from sofnet_jax.training_benchmark import benchmark_training

REPEATS = flags.DEFINE_integer("repeats", 10, "Measurements; the median is reported.", 1)
VIDEOS = flags.DEFINE_integer("videos", 10_000, "That `data` sends through the pipeline.", 100)


def main(argv: list[str]) -> None:
    """Runs the benchmark that the first argument names."""
    match argv[1:]:
        case ["train"]:
            if CONFIG.value is None:
                raise UserError("--config is missing")
            lines = benchmark_training(CONFIG.value, REPEATS.value)
        case ["data"]:
            print(describe_host(), flush=True)
            print("\n".join(benchmark_decoding(REPEATS.value)), flush=True)
            lines = benchmark_pipeline(REPEATS.value, VIDEOS.value)
        case ["inference"]:
            print(describe_host(), flush=True)
            lines = benchmark_inference(REPEATS.value)
        case _:
            raise UserError(
                "say what to measure: python -m sofnet_jax.benchmark train --config …, data, "
                "or inference"
            )
    print("\n".join(lines), flush=True)


if __name__ == "__main__":
    command_line.run(main)
