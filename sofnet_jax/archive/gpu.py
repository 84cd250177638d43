"""A GPU for each of several processes of a machine."""

import fcntl
import os
import re
import tempfile
from pathlib import Path
from typing import IO

import jax

from sofnet_jax.host.errors import UserError

_held: list[IO] = []  # as long as this process lives


def take_device() -> None:
    """Chooses a GPU that no other process has chosen so, before JAX starts; on a CPU nothing.

    Raises UserError if there is none left.
    """
    devices = list_devices()
    if not devices or _held:
        return
    for place, device in enumerate(devices):
        path = Path(tempfile.gettempdir()) / f"sofnet_jax-{os.getuid()}-gpu-{device}"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        file = os.fdopen(descriptor, "w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        _held.append(file)
        jax.config.update("jax_cuda_visible_devices", str(place))
        return
    raise UserError(f"all {len(devices)} GPUs are taken by other workers; start no more than that")


def list_devices() -> list[str]:
    """The NVIDIA GPUs that this process may use, by number."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name for name in visible.split(",") if name and name != "-1"]
    found = (re.fullmatch(r"nvidia(\d+)", path.name) for path in Path("/dev").glob("nvidia*"))
    return sorted((match[1] for match in found if match), key=int)
