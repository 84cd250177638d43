"""The program `sofnet`, also `python -m sofnet_jax`: every command of this package."""

import difflib
import runpy
import sys

from sofnet_jax import __version__
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.streams import printing

COMMANDS = {
    "main": "train or evaluate a network",
    "predict": "recognise actions in videos, streams and archives",
    "prepare": "prepare a data set for fast training, or inspect one",
    "convert": "convert weights between file formats",
    "export": "write a trained network as one program, for ONNX or for JAX alone",
    "quantize": "find on training frames what engines need to compute a run in int8",
    "calibrate": "choose the rule of early exit that saves most within a loss of accuracy",
    "compare": "train TSN and SoF-Net on the same budget and compare them",
    "sweep": "train several methods with several seeds",
    "report": "reproduce the paper's tables and figures from trained runs",
    "benchmark": "measure training, reading and inference",
}


def run() -> None:
    """Run the command that the first argument names, as `python -m sofnet_jax.NAME` would."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in COMMANDS:
        del sys.argv[1]
        runpy.run_module(f"sofnet_jax.{name}", run_name="__main__", alter_sys=True)
    elif name == "--version":
        _print(f"sofnet {__version__}")
    elif name in ("-h", "--help"):
        lines = ["usage: sofnet COMMAND …", "example: sofnet predict --help", "", "commands:"]
        lines += [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
        _print("\n".join(lines))
    else:
        close = difflib.get_close_matches(name, COMMANDS, 1, 0)[0]
        sys.exit(f"error: no command '{name}'; did you mean {close}?")


def _print(text: str) -> None:
    try:
        with printing():
            print(text)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    run()
