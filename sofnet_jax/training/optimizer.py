"""The optimizer; it freezes the policies during warm-up."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from sofnet_jax.systems.base import Learning


def create_optimizer(
    name: Literal["sgd", "adam"],
    learning_rate: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    warmup_steps: int,
    learning: Learning,
    policy_name: Literal["", "sgd", "adam"] = "",
    policy_rate: float = 1.0,
    clip_norm: float = 0.0,
    holds: bool = False,
) -> optax.GradientTransformation:
    """SGD exactly as torch.optim.SGD computes it, or Adam.

    SGD: g ← ∇ + weight_decay·p (every parameter, coupled); m ← momentum·m + g; p ← p − lr·m.
    The parameters that decide, whose first names begin with one of `learning.policy`, have an
    optimizer of their own, `policy_name` if that is given: it starts after `warmup_steps`, and its
    learning rate is `policy_rate` times the others'; if `learning.freezes`, the others' ends there,
    and for those of `learning.refined` one like the policies' follows.
    A gradient whose norm over all parameters is larger than `clip_norm` is scaled down to it,
    unless that is 0. With `holds` it is the same after `warmup_steps`, if the others' has ended
    there, and does not compute what changes nothing.
    """
    mask = learning.decays and partial(jax.tree.map, learning.decays)

    def direct(name: str) -> optax.GradientTransformation:
        moments = optax.trace(momentum) if name == "sgd" else optax.scale_by_adam(b1=momentum)
        direction = optax.chain(optax.add_decayed_weights(weight_decay, mask=mask), moments)
        if learning.rate:
            direction = optax.chain(direction, optax.stateless(partial(_scale, learning.rate)))
        return direction

    direction = direct(name)
    others = _restart(direction, warmup_steps) if learning.restarts else direction
    if learning.freezes:
        others = optax.conditionally_mask(others, lambda step: step < warmup_steps)
    if holds:
        others = optax.GradientTransformation(others.init, _hold)
    deciding = optax.chain(direct(policy_name or name), optax.scale(policy_rate))
    policies = optax.conditionally_mask(deciding, lambda step: step >= warmup_steps)
    rules = {"policies": policies, "others": others}
    if learning.refined:
        rules["refined"] = _add(others, optax.chain(policies, optax.scale(learning.refined_rate)))

    def label(params: optax.Params) -> optax.Params:
        return jax.tree.map(
            lambda policy, refined: "policies" if policy else "refined" if refined else "others",
            *(select(params, learning.policy), select(params, learning.refined)),
        )

    parts = optax.partition(rules, label)
    clip = [optax.clip_by_global_norm(clip_norm)] if clip_norm else []
    return optax.chain(*clip, parts, optax.scale_by_learning_rate(learning_rate))


def select(params: optax.Params, prefixes: tuple[str, ...]) -> optax.Params:
    """True for every parameter whose first name begins with one of the prefixes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[0].key.startswith(prefixes), params
    )


def _scale(rate: Callable[[Any], float], updates: optax.Updates, _) -> optax.Updates:
    return jax.tree_util.tree_map_with_path(lambda path, u: rate(path) * u, updates)


def _add(
    a: optax.GradientTransformation, b: optax.GradientTransformation
) -> optax.GradientTransformation:
    """The sum of both updates."""

    def init(params: optax.Params):
        return a.init(params), b.init(params)

    def update(updates: optax.Updates, states, params: optax.Params | None = None):
        first, a_state = a.update(updates, states[0], params)
        second, b_state = b.update(updates, states[1], params)
        return optax.tree.add(first, second), (a_state, b_state)

    return optax.GradientTransformation(init, update)


def _hold(updates: optax.Updates, state: Any, _: Any = None) -> tuple[optax.Updates, Any]:
    return optax.tree.zeros_like(updates), state


def _restart(inner: optax.GradientTransformation, first_step: int) -> optax.GradientTransformation:
    """`inner`, whose state is reset at one step."""

    def init(params: optax.Params):
        return jnp.zeros((), jnp.int32), inner.init(params)

    def update(updates: optax.Updates, state, params: optax.Params | None = None):
        step, inner_state = state
        new = inner.init(params)
        inner_state = jax.tree.map(
            lambda fresh, old: jnp.where(step == first_step, fresh, old), new, inner_state
        )
        updates, inner_state = inner.update(updates, inner_state, params)
        return updates, (step + 1, inner_state)

    return optax.GradientTransformation(init, update)
