"""The persistent cache of compiled programs: compiling a ResNet-50 takes a minute."""

import os
from pathlib import Path

import jax

FOLDER = Path("~/.cache/sofnet_jax/xla")


def keep_compiled_programs(*, least_seconds: float | None = None) -> None:
    """Cache compiled programs in JAX_COMPILATION_CACHE_DIR, by default in `FOLDER`.

    Programs that compile in less than `least_seconds` (JAX's default if None) are not cached.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(FOLDER.expanduser()))
    if least_seconds is not None:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least_seconds)
