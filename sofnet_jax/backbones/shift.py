"""The temporal shift (TSM; Lin, Gan and Han, ICCV 2019): some channels are those of another frame.

A residual block that shifts convolves, in place of an eighth of its input's channels, those of the
frame before; *offline* another eighth is of the frame after. Its shortcut is not shifted. It costs
no multiplication.

How that goes with frames that are stopped, the paper does not say. *Online*, the frame before is
here the last *kept* one, as in the gates' memory (Eq. 2): a stopped frame leaves no trace, and
nothing is needed that was not computed. It is so in training, evaluation and inference. Before the
first kept frame the channels are zero, as TSM has it where a video begins. The frame after, on the
other hand, is not computed yet when it is asked for: *offline* shifts between neighbours as if none
were stopped, which can be trained and evaluated, but not skipped.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

SHARE = 8  # one channel in so many comes from a neighbour

# For each stage or span, for each of its blocks that shift: the channels of its input that a later
# frame reads.
Channels = tuple[Float[Array, "b _ _ _"], ...]
Past = tuple[Channels, ...]

# A block's input and its entry of the past (None before the first frame) to what its first
# convolution reads and to the entry that it leaves.
Shift = Callable[[Array, Array | None], tuple[Array, Array]]


def shift_frames(
    x: Float[Array, "bt h w c"], num_frames: int, *, online: bool
) -> Float[Array, "bt h w c"]:
    """Shifts between the neighbouring frames of videos that are known as a whole."""
    part = x.shape[-1] // SHARE
    frames = x.reshape(-1, num_frames, *x.shape[1:])
    before = jnp.roll(frames[..., :part], 1, axis=1).at[:, 0].set(0)
    if online:
        shifted = [before, frames[..., part:]]
    else:  # in TSM's order: the first channels are of the frame after
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
