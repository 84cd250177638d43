"""One optimizer step: its state and its function."""

import dataclasses
from collections.abc import Callable
from typing import Any, no_type_check

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree, UInt32

from sofnet_jax.data.batch import Batch
from sofnet_jax.parallel import devices
from sofnet_jax.systems.base import System

# Initialisers run once: optimising their many random-number loops would take a minute.
QUICK_COMPILATION = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@no_type_check  # at run time, under test: pmap and tree.map also build it of placeholders
@flax.struct.dataclass
class TrainState:
    """Everything that an optimizer step reads and writes.

    The random streams of step s are folded from `key` and s, so the state holds one fixed key.
    """

    step: Int[Array, ""]
    params: PyTree
    batch_stats: PyTree
    opt_state: PyTree
    key: UInt32[Array, "2"]

    @property
    def variables(self) -> dict[str, PyTree]:
        """The variables of the system's network."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(system: System, optimizer: optax.GradientTransformation, seed: int) -> TrainState:
    """The state before the first step."""
    init_key, train_key = jax.random.split(jax.random.key(seed))
    # No parameter depends on the size of frames.
    frames = jnp.zeros((1, system.architecture.num_frames or 2, 64, 64, 3), jnp.uint8)
    init = jax.jit(system.module.init, compiler_options=QUICK_COMPILATION)
    variables = init(init_key, frames)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        key=jax.random.key_data(train_key),
    )


def create_train_step(
    system: System,
    optimizer: optax.GradientTransformation,
    *,
    phase: int,
    learning_rate: optax.Schedule,
    temperature: optax.Schedule,
    accumulate: int = 1,
) -> Callable:
    """`step(state, batch) -> (state, metrics)` over all devices.

    Args:
        system: what is trained.
        optimizer: the one that the state was created with.
        phase: number of the phase.
        learning_rate: the optimizer's, by step; only reported here.
        temperature: of the Gumbel-softmax, by step.
        accumulate: micro-batches a step. Each has its own batch statistics, as on a device of its
            own; gradients and running statistics are averaged.
    """

    def compute_gradients(state: TrainState, batch: dict[str, Any]):
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        dropout_key, gate_key = jax.random.split(key)

        def loss(params: PyTree):
            total, (stats, metrics) = system.train(
                {"params": params, "batch_stats": state.batch_stats},
                batch,
                phase=phase,
                temperature=temperature(state.step),
                keys={"dropout": dropout_key, "gate": gate_key},
            )
            return total, (stats, metrics | {"loss/total": total})

        gradients, (stats, metrics) = jax.grad(loss, has_aux=True)(state.params)
        return gradients, stats, metrics

    def step(state: TrainState, batch: dict[str, Any]):
        batch = dict(batch)
        interrupt = batch.pop("interrupt").mean()
        results = _average_over_micro_batches(compute_gradients, state, batch, accumulate)
        gradients, stats, metrics = devices.mean_over_devices(results)
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        metrics["gradient_norm"] = optax.tree.norm(gradients)
        # Computed here, not on the host: there it would wait for the step that is queued.
        metrics["learning_rate"] = learning_rate(state.step)
        metrics["interrupt"] = devices.mean_over_devices(interrupt)
        params = optax.apply_updates(state.params, updates)
        metrics["weight_norm"] = optax.tree.norm((params, stats))
        new = dataclasses.replace(
            state, step=state.step + 1, params=params, batch_stats=stats, opt_state=opt_state
        )
        return new, metrics

    return devices.pmap_train_step(step)


def select_arrays(batch: Batch, stop: bool = False) -> dict[str, Any]:
    """The arrays of a batch for a training step, and this process's request to stop.

    The request travels with the batch, so that all processes learn of it in the same step.
    """
    arrays = {name: batch[name] for name in ("frames", "labels", "index")}
    return arrays | {"interrupt": np.full(len(batch["index"]), float(stop), np.float32)}


def _average_over_micro_batches(
    compute: Callable, state: TrainState, batch: dict[str, Any], accumulate: int
):
    """Mean of `compute(state, micro_batch)` over equal parts of the batch, one after another."""
    if accumulate == 1:
        return compute(state, batch)
    parts = jax.tree.map(lambda x: x.reshape(accumulate, -1, *x.shape[1:]), batch)
    first = jax.tree.map(lambda x: x[0], parts)
    zero = jax.tree.map(
        lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(compute, state, first)
    )

    def body(total: PyTree, part: dict[str, Any]):
        return jax.tree.map(jnp.add, total, compute(state, part)), None

    total, _ = jax.lax.scan(body, zero, parts)
    return jax.tree.map(lambda x: x / accumulate, total)
