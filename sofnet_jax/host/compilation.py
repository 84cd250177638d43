"""The persistent cache of compiled programs: compiling a ResNet-50 takes a minute."""

import functools
import os
from pathlib import Path

import jax

from sofnet_jax.host.command_line import say_note
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import require_place
from sofnet_jax.host.paths import expand

FOLDER = Path("~/.cache/sofnet_jax/xla")


def keep_compiled_programs(*, least_seconds: float | None = None) -> None:
    """Cache compiled programs in JAX_COMPILATION_CACHE_DIR, by default in `FOLDER` if possible.

    Programs that compile in less than `least_seconds` (JAX's default if None) are not cached.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", _find_folder())
    if least_seconds is not None:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", least_seconds)


@functools.cache
def _find_folder() -> str | None:
    """`FOLDER`; None, with a note, if it cannot be written to."""
    try:
        folder = expand(FOLDER)
        require_place(Path(folder, "program"))
    except UserError as error:
        problem = str(error)
    except OSError as error:
        problem = f"cannot write to {folder}: {error.strerror or error}"
    else:
        return folder
    say_note(f"compiled programs are not kept ({problem}); set JAX_COMPILATION_CACHE_DIR")
    return None
