"""The layers equal PyTorch's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from sofnet_jax.backbones.layers import BatchNorm, Conv, max_pool, normalise
from sofnet_jax.backbones.spec import ConvSpec


# Many and few output pixels, odd and even inputs: every way to compute a convolution.
@pytest.mark.parametrize("kernel", [1, 3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("size", "channels"), [((11, 8), 4), ((11, 8), 1), ((4, 3), 4), ((1, 2), 4)]
)
def test_convolution_is_pytorchs(kernel, stride, size, channels):
    # Zeros on all sides, kernel // 2 of them; output (y, x) begins at (stride·y, stride·x).
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, channels)).astype(np.float32)
    weights = rng.normal(size=(kernel, kernel, channels, 2)).astype(np.float32)
    out = jax.jit(Conv(ConvSpec(channels, 2, kernel, stride)).apply)(
        {"params": {"kernel": weights}}, jnp.array(x)
    )
    pad = kernel // 2
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = ((side + 2 * pad - kernel) // stride + 1 for side in size)
    expected = np.zeros((2, height, width, 2))
    for i in range(height):
        for j in range(width):
            patch = padded[:, i * stride :, j * stride :][:, :kernel, :kernel]
            expected[:, i, j] = np.einsum("byxc,yxcd->bd", patch, weights)
    assert out.shape == expected.shape
    np.testing.assert_allclose(out, expected, atol=1e-4)


@pytest.mark.parametrize("kernel", [3, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(11, 8), (8, 11), (9, 9)])
def test_gradient_of_a_convolution_is_pytorchs(kernel, stride, size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 4)).astype(np.float32)
    weights = rng.normal(size=(kernel, kernel, 4, 3)).astype(np.float32)
    apply = Conv(ConvSpec(4, 3, kernel, stride)).apply
    out, pull = jax.vjp(
        lambda w, x: apply({"params": {"kernel": w}}, x), *map(jnp.array, (weights, x))
    )
    gradient = rng.normal(size=out.shape).astype(np.float32)
    tensors = [
        torch.tensor(array.transpose(order).copy(), requires_grad=True)
        for array, order in ((weights, (3, 2, 0, 1)), (x, (0, 3, 1, 2)))
    ]
    theirs = torch.nn.functional.conv2d(tensors[1], tensors[0], stride=stride, padding=kernel // 2)
    theirs.backward(torch.tensor(gradient.transpose(0, 3, 1, 2).copy()))
    ours = pull(jnp.array(gradient))
    for mine, tensor, order in zip(ours, tensors, ((2, 3, 1, 0), (0, 2, 3, 1)), strict=True):
        np.testing.assert_allclose(mine, tensor.grad.numpy().transpose(order), atol=1e-3)


@pytest.mark.parametrize("size", [(7, 8), (1, 2)])
def test_max_pool_is_pytorchs(size):
    # 3×3, stride 2; padding is never the maximum, which receives the gradient.
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, *size, 3)).astype(np.float32) - 5
    height, width = ((side + 1) // 2 for side in size)
    weights = rng.normal(size=(2, height, width, 3)).astype(np.float32)
    expected, gradient = np.zeros_like(weights), np.zeros_like(x)
    for b, i, j, c in np.ndindex(*weights.shape):
        rows, columns = (slice(max(2 * n - 1, 0), 2 * n + 2) for n in (i, j))
        window = x[b, rows, columns, c]
        expected[b, i, j, c] = window.max()
        gradient[b, rows, columns, c] += (window == window.max()) * weights[b, i, j, c]
    np.testing.assert_array_equal(max_pool(jnp.array(x)), expected)
    found = jax.jit(jax.grad(lambda x: (max_pool(x) * weights).sum()))(jnp.array(x))
    np.testing.assert_allclose(found, gradient, atol=1e-6)


def _torch_batch_norm(x, scale, bias, mean, var):
    """torch.nn.BatchNorm2d in training on (values, channels): output, new mean, new variance."""
    batch_mean, batch_var = x.mean(0), x.var(0)
    out = (x - batch_mean) / np.sqrt(batch_var + 1e-5) * scale + bias
    unbiased = batch_var * len(x) / (len(x) - 1)
    return out, 0.9 * mean + 0.1 * batch_mean, 0.9 * var + 0.1 * unbiased


def _create_batch_norm():
    rng = np.random.default_rng(0)
    x = 2 + 3 * rng.normal(size=(4, 2, 3, 5))
    scale, bias, mean, var = rng.random((4, 5)) + 0.5
    tree = {
        "params": {"scale": scale, "bias": bias},
        "batch_stats": {"mean": mean, "var": var},
    }
    as_float32 = partial(jax.tree.map, lambda v: jnp.array(v, jnp.float32))
    return x, (scale, bias, mean, var), as_float32(x), as_float32(tree)


def test_batch_norm_is_pytorchs():
    x, weights, images, variables = _create_batch_norm()
    out, updates = BatchNorm().apply(variables, images, True, mutable=["batch_stats"])
    expected, mean, var = _torch_batch_norm(x.reshape(-1, 5), *weights)
    np.testing.assert_allclose(out.reshape(-1, 5), expected, atol=1e-5)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(updates["batch_stats"]["var"], var, rtol=1e-5)


def test_batch_norm_in_evaluation_uses_running_statistics():
    x, (scale, bias, mean, var), images, variables = _create_batch_norm()
    out, updates = BatchNorm().apply(variables, images, False, mutable=["batch_stats"])
    np.testing.assert_allclose(out, (x - mean) / np.sqrt(var + 1e-5) * scale + bias, atol=1e-5)
    np.testing.assert_array_equal(updates["batch_stats"]["mean"], variables["batch_stats"]["mean"])


def test_synchronised_batch_norm_is_that_of_the_whole_batch():
    # Two replicas of two images each, whose means differ.
    x, weights, images, variables = _create_batch_norm()
    x[:2] += 4
    halves = jnp.array(x.reshape(2, 2, 2, 3, 5), jnp.float32)
    apply = partial(BatchNorm(axis_name="batch").apply, train=True, mutable=["batch_stats"])
    out, updates = jax.vmap(apply, (None, 0), axis_name="batch")(variables, halves)
    expected, mean, var = _torch_batch_norm(x.reshape(-1, 5), *weights)
    np.testing.assert_allclose(out.reshape(-1, 5), expected, atol=1e-5)
    for replica in range(2):
        np.testing.assert_allclose(updates["batch_stats"]["mean"][replica], mean, rtol=1e-5)
        np.testing.assert_allclose(updates["batch_stats"]["var"][replica], var, rtol=1e-5)


def test_normalisation_is_that_of_imagenet():
    # Published backbones read (x / 255 - mean) / standard deviation.
    black, white = normalise(jnp.array([[0, 0, 0], [255, 255, 255]], jnp.uint8), jnp.float32)
    np.testing.assert_allclose(black, [-2.1179, -2.0357, -1.8044], atol=1e-4)
    np.testing.assert_allclose(white, [2.2489, 2.4286, 2.6400], atol=1e-4)
