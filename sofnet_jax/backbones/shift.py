"""The temporal shift (TSM; Lin, Gan and Han, ICCV 2019): channels from neighbouring frames.

The first convolution of a residual block that shifts reads an eighth of its channels from the
previous frame and, if *offline*, another eighth from the next one. Its shortcut is not shifted. A
shift costs no multiplication.

The paper does not say how this combines with stopped frames. *Online*, the previous frame is the
last *kept* one, as in the gates' memory (Eq. 2), in training, evaluation and inference: a stopped
frame leaves no trace, and everything needed has been computed. Before the first kept frame the
channels are zero, as in TSM where a video begins. *Offline*, the next frame is needed before it is
computed, so the shift ignores stops: such a network can be trained and evaluated, but cannot skip.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

SHARE = 8  # one channel in eight comes from a neighbour

# The input channels that a later frame reads: for each shifting block of a stage or span, and for
# all stages or spans. Arrays of JAX, or of NumPy if an engine made them.
Channels = tuple[Float[Any, "b _ _ _"], ...]
Past = tuple[Channels, ...]

# Maps a block's input and what the last kept frame left there (None: nothing) to the input of its
# first convolution and what it leaves itself.
Shift = Callable[[Array, Array | None], tuple[Array, Array]]


def shift_frames(
    x: Float[Array, "bt h w c"], num_frames: int, *, online: bool
) -> Float[Array, "bt h w c"]:
    """Shifts between neighbouring frames of whole videos."""
    part = x.shape[-1] // SHARE
    frames = x.reshape(-1, num_frames, *x.shape[1:])
    before = jnp.roll(frames[..., :part], 1, axis=1).at[:, 0].set(0)
    if online:
        shifted = [before, frames[..., part:]]
    else:  # in TSM's order: the first channels come from the next frame
        after = jnp.roll(frames[..., :part], -1, axis=1).at[:, -1].set(0)
        before = jnp.roll(frames[..., part : 2 * part], 1, axis=1).at[:, 0].set(0)
        shifted = [after, before, frames[..., 2 * part :]]
    return jnp.concatenate(shifted, axis=-1).reshape(x.shape)


def shift_frame(
    x: Float[Array, "b h w c"], past: Float[Array, "b h w p"] | None = None
) -> tuple[Float[Array, "b h w c"], Float[Array, "b h w p"]]:
    """Shifts one frame from the last kept one; zeros if there was none.

    Returns:
        What the block's first convolution reads, and the `past` of a later frame.
    """
    part = x.shape[-1] // SHARE
    own = x[..., :part]
    before = jnp.zeros_like(own) if past is None else past
    return jnp.concatenate([before, x[..., part:]], axis=-1), own
