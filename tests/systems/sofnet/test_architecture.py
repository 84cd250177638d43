import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sofnet_jax.backbones.costs import list_convolutions
from sofnet_jax.backbones.resnet import ResNet
from sofnet_jax.systems import tsn
from sofnet_jax.systems.base import Prices
from sofnet_jax.systems.sofnet.architecture import Architecture, create_architecture
from sofnet_jax.systems.sofnet.gates import Policy, create_state, gate_step
from sofnet_jax.systems.sofnet.losses import compute_lookup
from sofnet_jax.systems.tsn import TSNNetwork

_ALL = (1, 2, 3, 4, 5)
_SMALL = Architecture(
    num_classes=3, block="basic", depths=(1, 1, 1, 1), width=4, stem_kernel=3, gates=_ALL, hidden=8
)


# G multiply-adds of ResNet-50 with 200 classes: up to each gate, for a frame, for 16 frames.
@pytest.mark.parametrize(
    ("size", "gates", "whole", "video", "convolutions_alone"),
    [
        (168, (0.0674, 0.4486, 1.0306, 1.9328, 2.5205), 2.5209, 40.34, 40.02),
        (192, (0.0880, 0.5859, 1.3460, 2.4262, 3.0260), 3.0264, 48.42, 48.05),
        (224, (0.1198, 0.7975, 1.8320, 3.3019, 4.1166), 4.1172, 65.87, 65.40),
    ],
)
def test_published_table(size, gates, whole, video, convolutions_alone):
    a = create_architecture("resnet50", num_classes=200, gates=_ALL)
    paper = a.prices(size).paper.tolist()
    assert tuple(round(price, 4) for price in paper) == (*gates, whole)
    assert round(16 * paper[-1], 2) == video
    plain = a.plain(size)  # without W_x and the gates' pools
    assert round(16 * plain.paper, 1) <= round(16 * paper[-1], 1)
    macs = sum(conv.macs for conv in list_convolutions(a.backbone, size)) + 2048 * 200
    assert round(16 * macs / 1e9, 2) == convolutions_alone


# The five stages of `_SMALL` at 32×32: outputs 16 (pooled to 8), 8, 4, 2, 1 pixels wide, of 4, 4,
# 8, 16, 32 channels.
#   macs: res1 16²·4·9·3; res2 two of 8²·4·9·4; res3 4²·8·(9·4 + 9·8 + 4), the last being the 1×1
#   shortcut; res4 2²·16·(9·8 + 9·16 + 8); res5 32·(9·16 + 9·32 + 16)
_MACS = (27648, 18432, 14336, 14336, 14336)
#   BatchNorm: two for each output element of each convolution
_NORM = (2 * 1024, 2 * 512, 2 * 384, 2 * 192, 2 * 96)
#   ReLUs and residual sums: res1 a ReLU and the 3×3 max-pool on 8²·4; res2 two ReLUs and one sum
#   over 8²·4 = 256; then likewise over 128, 64, 32
_POINTWISE = (1024 + 9 * 256, 768, 384, 192, 96)
#   global average pool (area + 1)·channels
_POOL = (65 * 4, 65 * 4, 17 * 8, 5 * 16, 2 * 32)
#   W_x
_EMBED = (4**2, 4**2, 8**2, 16**2, 32**2)
#   LSTM 4·8·(channels + 8) and 3·8 products with its gates; W_q 8·2
_LSTM = tuple(32 * (c + 8) + 24 + 16 for c in (4, 4, 8, 16, 32))
#   without memory: 8·channels and W_q
_DENSE = tuple(8 * c + 16 for c in (4, 4, 8, 16, 32))
_HEAD = 32 * 3


def _sum(stage, *columns):
    """Sum of the columns over the stages up to this one."""
    return sum(sum(column[:stage]) for column in columns)


def test_paper_count_by_hand():
    paper = _SMALL.prices(32).paper
    gates = [_sum(n, _MACS, _NORM, _POOL, _EMBED) / 1e9 for n in _ALL]
    np.testing.assert_allclose(paper[:-1], gates, rtol=1e-12)
    # The published totals count the pool before the classifier beside that of the last gate.
    assert paper[-1] == pytest.approx(gates[-1] + (_POOL[4] + _HEAD) / 1e9, rel=1e-12)


def test_counts_without_gates_by_hand():
    paper, full = _SMALL.plain(32)
    whole = _sum(5, _MACS, _NORM) + _POOL[4] + _HEAD
    assert paper == pytest.approx(whole / 1e9, rel=1e-12)
    assert full == pytest.approx((whole + sum(_POINTWISE)) / 1e9, rel=1e-12)


def test_full_count_by_hand():
    full = _SMALL.prices(32).full
    gates = [_sum(n, _MACS, _NORM, _POOL, _EMBED, _POINTWISE, _LSTM) / 1e9 for n in _ALL]
    np.testing.assert_allclose(full[:-1], gates, rtol=1e-12)
    assert full[-1] == pytest.approx(gates[-1] + _HEAD / 1e9, rel=1e-12)


def test_full_count_of_some_gates_by_hand():
    a = Architecture(**(vars(_SMALL) | {"gates": (2, 4)}))
    full = a.prices(32).full

    def gate(n):
        return _POOL[n - 1] + _EMBED[n - 1] + _LSTM[n - 1]

    second = _sum(2, _MACS, _NORM, _POINTWISE) + gate(2)
    fourth = _sum(4, _MACS, _NORM, _POINTWISE) + gate(2) + gate(4)
    whole = _sum(5, _MACS, _NORM, _POINTWISE) + gate(2) + gate(4) + _POOL[4] + _HEAD
    np.testing.assert_allclose(full * 1e9, [second, fourth, whole], rtol=1e-12)


def test_full_count_without_memory_by_hand():
    full = Architecture(**(vars(_SMALL) | {"temporal": False})).prices(32).full
    gates = [_sum(n, _MACS, _NORM, _POOL, _EMBED, _POINTWISE, _DENSE) / 1e9 for n in _ALL]
    np.testing.assert_allclose(full[:-1], gates, rtol=1e-12)


def test_price_of_a_trace_by_hand():
    prices = Prices(np.array([1.0, 2.0, 4.0]), np.array([10.0, 20.0, 40.0]))
    assert prices.spend(np.array([0, 1, 2])) == (1 + 2 + 4, 10 + 20 + 40)
    assert prices.spend(np.array([2, 2])) == (8, 80)


def test_lookup_by_hand():
    paper = np.array([1.0, 2.0, 4.0])
    assert compute_lookup(paper) == (3.0, 2.0)
    # Scaled so that f(L) is 2 instead of 4.
    assert compute_lookup(paper, reference=2.0) == (1.5, 1.0)


def _list_products(jaxpr):
    """The convolutions and matrix products of a program, by name, in order."""
    names = []
    for equation in jaxpr.eqns:
        if equation.primitive.name in ("conv_general_dilated", "dot_general"):
            names.append(equation.primitive.name)
        for inner in equation.params.values():
            if hasattr(inner, "jaxpr"):
                names += _list_products(inner.jaxpr)
    return names


def _count_macs(conv, product):
    """Multiply-adds of a convolution as the compiler counts them.

    A matrix product multiplies the padding's zeros too, a convolution does not.
    """
    if product == "dot_general":
        return conv.macs
    first = np.arange(conv.out_size) * conv.spec.stride - conv.spec.kernel // 2
    position = first[:, None] + np.arange(conv.spec.kernel)
    taps = ((position >= 0) & (position < conv.size)).sum()  # along one side
    return taps**2 * conv.spec.in_channels * conv.spec.channels


@pytest.mark.parametrize(
    ("backbone", "size"), [("tiny", 32), ("tiny", 45), ("resnet18", 168), ("resnet50", 168)]
)
def test_compiler_counts_the_same(backbone, size):
    a = create_architecture(backbone, num_classes=10, gates=(1,))
    network = ResNet(a.backbone)
    images = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    variables = jax.eval_shape(
        lambda key, x: network.init(key, x, False), jax.random.key(0), images
    )
    apply = jax.jit(lambda v, x: network.apply(v, x, False))
    products = _list_products(jax.make_jaxpr(apply)(variables, images))
    assert "conv_general_dilated" in products

    # Two operations a multiply-add.
    convs = list(list_convolutions(a.backbone, size))
    operations = sum(2 * _count_macs(c, p) for c, p in zip(convs, products, strict=True))
    # `full` counts every other operation as one. Two details differ: BatchNorm computes scale and
    # shift from its four vectors, in 4 operations a channel (plus the square root), and the maximum
    # of 9 elements, 9 operations in `full`, takes fewer however it is computed.
    _, full = a.plain(size)
    last, channels = convs[-1].out_size, a.backbone.channels[4]
    backbone_alone = full * 1e9 - (last**2 + 1) * channels - channels * a.num_classes
    operations += backbone_alone - sum(c.macs for c in convs)
    operations += 4 * sum(c.spec.channels for c in convs)
    max_pool = 9 * ((convs[0].out_size + 1) // 2) ** 2 * a.width
    counted = apply.lower(variables, images).cost_analysis()["flops"]
    rounding = 1e-6 * operations  # the compiler adds up in float32
    assert operations - max_pool - rounding <= counted <= operations + rounding
    assert max_pool < 0.01 * operations


@pytest.mark.parametrize(("temporal", "channels"), [(True, 64), (True, 2048), (False, 2048)])
def test_compiler_counts_the_same_for_a_gate(temporal, channels):
    a = create_architecture("resnet50", num_classes=10, gates=(1,), temporal=temporal)
    policy = Policy(a)
    pooled = jax.ShapeDtypeStruct((1, 1, channels), jnp.float32)
    variables = jax.eval_shape(policy.init, jax.random.key(0), pooled)

    def gate(v, x):
        inputs, weights = policy.apply(v, x)
        stacked = jax.tree.map(lambda w: w[None], weights)
        state = create_state(1, 1, a.hidden)
        return gate_step(stacked, state, inputs[:, 0][None], None, 1.0, jnp.array(False))

    operations = jax.jit(gate).lower(variables, pooled).cost_analysis()["flops"]
    lstm = 4 * 512 * (channels + 512) + 3 * 512 if temporal else 512 * channels
    macs = channels**2 + lstm + 512 * 2
    # Biases, sums of the LSTM's two halves and its logistic functions: up to 30 operations for each
    # of 4·512 elements.
    assert 0 <= operations - 2 * macs <= 30 * 4 * 512
    if channels == 2048:
        at_5 = Architecture(**(vars(a) | {"gates": (5,)}))
        full = at_5.prices(168).full[-1]
        _, plain = a.plain(168)
        assert (full - plain) * 1e9 == pytest.approx(macs)


# torchvision's models with 1000 classes.
@pytest.mark.parametrize(
    ("backbone", "parameters"),
    [
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
    ],
)
def test_number_of_parameters_is_torchvisions(backbone, parameters):
    model = TSNNetwork(tsn.Architecture(**tsn.choose_backbone(backbone, num_classes=1000)))
    frames = jax.ShapeDtypeStruct((1, 1, 64, 64, 3), jnp.uint8)
    variables = jax.eval_shape(model.init, jax.random.key(0), frames)
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"])) == parameters
