"""The program as its user starts it: in processes of its own, on a tiny network and tiny videos."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from sofnet_jax.run.fields import list_foreign

ROOT = Path(__file__).parents[1]
TINY = {
    "model.backbone": "tiny",
    "model.width": 4,
    "model.hidden": 8,
    "model.forward_bias": 1.0,
    "data.size": 32,
    "data.num_frames": 3,
    "data.num_workers": 0,
    "train.batch_size": 4,
    "train.warmup_epochs": 1,
    "train.joint_epochs": 2,
    "train.log_every": 1,
    "train.sync_batchnorm": True,
    "eval.batch_size": 4,
    "optimizer.learning_rate": 0.005,
}
# Most of the time here goes to compilers, for programs that run a few steps.
QUICK_COMPILATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def create_environment() -> dict[str, str]:
    """The environment of all processes, with the compilation cache of this one."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    return kept | {
        "JAX_COMPILATION_CACHE_DIR": os.environ.get(
            "JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache/xla")
        ),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PLATFORMS": "cpu",
        "PYTHONWARNINGS": "error::RuntimeWarning",
    }


def write_videos(root: Path, write: Callable[[Path, int], object]) -> dict[str, Path]:
    """Two classes of 6 training videos (3 steps an epoch) and 5 validation videos in all.

    `write` writes a video that a number below 200 makes different from others.
    """
    for split, counts in (("train", (6, 6)), ("val", (3, 2))):
        for label, count in enumerate(counts):
            for i in range(count):
                write(root / split / f"class{label}" / f"{i}.mp4", 100 * label + 3 * i)
    return {"train": root / "train", "val": root / "val"}


def create_command(workdir: Path, fields: dict, *flags: str) -> list[str]:
    """The command line of a training; `fields` replace those of TINY."""
    return [sys.executable, "-m", "sofnet_jax.main", *create_flags(workdir, fields), *flags]


def create_flags(workdir: Path, fields: dict) -> list[str]:
    """The flags of a training; `fields` replace those of TINY."""
    values = TINY | fields
    foreign = list_foreign(values.get("model.system", "sofnet"))
    given = ["--config=configs/default.py", f"--workdir={workdir}"]
    return [
        *given,
        *(f"--config.{name}={value}" for name, value in values.items() if name not in foreign),
    ]


def start(command: list[str], environment: dict[str, str], devices: int = 1) -> subprocess.Popen:
    """A process with so many devices, whose output is to be read from pipes."""
    xla_flags = f"{QUICK_COMPILATION} --xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment | {"XLA_FLAGS": xla_flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def find_steps(workdir: Path) -> list[int]:
    """The steps of all checkpoints, in order."""
    names = [path.name for path in (workdir / "checkpoints").glob("[0-9]*")]
    return sorted(int(name) for name in names if name.isdigit())


def read_state(workdir: Path) -> dict[str, np.ndarray]:
    """Every array of the newest checkpoint, by its path in the state."""
    path = workdir / "checkpoints" / str(find_steps(workdir)[-1]) / "state"
    reader = ocp.StandardCheckpointer()
    shapes = reader.metadata(path).item_metadata.tree
    # Into memory of this process, on however many devices it was written.
    like = jax.tree.map(lambda x: np.empty(x.shape, x.dtype), shapes)
    tree = reader.restore(path, like)
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {str(path): np.asarray(leaf) for path, leaf in flat}


def read_metrics(workdir: Path) -> list[dict]:
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_step(process: subprocess.Popen, workdir: Path, step: int) -> None:
    """Returns as soon as the process has logged a step."""
    deadline = time.monotonic() + 240
    path = workdir / "metrics.jsonl"
    while not (path.exists() and f'{{"step": {step},' in path.read_text()):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.0005)
