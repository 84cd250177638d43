"""How every command ends: a user's mistake is one line and an exit code, not a traceback."""

import ast
import io
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from sofnet_jax.host.compilation import keep_compiled_programs
from sofnet_jax.host.errors import DEFECT, UserError, choose_exit_code
from sofnet_jax.host.signals import Interrupted

# Defined once, for one process may import several commands.
CONFIG = config_flags.DEFINE_config_file("config", None, "Configuration.", lock_config=True)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run, or of the runs.")
SEEDS = flags.DEFINE_list("seeds", [], "Seeds to average over; default: that of the configuration.")
DATASET = flags.DEFINE_string("dataset", "", "Data set of the runs, if there are several.")


def run(main: Callable[[list[str]], None]) -> None:
    """Parses the flags, runs `main`, and exits: with a code of `errors`, 128 + n after signal n."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names of files may be no text, or not in Latin-1
            stream.reconfigure(errors="backslashreplace")
    logging.set_verbosity(logging.WARNING)  # JAX, Orbax and grain narrate at the level below
    keep_compiled_programs()
    try:
        app.run(main, flags_parser=_parse_flags)
    except UserError as error:
        _exit(f"error: {error}", error.exit_code)
    except Interrupted as interrupted:
        _exit(str(interrupted), interrupted.exit_code)
    except KeyboardInterrupt as interrupt:
        _exit("interrupted", choose_exit_code(interrupt))
    except Exception:
        traceback.print_exc()
        sys.exit(DEFECT)


def refuse_arguments(argv: list[str]) -> None:
    """Raises UserError if anything but flags was given."""
    if len(argv) > 1:
        raise UserError(f"'{argv[1]}' is not a flag; write --name=value")


def read_seeds(default: int) -> list[int]:
    """The distinct numbers of --seeds, or the default. Raises UserError."""
    if not all(text.isdecimal() for text in SEEDS.value):
        raise UserError(f"--seeds is {','.join(SEEDS.value)}; give numbers such as 0,1,2")
    return list(dict.fromkeys(map(int, SEEDS.value))) or [default]


def _parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, with the errors of configuration files and their fields as UserError."""
    _require_files(argv)
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
        raise UserError(_explain(error, argv)) from error


def _require_files(argv: list[str]) -> None:
    """Raises UserError if `--config` names no file or `--workdir` nothing."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        name, value = name.lstrip("-"), value if equals else following
        if not argument.startswith("-") or name not in ("config", "workdir"):
            continue
        if not value:
            raise UserError(f"--{name} is missing")
        path = value.partition(":")[0]
        if name == "config" and not Path(path).is_file():
            raise UserError(f"--config: no file {path}; configs/ holds some")


def _explain(error: Exception, argv: list[str]) -> str:
    """What a user did wrong, in one line, from what absl and ml_collections say of it."""
    text = str(error).strip()
    if re.fullmatch(r"([\"']).*\1", text):  # of a KeyError, whose text is a literal
        text = str(ast.literal_eval(text))
    lines = [line.strip() for line in text.splitlines()] or [type(error).__name__]
    if "Traceback (most recent call last):" in text:  # raised in the file of a configuration
        return "--config: " + re.sub(r"^\w+: ", "", lines[-1])
    if missing := re.search(r"flag --(\w+)=None: Flag --\w+ must have a value", text):
        return f"--{missing[1]} is missing"
    if unknown := re.match(r"'?(\w+)'?$", lines[0]):  # a field of the configuration
        flag = next((a.partition("=")[0] for a in argv if f".{unknown[1]}" in a), unknown[1])
        close = re.search(r'Did you mean "(\w+)"', text)
        return f"{flag}: no such field" + (f"; did you mean {close[1]}?" if close else "")
    return " ".join(lines)


def _exit(message: str, code: int) -> None:
    print(make_printable(message), file=sys.stderr, flush=True)
    sys.exit(code)


def make_printable(text: str) -> str:
    """The text with codes in place of what would move the cursor or change colours."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
