import pytest

from sofnet_jax.host.errors import UserError
from sofnet_jax.systems.frameexit.order import create_order

PUBLISHED = {
    8: (3, 0, 7, 1, 5, 2, 4, 6),
    10: (5, 0, 9, 2, 7, 4, 6, 3, 8, 1),  # the released code's; the appendix's algorithm differs
    16: (7, 0, 15, 3, 11, 1, 5, 9, 13, 2, 4, 6, 8, 10, 12, 14),
}


@pytest.mark.parametrize("num_frames", PUBLISHED)
def test_published_orders(num_frames):
    assert create_order(num_frames, online=False) == PUBLISHED[num_frames]


@pytest.mark.parametrize("num_frames", range(2, 41))
def test_every_frame_has_one_position(num_frames):
    assert create_order(num_frames, online=True) == tuple(range(num_frames))
    order = create_order(num_frames, online=False)
    assert sorted(order) == list(range(num_frames))
    assert {0, num_frames - 1} <= set(order[:3])


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("num_frames", [-1, 0, 1])
def test_too_few_frames(num_frames, online):
    with pytest.raises(UserError, match=f"data.num_frames is {num_frames}"):
        create_order(num_frames, online)
