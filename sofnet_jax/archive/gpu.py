"""One GPU for each of several processes on a machine."""

import os
import re
import tempfile
from pathlib import Path
from typing import IO

import jax

from sofnet_jax.host.errors import UserError
from sofnet_jax.host.lock import try_lock

_held: list[IO] = []  # locked as long as this process lives


def take_gpu() -> None:
    """Reserve a GPU for this process, before JAX starts; does nothing without GPUs.

    Raises UserError if other processes have reserved all of them.
    """
    gpus = list_gpus()
    if not gpus or _held:
        return
    for place, gpu in enumerate(gpus):
        path = Path(tempfile.gettempdir()) / f"sofnet_jax-{os.getuid()}-gpu-{gpu}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        file = os.fdopen(descriptor, "w")
        if try_lock(file):
            _held.append(file)
            jax.config.update("jax_cuda_visible_devices", str(place))
            return
        file.close()
    raise UserError(f"other workers use all {len(gpus)} GPUs; start at most one worker per GPU")


def list_gpus() -> list[str]:
    """The NVIDIA GPUs that this process may use, by number or identifier."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name and name != "-1"]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)
