"""The order in which FrameExit looks at the frames of a video."""

from sofnet_jax.host.errors import UserError

# The released code's order of ten frames, which its weights were trained with. It begins as
# `_subdivide` does, but no rounding of that algorithm gives it.
_RELEASED = (5, 0, 9, 2, 7, 4, 6, 3, 8, 1)


def create_order(num_frames: int, online: bool) -> tuple[int, ...]:
    """The temporal index of the frame at each position (FrameExit, CVPR 2021).

    Offline, a video is seen coarse to fine: its centre, its ends, then what halves the gaps. Ten
    frames come in the order of the released code, any other number in that of the paper's appendix.

    Args:
        num_frames: T, the number of frames sampled from a video.
        online: take the frames as they come, the variant that SoF-Net's authors compare with.

    Raises:
        UserError: fewer than two frames, between which nothing could be decided.
    """
    if num_frames < 2:
        raise UserError(f"data.num_frames is {num_frames}; FrameExit needs at least 2")
    if online:
        return tuple(range(num_frames))
    return _RELEASED if num_frames == len(_RELEASED) else _subdivide(num_frames)


def _subdivide(num_frames: int) -> tuple[int, ...]:
    """Centre, first, last; then the middles of 2, 4, 8, … equal parts, until no frame is left."""
    last, parts = num_frames - 1, 2
    order = dict.fromkeys((last // 2, 0, last))  # a dict, because it keeps order and drops doubles
    while len(order) < num_frames:
        cuts = [j * last // parts for j in range(parts + 1)]
        order |= dict.fromkeys((a + b) // 2 for a, b in zip(cuts, cuts[1:], strict=False))
        parts *= 2
    return tuple(order)
