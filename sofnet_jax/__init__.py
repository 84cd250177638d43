"""SoF-Net, "Stop or Forward" (WACV 2023), in JAX and Flax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sofnet_jax.inference.load import load as load

__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """`load`, whose module takes seconds to import, when somebody asks for it."""
    if name == "load":
        from sofnet_jax.inference.load import load

        return load
    raise AttributeError(f"module 'sofnet_jax' has no attribute '{name}'")
