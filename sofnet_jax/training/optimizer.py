"""The optimizer; it freezes the policies during warm-up."""

from typing import Literal

import jax
import jax.numpy as jnp
import optax

from sofnet_jax.systems.sofnet.released import PAPER, Released

Path = tuple[jax.tree_util.DictKey, ...]


def create_optimizer(
    name: Literal["sgd", "adam"],
    learning_rate: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    warmup_steps: int,
    policy: tuple[str, ...] = (),
    policy_rate: float = 1.0,
    freezes: bool = False,
    released: Released = PAPER,
) -> optax.GradientTransformation:
    """SGD exactly as torch.optim.SGD computes it, or Adam.

    SGD: g ← ∇ + weight_decay·p (every parameter, coupled); m ← momentum·m + g; p ← p − lr·m.
    The parameters that decide, whose first names begin with one of `policy`, have, as it were, an
    optimizer of their own: it starts after `warmup_steps`, and its learning rate is `policy_rate`
    times the others'; with `freezes`, the others' ends there.
    `released` follows the authors' code in its `clip_norm`, `groups` and `restart`.
    """
    moments = optax.trace(momentum) if name == "sgd" else optax.scale_by_adam(b1=momentum)
    direction = optax.chain(
        optax.add_decayed_weights(weight_decay, mask=_select_weights if released.groups else None),
        moments,
    )
    if released.groups:
        direction = optax.chain(direction, optax.stateless(_scale_groups))
    others = _restart(direction, warmup_steps) if released.restart else direction
    if freezes:
        others = optax.conditionally_mask(others, lambda step: step < warmup_steps)
    policies = optax.chain(direction, optax.scale(policy_rate))
    parts = optax.partition(
        {
            "policies": optax.conditionally_mask(policies, lambda step: step >= warmup_steps),
            "others": others,
        },
        lambda params: jax.tree.map(
            lambda is_policy: "policies" if is_policy else "others", select(params, policy)
        ),
    )
    clip = [optax.clip_by_global_norm(released.clip_norm)] if released.clip_norm else []
    return optax.chain(*clip, parts, optax.scale_by_learning_rate(learning_rate))


def select(params: optax.Params, prefixes: tuple[str, ...]) -> optax.Params:
    """True for every parameter whose first name begins with one of the prefixes."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: path[0].key.startswith(prefixes), params
    )


def compute_rate(path: Path) -> float:
    """The learning rate of a parameter relative to a convolution's (`Released.groups`)."""
    *_, module, leaf = (key.key for key in path)
    if leaf in ("b_ih", "b_hh"):
        return 2.0
    linear = module in ("head", "embed", "dense", "fc")
    if leaf == "b_q" or (linear and leaf == "bias"):
        return 10.0
    return 5.0 if leaf == "w_q" or linear else 1.0


def _scale_groups(updates: optax.Updates, _) -> optax.Updates:
    return jax.tree_util.tree_map_with_path(lambda path, u: compute_rate(path) * u, updates)


def _select_weights(params: optax.Params) -> optax.Params:
    """True for kernels and matrices, false for biases and BatchNorm's scales."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


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
