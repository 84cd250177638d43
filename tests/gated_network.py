"""Networks with random weights whose gates stop frames at every stage."""

import functools

import jax
import numpy as np

from sofnet_jax.systems.sofnet.architecture import Architecture, create_architecture
from sofnet_jax.systems.sofnet.gates import PAPER, Semantics
from sofnet_jax.systems.sofnet.network import SoFNet

SIZE, FRAMES = 32, 10


def draw_videos(count: int, num_frames: int = FRAMES, seed: int = 0) -> np.ndarray:
    """Noise of different brightness, so that frames differ after average pooling too."""
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 256, (count, num_frames, SIZE, SIZE, 3))
    return (noise * rng.random((count, num_frames, 1, 1, 3))).astype(np.uint8)


@functools.cache
def create_network(
    share: float = 0.8, *, semantics: Semantics = PAPER, seed: int = 0, **fields
) -> tuple[Architecture, SoFNet, dict]:
    """A tiny SoF-Net each of whose gates forwards about `share` of the frames that come to it.

    Its classifier is sure of some videos after few frames, and of others never.
    """
    given = {"num_classes": 5, "gates": (1, 2, 3, 4, 5), "hidden": 16, "width": 8} | fields
    architecture = create_architecture("tiny", **given)
    model = SoFNet(architecture, semantics=semantics)
    videos = draw_videos(12, seed=99)
    apply = jax.jit(model.apply)
    rng = np.random.default_rng(seed)

    def disturb(x):  # so that biases and running statistics are not what they begin with
        return np.array(x + 0.3 * rng.normal(size=x.shape) * (np.abs(x).mean() + 0.01), x.dtype)

    variables = jax.tree.map(disturb, jax.jit(model.init)(jax.random.key(seed), videos))
    params = variables["params"]
    params["head"]["kernel"] *= 2 / np.std(apply(variables, videos).frame_logits)
    for name in architecture.gate_names:
        params[f"policy_{name}"]["w_q"] *= 100  # so that no margin is a matter of rounding
    for _ in range(2):  # the states change with the gates
        for k, name in enumerate(architecture.gate_names):
            policy = params[f"policy_{name}"]
            decision = apply(variables, videos).decision
            margin = np.diff(decision.logits[:, :, k])[np.asarray(decision.stop) >= k]
            policy["b_q"][1] -= np.quantile(margin, 1 - share)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(variables))  # NaN would equal NaN
    return architecture, model, variables
