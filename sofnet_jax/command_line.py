"""How every command ends: a user's mistake is one line and an exit code, not a traceback."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import jax
from absl import app, flags, logging

from sofnet_jax.errors import UserError
from sofnet_jax.interruption import Interrupted

# A ResNet-50 takes a minute to compile; the second run of the same shapes takes none.
COMPILATION_CACHE = Path("~/.cache/sofnet_jax/xla")


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags, runs `main`, and exits: 1 after a mistake, 128 + n after signal n."""
    logging.set_verbosity(logging.WARNING)  # JAX, Orbax and grain narrate at the level below
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(COMPILATION_CACHE.expanduser()))
    try:
        app.run(main, flags_parser=_parse_flags)
    except UserError as error:
        _exit(f"error: {error}", 1)
    except Interrupted as interrupted:
        _exit(str(interrupted), interrupted.exit_code)
    except KeyboardInterrupt:
        _exit("interrupted", 130)


def refuse_arguments(argv: list[str]) -> None:
    """Raises UserError if anything but flags was given."""
    if len(argv) > 1:
        raise UserError(f"'{argv[1]}' is not a flag; write --name=value")


def _parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with the errors of configuration files and their fields as UserError."""
    try:
        return flags.FLAGS(argv)
    except (
        flags.Error,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
        OSError,
    ) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(" ".join(line.strip() for line in lines)) from error


def _exit(message: str, code: int) -> None:
    print(message, file=sys.stderr, flush=True)
    sys.exit(code)
