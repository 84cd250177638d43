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
    policy_rate: float = 1.0,
) -> optax.GradientTransformation:
    """SGD exactly as torch.optim.SGD computes it, or Adam.

    SGD: g ← ∇ + weight_decay·p (every parameter, coupled); m ← momentum·m + g; p ← p − lr·m.
    During the first `warmup_steps` the parameters of policies and inner classifiers stay as they
    are, and so do their moments, which begin (and are corrected for beginning) with the joint
    training, as if they had an optimizer of their own, whose learning rate is `policy_rate` times
    that of the others.

    Raises:
        UserError: an unknown name.
    """
    if name == "sgd":
        moments = optax.trace(momentum)
    elif name == "adam":
        moments = optax.scale_by_adam(b1=momentum)
    else:
        raise UserError(f"optimizer.name is '{name}'; choose sgd or adam")
    direction = optax.chain(optax.add_decayed_weights(weight_decay), moments)
    policy_direction = optax.chain(direction, optax.scale(policy_rate))
    return optax.chain(
        optax.partition(
            {
                "policies": optax.conditionally_mask(
                    policy_direction, lambda step: step >= warmup_steps
                ),
                "others": direction,
            },
            lambda params: jax.tree.map(
                lambda is_policy: "policies" if is_policy else "others", select_policies(params)
            ),
        ),
        optax.scale_by_learning_rate(learning_rate),
    )


def select_policies(params: optax.Params) -> optax.Params:
    """True for every parameter of a policy module or an inner classifier, by its path."""

    def is_policy(path: tuple[jax.tree_util.DictKey, ...], _) -> bool:
        return path[0].key.startswith(("policy_", "inner_"))

    return jax.tree_util.tree_map_with_path(is_policy, params)
