"""Compiled programs, which are kept: a ResNet-50 takes a minute, the second time none."""

import os
from pathlib import Path

import jax

FOLDER = Path("~/.cache/sofnet_jax/xla")


def keep_compiled_programs(*, least_seconds: float | None = None) -> None:
    """Keeps them in `FOLDER`, if the environment's JAX_COMPILATION_CACHE_DIR names no other.

    `least_seconds` is the time from which on compiling one is worth it, if not JAX's default.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(FOLDER.expanduser()))
    if least_seconds is not None:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least_seconds)
