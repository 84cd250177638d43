"""Time and memory of a training step, by its parts."""

import contextlib
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from sofnet_jax.benchmark.stopwatch import interleave
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.git import read_commit
from sofnet_jax.host.memory import describe_peaks
from sofnet_jax.parallel import devices
from sofnet_jax.systems.sofnet.gates import Recurrence, run_gates
from sofnet_jax.systems.sofnet.system import SoFNetSystem
from sofnet_jax.training.experiment import Experiment
from sofnet_jax.training.step import TrainState, create_state, select_arrays

ROUNDS = 3  # with and without the input pipeline


def benchmark_training(config: ConfigDict, repeats: int) -> list[str]:
    """Measure parts of a training step; return lines.

    The joint step is measured beside the step without gates; the scan over the gates alone, forward
    and backward; and the joint step fed by the pipeline beside one on a batch on the device.
    """
    e = Experiment(config)
    if not isinstance(e.system, SoFNetSystem):
        raise UserError("this configuration has no gates, whose share of a step is measured here")
    state = devices.replicate(create_state(e.system, e.optimizer, config.seed))
    with contextlib.closing(e.create_train_iterator(0)) as batches:
        arrays = devices.put_batch(select_arrays(next(batches)))
        step, plain = (_Stepper(e, state, phase) for phase in (1, 0))
        functions = {
            "joint step": lambda: step(arrays),
            "step without gates": lambda: plain(arrays),
            "gate scan, forward and backward": _create_scan(e),
        }
        seconds = interleave(functions, repeats)
        fed_seconds, resident_seconds = _measure_input(
            step, batches, arrays, config.data.num_workers, repeats
        )
    joint = seconds["joint step"]
    d, t = config.data, config.train
    lines = [
        f"{config.model.backbone}, {t.batch_size} videos × {d.num_frames} frames × "
        f"{d.size}×{d.size}, {t.dtype}, {jax.device_count()} × {jax.devices()[0].device_kind}, "
        f"jax {jax.__version__}, commit {read_commit()}, median of {repeats}"
    ]
    lines += [f"{name:<34} {1000 * s:9.1f} ms  {s / joint:6.3f}" for name, s in seconds.items()]
    idle = max(0.0, 1 - resident_seconds / fed_seconds)
    lines += [
        f"{'joint steps fed by the pipeline':<34} {1000 * fed_seconds:9.1f} ms a step",
        f"{'the same, batch on the device':<34} {1000 * resident_seconds:9.1f} ms a step",
        f"device idle for want of input: {100 * idle:.1f} % of the step",
        describe_peaks(),
    ]
    return lines


class _Stepper:
    """A training step with its own state, since a step donates the state it is given."""

    def __init__(self, e: Experiment, state: TrainState, phase: int):
        self._state = jax.tree.map(jnp.copy, state)
        self._step = e.create_train_step(phase)

    def __call__(self, arrays: dict[str, jax.Array]) -> jax.Array:
        self._state, metrics = self._step(self._state, arrays)
        return metrics["loss/total"]


def _create_scan(e: Experiment) -> Callable[[], jax.Array]:
    """The scan over the gates and its gradient, on random inputs of one device's shapes."""
    a, rng = e.system.architecture, np.random.default_rng(0)
    k, d = len(a.gates), a.hidden
    b = e.config.train.batch_size // (jax.device_count() * e.config.train.accumulate)
    shape = (b, e.config.data.num_frames)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(0, 0.05, shape), jnp.float32)

    w_hh = normal(k, d, 4 * d) if a.temporal else jnp.zeros((k, 0, 0))
    weights = Recurrence(w_hh, normal(k, d, 2), normal(k, 2))
    inputs = normal(k, *shape, 4 * d if a.temporal else d)
    noise = normal(*shape, k, 2)

    def loss(weights, inputs):
        decision = run_gates(weights, inputs, noise, 1.0)
        return decision.gates.sum() + decision.logits.sum() + decision.hidden.sum()

    gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
    return lambda: gradient(weights, inputs)[0].w_q


def _measure_input(
    step: _Stepper, batches, arrays, workers: int, repeats: int
) -> tuple[float, float]:
    """Seconds per step with and without the pipeline, each dispatched ahead as in training.

    Medians over interleaved rounds of the mean over `repeats` steps: a long wait for one batch
    idles the device as much as many short ones.
    """

    def run(next_arrays: Callable, steps: int) -> float:
        start, previous = time.perf_counter(), None
        for _ in range(steps):
            loss = step(next_arrays())
            jax.block_until_ready(previous)
            previous = loss
        jax.block_until_ready(previous)
        return (time.perf_counter() - start) / steps

    def fetch() -> dict[str, jax.Array]:
        return devices.put_batch(select_arrays(next(batches)))

    fed, resident = [], []
    for _ in range(ROUNDS):
        resident.append(run(lambda: arrays, repeats))
        for _ in range(2 * workers + 8):  # prepared by the pipeline in the meantime
            next(batches)
        run(fetch, 2)
        fed.append(run(fetch, repeats))
    return statistics.median(fed), statistics.median(resident)
