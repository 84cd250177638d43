"""SoF-Net, "Stop or Forward" (WACV 2023), in JAX and Flax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sofnet_jax.inference.load import load as load

__all__ = ["load"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import `load` when it is first used: its module takes seconds to import."""
    if name != "load":
        raise AttributeError(f"module 'sofnet_jax' has no attribute '{name}'")
    from sofnet_jax.inference.load import load

    return load
