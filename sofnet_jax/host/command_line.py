"""Running a command: a user's mistake ends it with one line and an exit code, no traceback."""

import ast
import errno
import functools
import io
import re
import sys
import textwrap
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from sofnet_jax.host.errors import DEFECT, MISTAKE, UserError, choose_exit_code, shorten
from sofnet_jax.host.paths import expand
from sofnet_jax.host.signals import Interrupted, repeating_interrupts, starting
from sofnet_jax.host.streams import lasting_streams, printing

# Defined here, since one process may import several commands.
CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "Configuration file, with variants after a colon, e.g. configs/videos.py:tsn. "
    "--config.FIELD=VALUE sets any of its fields.",
    lock_config=True,
)
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run or runs.")
SEEDS = flags.DEFINE_list("seeds", [], "Seeds, e.g. 0,1,2; default: that of the configuration.")
METHODS = flags.DEFINE_list(
    "methods",
    [],
    "Methods of report/ablations.py, e.g. sofnet,frameexit, or tables that show them.",
)
DATASET = flags.DEFINE_string("dataset", "", "Data set to select, if the runs are on several.")

# What the system refuses again and again, and what to do about it.
_REFUSALS = {
    errno.EACCES: "change its permissions, or give another path",
    errno.EPERM: "change its permissions, or give another path",
    errno.ELOOP: "give a path whose links lead to a file",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ENOTDIR: "give a path that leads through folders",
}

HELP = {"-h", "-?", "--help", "-help", "--helpshort", "--helpfull"}


def run(main: Callable[[list[str]], None]) -> None:
    """Parse flags, run `main` and exit with a code of `errors`, or 128 + n after signal n.

    `--help` prints the documentation of `main`'s module, usage first, and the flags it declares.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names may not be valid text
            stream.reconfigure(errors="backslashreplace")
    with lasting_streams(), repeating_interrupts():
        _run(main)


def _run(main: Callable[[list[str]], None]) -> None:
    logging.set_verbosity(logging.WARNING)  # JAX, Orbax and grain are verbose at INFO
    try:
        if HELP.isdisjoint(sys.argv[1:]):
            app.run(functools.partial(_start, main), flags_parser=_parse_flags)
        else:
            with printing():
                print(_create_help(main.__globals__["__doc__"]))
    except UserError as error:
        _exit(f"error: {error}", error.exit_code)
    except Interrupted as interrupted:
        _exit(str(interrupted), interrupted.exit_code)
    except KeyboardInterrupt as interrupt:
        _exit("interrupted", choose_exit_code(interrupt))
    except Exception as error:
        if isinstance(error, OSError) and error.filename and error.errno in _REFUSALS:
            _exit(f"error: {error.filename}: {error.strerror}; {_REFUSALS[error.errno]}", MISTAKE)
        traceback.print_exc()
        sys.exit(DEFECT)


def _start(main: Callable[[list[str]], None], argv: list[str]) -> None:
    # Imports JAX, which takes seconds: later than help and mistakes in flags.
    with starting():
        from sofnet_jax.host.compilation import keep_compiled_programs

        keep_compiled_programs()
    main(argv)


def _create_help(documentation: str) -> str:
    """Usage, the remaining documentation, and the flags of the running command."""
    title, usage, *rest = documentation.strip().split("\n\n")
    rows = ["flags:"]
    for flag in _list_flags():
        choices = getattr(flag.parser, "enum_values", None)
        left = f"--{flag.name}={'|'.join(choices) if choices else flag.name.upper()}"
        left = f"--[no]{flag.name}" if flag.boolean else left
        text = re.sub("^<.*?>: ", "", flag.help)  # absl puts an enum's choices there
        default = ",".join(flag.value) if isinstance(flag.value, list) else flag.value
        text += "" if default in (None, False, "") else f" (default: {default})"
        rows.append(textwrap.fill(f"  {left:<24}  {text}", 99, subsequent_indent=" " * 28))
    return "\n\n".join([usage, title, *rest, "\n".join(rows)])


def _list_flags() -> list[Any]:
    """The flags that the running command defines or declares as its own."""
    return flags.FLAGS.get_key_flags_for_module(sys.argv[0])


def refuse_arguments(argv: list[str]) -> None:
    """Raise UserError if there are arguments besides flags."""
    if len(argv) > 1:
        raise UserError(f"'{argv[1]}' is not a flag; write --name=value")


def read_seeds(default: int) -> list[int]:
    """The distinct numbers of --seeds, or the default. Raises UserError."""
    if not all(text.isdecimal() for text in SEEDS.value):
        raise UserError(f"--seeds is {','.join(SEEDS.value)}; give numbers such as 0,1,2")
    return list(dict.fromkeys(map(int, SEEDS.value))) or [default]


def _parse_flags(argv: list[str]) -> list[str]:
    """absl's parser, which raises UserError, also for configuration files and their fields."""
    argv = list(map(_expand_config, argv))
    _require_files(argv)
    try:
        arguments = flags.FLAGS(argv)
        hasattr(flags.FLAGS["config"].value, "lock")  # raises an OSError of the file
    except (SyntaxError, ImportError) as error:
        raise UserError(f"--config: not a configuration file ({error})") from error
    except Exception as error:  # a configuration file may raise anything
        if isinstance(error, flags.IllegalFlagValueError):
            _require_config()  # None counts as missing
        cause, place = _find_cause(error)
        raise UserError(place + _explain(cause, [] if place else argv)) from error
    _require_config()
    return arguments


def _expand_config(argument: str) -> str:
    """The argument with the home folder for `~`, which shells leave alone after `--config=`."""
    name, equals, value = argument.partition("=")
    return name + equals + expand(value) if name.lstrip("-") == "config" else argument


def _require_config() -> None:
    """Raise UserError if the configuration file returns no configuration."""
    flag = flags.FLAGS["config"]
    if flag.present and not isinstance(flag.value, ConfigDict):
        value = shorten(repr(flag.value), 80)
        raise UserError(
            f"--config: get_config returned {value}; return what create_default() returns, changed"
        )


def _find_cause(error: Exception) -> tuple[BaseException, str]:
    """The error that the configuration file raised, and where; the given one if it raised none."""
    cause: BaseException | None = error
    while cause:
        for frame, line in reversed(list(traceback.walk_tb(cause.__traceback__))):
            if frame.f_globals.get("__name__") == "config_config":  # as config_flags calls it
                return cause, f"--config: {frame.f_code.co_filename}:{line}: "
        cause = cause.__cause__ or cause.__context__
    return error, ""


def _require_files(argv: list[str]) -> None:
    """Raise UserError if `--config` does not name a file or `--workdir` is empty."""
    for argument, following in zip(argv, [*argv[1:], ""], strict=True):
        name, equals, value = argument.partition("=")
        name, value = name.lstrip("-"), value if equals else following
        if not argument.startswith("-") or name not in ("config", "workdir"):
            continue
        if not value:
            raise UserError(f"--{name} is missing; see --help")
        path = value.partition(":")[0]
        if name == "config" and not Path(path).is_file():
            raise UserError(f"--config: no file {path}; the repository's configs/ has examples")


def _explain(error: BaseException, argv: list[str]) -> str:
    """A user's mistake in one line, from the messages of absl and ml_collections."""
    if isinstance(error, flags.UnrecognizedFlagError):
        names = [flag.name for flag in _list_flags()]
        close = get_close_matches(error.flagname, names, 1)
        hint = f"; did you mean --{close[0]}?" if close else "; see --help"
        return f"--{error.flagname}: no such flag{hint}"
    text = str(error).strip()
    if re.fullmatch(r"([\"']).*\1", text):  # a KeyError's text is a literal
        text = str(ast.literal_eval(text))
    lines = [line.strip() for line in text.splitlines()] or [type(error).__name__]
    if "Traceback (most recent call last):" in text:  # raised in a configuration file
        return "--config: " + re.sub(r"^\w+: ", "", lines[-1])
    if missing := re.search(r"flag --(\w+)=None: Flag --\w+ must have a value", text):
        return f"--{missing[1]} is missing; see --help"
    if "has no attribute 'get_config'" in text:
        return "--config: not a configuration file (it defines no get_config)"
    if wrong := re.search(r"flag (\S+)=(.*): invalid literal for int", text):
        return f"{wrong[1]}: '{wrong[2]}' is not a whole number"
    if unknown := re.match(
        r"(?:Key \"|')?(\w+)('?$|\" does not)", lines[0]
    ):  # a field of the configuration
        flag = next((a.partition("=")[0] for a in argv if f".{unknown[1]}" in a), unknown[1])
        similar = re.search(r'Did you mean "(\w+)"', text)
        return f"{flag}: no such field" + (f"; did you mean {similar[1]}?" if similar else "")
    return " ".join(lines)


def _exit(message: str, code: int) -> None:
    print(make_printable(message), file=sys.stderr, flush=True)
    sys.exit(code)


def say_note(text: str) -> None:
    """Print a note to standard error."""
    print(f"note: {make_printable(text)}", file=sys.stderr, flush=True)


def make_printable(text: str) -> str:
    """Escape characters that would move the cursor or change colours of a terminal."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
