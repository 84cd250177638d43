"""A command as its user types it, run in the process of the test: no program has to start."""

import contextlib
import io
import runpy
import sys
import warnings
from unittest import mock

from absl import flags
from absl.testing import flagsaver

from sofnet_jax.host import command_line


def call(name: str, *arguments: object) -> tuple[int, str, str]:
    """Run `python -m sofnet_jax.NAME`: exit code, standard output and standard error."""
    out, err, code = io.StringIO(), io.StringIO(), None
    with (
        _own_flags(),
        warnings.catch_warnings(),
        mock.patch.object(sys, "argv", [name, *map(str, arguments)]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        warnings.simplefilter("ignore", DeprecationWarning)  # as Python does
        warnings.filterwarnings("ignore", ".* found in sys.modules", RuntimeWarning)
        try:
            runpy.run_module(f"sofnet_jax.{name}", run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            code = ended.code
    return int(code or 0), out.getvalue(), err.getvalue()


@contextlib.contextmanager
def _own_flags():
    """Hides flags of commands imported before, for two may share a name; restores all values."""
    imported = {name: flags.FLAGS[name] for name in flags.FLAGS if _is_of_a_command(name)}
    for name in imported:
        delattr(flags.FLAGS, name)
    values = flagsaver.save_flag_values()
    try:
        yield
    finally:
        for name in filter(_is_of_a_command, list(flags.FLAGS)):
            delattr(flags.FLAGS, name)
        # What a library defined when the command imported it stays, as the library does.
        flagsaver.restore_flag_values(flagsaver.save_flag_values() | values)
        for name, flag in imported.items():
            flags.FLAGS[name] = flag


def _is_of_a_command(name: str) -> bool:
    """A flag that was hidden has lost its module; `--config.FIELD` is a flag, too."""
    module = flags.FLAGS.find_module_defining_flag(name) or "sofnet_jax"
    own = "sofnet_jax" in module and module != command_line.__name__
    return own or name.startswith("config.")


# Python that heeds SIGINT, which the background jobs of a shell inherit as ignored.
PYTHON = [
    sys.executable,
    "-c",
    "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL); "
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])",
]
