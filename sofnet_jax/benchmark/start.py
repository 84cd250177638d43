"""Seconds from the start of `python -m sofnet_jax.predict` to its first prediction."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sofnet_jax.benchmark.videos import write_video
from sofnet_jax.benchmark.workload import BACKBONE, draw_variables
from sofnet_jax.weights.files import write_tensors
from sofnet_jax.weights.names import to_state_dict

REPEATS = 3  # starts with a full cache; the median is reported


def benchmark_start(size: int) -> list[str]:
    """Measure starts with an empty and with a filled cache of compiled programs; return lines."""
    with tempfile.TemporaryDirectory() as folder:
        weights, video = Path(folder) / "weights.npz", Path(folder) / "video.mp4"
        _, variables = draw_variables()
        write_tensors(weights, to_state_dict(variables), {})
        write_video(video, frames=300, width=340, height=256)
        command = [sys.executable, "-m", "sofnet_jax.predict", str(video)]
        command += [f"--checkpoint={weights}", f"--size={size}"]
        first = _wait_for_line(command, folder)
        later = statistics.median(_wait_for_line(command, folder) for _ in range(REPEATS))
        imports = "import sofnet_jax.inference.load; print()"
        importing = _wait_for_line([sys.executable, "-c", imports], folder)
    return [
        f"{BACKBONE}, {size}×{size}, a video of 10 s: from the start to the first prediction",
        f"  {first:.1f} s with nothing compiled, {later:.1f} s with the cache of compiled programs "
        f"(imports alone {importing:.1f} s)",
    ]


def _wait_for_line(command: list[str], folder: str) -> float:
    """Seconds until a process prints a line."""
    environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": f"{folder}/cache"}
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
        process.stdout.read()
    if process.returncode or not line:
        raise RuntimeError(f"{' '.join(command)} failed with exit code {process.returncode}")
    return seconds
