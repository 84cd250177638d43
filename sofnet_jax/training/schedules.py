"""Schedules over optimizer steps, as Optax schedules."""

import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import optax
from jaxtyping import Array


def create_temperature_schedule(
    initial: float, decay: float, *, steps_per_epoch: int, warmup_epochs: int
) -> optax.Schedule:
    """Gumbel temperature: `initial·exp(-decay·e)` throughout joint epoch e, from 0."""

    # optax.exponential_decay divides in floating point, which under jit puts the first step of
    # some epochs into the one before.
    def schedule(step: Array | int) -> Array:
        epoch = jnp.maximum(step // steps_per_epoch - warmup_epochs, 0)
        return initial * jnp.exp(-decay * epoch)

    return schedule


def create_learning_rate_schedule(
    base: float,
    *,
    drop_epochs: tuple[int, ...],
    steps_per_epoch: int,
    warmup_epochs: int,
    restart: int | None = None,
) -> optax.Schedule:
    """`base`, multiplied by 0.1 after each of the joint epochs `drop_epochs`.

    From the step `restart` on, if there is one, it is `base` again.
    """
    drops = {(warmup_epochs + epoch) * steps_per_epoch: 0.1 for epoch in drop_epochs}
    schedule = optax.piecewise_constant_schedule(base, drops)
    if restart is None:
        return schedule
    return optax.join_schedules([schedule, optax.constant_schedule(base)], [restart])


def create_cosine_schedule(base: float, ends: Sequence[int]) -> optax.Schedule:
    """From `base` down to 0 along half a cosine, anew in every phase; `ends` are their ends."""
    bounds = sorted({0, max(1, *ends), *ends})  # phases may be empty
    parts = [optax.cosine_decay_schedule(base, b - a) for a, b in itertools.pairwise(bounds)]
    return optax.join_schedules(parts, bounds[1:-1])


def create_progress_schedule(initial: float, final: float, bounds: range) -> optax.Schedule:
    """`initial`, from the start of `bounds` exponentially to `final` at their end."""

    def schedule(step: Array | int) -> Array:
        progress = jnp.clip((step - bounds.start) / max(len(bounds), 1), 0, 1)
        return initial * (final / initial) ** progress

    return schedule
