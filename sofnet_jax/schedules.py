"""Schedules over optimizer steps, as Optax schedules."""

import math

import optax


def create_temperature_schedule(
    initial: float, decay: float, *, steps_per_epoch: int, warmup_epochs: int
) -> optax.Schedule:
    """Gumbel temperature: `initial·exp(-decay·e)` throughout joint epoch e, from 0."""
    joint = optax.exponential_decay(
        initial, steps_per_epoch, decay_rate=math.exp(-decay), staircase=True
    )
    return optax.join_schedules(
        [optax.constant_schedule(initial), joint], [warmup_epochs * steps_per_epoch]
    )


def create_learning_rate_schedule(
    base: float,
    *,
    drop_epochs: tuple[int, ...],
    steps_per_epoch: int,
    warmup_epochs: int,
) -> optax.Schedule:
    """`base`, multiplied by 0.1 after each of the joint epochs `drop_epochs`."""
    drops = {(warmup_epochs + epoch) * steps_per_epoch: 0.1 for epoch in drop_epochs}
    return optax.piecewise_constant_schedule(base, drops)
