"""3×3 convolutions with fewer multiplications, after Winograd (Lavin and Gray, CVPR 2016)."""

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

# F(2×2, 3×3): a tile of 4×4 pixels gives 2×2 results with 16 multiplications instead of 36. It
# rounds like float32 sums of a few hundred terms; larger tiles lose digits.
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def transform_kernel(kernel: Float[Array, "3 3 c c2"]) -> Float[Array, "16 c c2"]:
    """G g Gᵀ, in the kernel's type; computed in float64, since it happens only once."""
    wide = np.asarray(kernel, np.float64)
    transformed = np.einsum("ai,bj,ijcd->abcd", _KERNEL, _KERNEL, wide)
    return jnp.asarray(transformed.reshape(16, *kernel.shape[2:]), kernel.dtype)


def restore_kernel(transformed: Float[Array, "16 c c2"]) -> Float[np.ndarray, "3 3 c c2"]:
    """The inverse of `transform_kernel`."""
    wide = np.asarray(transformed, np.float64).reshape(4, 4, *transformed.shape[1:])
    inverse = np.array([[1, 0, 0, 0], [0, 1, -1, 0], [0, 0, 0, 1]])
    return np.einsum("ia,jb,abcd->ijcd", inverse, inverse, wide).astype(transformed.dtype)


@flax.struct.dataclass
class WinogradConvolution:
    """A 3×3 convolution of stride 1; `kernel` comes from `transform_kernel`.

    On a CPU, XLA's convolution reaches half the speed of its matrix product. This takes less time
    than even the matrix product would for the plain convolution.
    """

    kernel: Float[Array, "16 c c2"]
    bias: Float[Array, "c2"]

    def __call__(self, x: Float[Array, "b h w c"]) -> Float[Array, "b h w c2"]:
        """The convolution, without the ReLU."""
        batch, height, width, channels = x.shape
        down, across = (height + 1) // 2, (width + 1) // 2  # tiles
        margins = (0, 0), (1, 2 * down - height + 1), (1, 2 * across - width + 1), (0, 0)
        x = jnp.pad(x, margins)
        rows = [x[:, i : i + 2 * down - 1 : 2] for i in range(4)]
        tiles = [
            part[:, :, j : j + 2 * across - 1 : 2] for part in _transform(rows) for j in range(4)
        ]
        inputs = [part for i in range(4) for part in _transform(tiles[4 * i : 4 * i + 4])]
        products = jax.lax.dot_general(
            jnp.stack(inputs).reshape(16, -1, channels), self.kernel, (((2,), (1,)), ((0,), (0,)))
        )
        m = products.reshape(4, 4, batch, down, across, -1)
        results = [jnp.stack(_untransform(part), 3) for part in _untransform(m)]
        y = jnp.stack(results, 2).reshape(batch, 2 * down, 2 * across, -1)
        return y[:, :height, :width] + self.bias


def _transform(d: list[Array]) -> list[Array]:
    """Bᵀ d for four rows or columns."""
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[1] - d[3]]


def _untransform(m: Float[Array, "4 *rest"]) -> list[Array]:
    """Aᵀ m for four rows or columns."""
    return [m[0] + m[1] + m[2], m[1] - m[2] - m[3]]
