"""Winograd's convolution equals the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sofnet_jax.backbones.winograd import WinogradConvolution, restore_kernel, transform_kernel

SHAPES = [(1, 1, 1), (1, 2, 5), (1, 7, 4), (3, 11, 11)]


@pytest.mark.parametrize(
    "shape", [(2, 6, 6), *(pytest.param(shape, marks=pytest.mark.slow) for shape in SHAPES)]
)
def test_equals_the_convolution(shape):
    keys = jax.random.split(jax.random.key(sum(shape)), 3)
    x = jax.random.normal(keys[0], (*shape, 32))
    kernel, bias = jax.random.normal(keys[1], (3, 3, 32, 8)), jax.random.normal(keys[2], (8,))
    y = WinogradConvolution(transform_kernel(kernel), bias)(x)
    # By definition, in float64: the sum over nine shifts of the padded input.
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    _, height, width, _ = x.shape
    expected = np.asarray(bias, np.float64) + sum(
        padded[:, i : i + height, j : j + width] @ np.asarray(kernel[i, j], np.float64)
        for i in range(3)
        for j in range(3)
    )
    np.testing.assert_allclose(y, expected, atol=2e-6 * np.abs(expected).max())


def test_restored_kernel_is_the_original():
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 16, 8))
    np.testing.assert_allclose(restore_kernel(transform_kernel(kernel)), kernel, atol=1e-6)


def test_kernel_of_one_type():
    kernel = jnp.ones((3, 3, 2, 4), jnp.bfloat16)
    assert transform_kernel(kernel).dtype == jnp.bfloat16
    assert transform_kernel(kernel).shape == (16, 2, 4)
