"""The optimizer, with the policies frozen during warm-up."""

import jax
import optax

from sofnet_jax.errors import UserError


def create_optimizer(
    name: str,
    learning_rate: optax.Schedule,
    *,
    momentum: float,
    weight_decay: float,
    warmup_steps: int,
) -> optax.GradientTransformation:
    """SGD exactly as torch.optim.SGD computes it, or Adam.

    SGD: g ← ∇ + weight_decay·p (every parameter, coupled); m ← momentum·m + g; p ← p − lr·m.
    During the first `warmup_steps` the parameters of policies and inner classifiers get neither
    gradient nor decay, and their momentum stays zero.

    Raises:
        UserError: an unknown name.
    """
    if name == "sgd":
        direction = [optax.trace(momentum)]
    elif name == "adam":
        direction = [optax.scale_by_adam(b1=momentum)]
    else:
        raise UserError(f"optimizer.name is '{name}'; choose sgd or adam")
    frozen_first = optax.scale_by_schedule(lambda count: (count >= warmup_steps) * 1.0)
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.masked(frozen_first, select_policies),
        *direction,
        optax.scale_by_learning_rate(learning_rate),
    )


def select_policies(params: optax.Params) -> optax.Params:
    """True for every parameter of a policy module or an inner classifier, by its path."""

    def is_policy(path: tuple[jax.tree_util.DictKey, ...], _) -> bool:
        return path[0].key.startswith(("policy_", "inner_"))

    return jax.tree_util.tree_map_with_path(is_policy, params)
