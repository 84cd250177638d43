"""The size of the batches that pass a span together on an accelerator, as measured there."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import read_json, write_json
from sofnet_jax.inference.online import begin
from sofnet_jax.systems.base import Network, find_device
from sofnet_jax.systems.early_exit import NEVER, Watched, see

_SIZES = 32, 64, 128, 256
_REPEATS = 5
_FOLDER = "jax_compilation_cache_dir"
_SHARE = 0.5  # of the device's memory that the frames under way may take


def choose_batch_size(
    network: Network, shape: tuple[int, ...], sizes: Sequence[int] = _SIZES
) -> int:
    """Choose the batch size with the least time per frame, (h, w, 3), of those that fit.

    The choice is stored beside the compiled programs, for this device and network only.
    """
    path = _find_file(network, shape, sizes)
    if path and path.exists():
        try:
            size = read_json(path)["batch_size"]
        except (UserError, KeyError):  # measured again
            size = None
        if size in sizes:
            return size
    fitting = [size for size in sizes if _fits(network, shape, size)] or [min(sizes)]
    times = {size: _measure(network, shape, size) for size in fitting}
    best = min(times, key=lambda size: times[size])
    if path:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, {"batch_size": best, "milliseconds per frame": times})
        except OSError:
            pass  # measured again next time
    return best


def _find_file(network: Network, shape: tuple[int, ...], sizes: Sequence[int]) -> Path | None:
    """Where the size for this device and network is kept; None where nothing is."""
    folder = _find_folder()
    if folder is None:
        return None
    device = find_device(network)
    leaves, tree = jax.tree.flatten(network)
    kind = [device.platform, device.device_kind, _find_memory(device), jax.__version__]
    layers = [str(tree), [[str(leaf.dtype), leaf.shape] for leaf in leaves]]
    described = json.dumps([kind, layers, shape, list(sizes)])
    return folder / (f"batch_size-{hashlib.sha256(described.encode()).hexdigest()[:32]}.json")


def _find_folder() -> Path | None:
    folder = getattr(jax.config, _FOLDER)
    return Path(folder) if folder else None


def _find_memory(device: jax.Device) -> int | None:
    """Bytes of the device; None if it does not say."""
    return (device.memory_stats() or {}).get("bytes_limit")


def _fits(network: Network, shape: tuple[int, ...], size: int) -> bool:
    """Return True if the features of a full pool fit in their share of the device's memory."""
    memory = _find_memory(find_device(network))
    if memory is None:
        return True
    carried = jax.eval_shape(_run_all, network, *_create_batch(network, shape, 1))
    row = sum(np.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(carried))
    return bool(row * size * len(network.spans) < _SHARE * memory)


def _measure(network: Network, shape: tuple[int, ...], size: int) -> float:
    """Milliseconds of a frame that passes all spans in such a batch."""
    batch = _create_batch(network, shape, size)
    seconds = []
    for _ in range(1 + _REPEATS):  # the first compiles
        start = time.perf_counter()
        jax.block_until_ready(_run_all_jitted(network, *batch))
        seconds.append(time.perf_counter() - start)
    return 1000 * min(seconds[1:]) / size


def _create_batch(network: Network, shape: tuple[int, ...], size: int) -> tuple[Watched, Any]:
    state = begin(network, NEVER, np.full(size, network.architecture.num_frames or -1), shape)
    return state, jax.device_put(np.zeros((size, *shape), np.uint8), find_device(network))


def _run_all(network: Network, state: Watched, pixels: Any) -> list[Any]:
    """Every span on a batch, whatever was decided: what each leaves, and its state."""
    found: dict[int, Any] = {}
    settled = []
    for i, span in enumerate(network.spans):
        before = [j for j in found if i in network.spans[j].followers]
        found[i], own = see(span, state, pixels if span.looks else found[before[0]])
        settled.append(own)
    return [*found.values(), *settled]


_run_all_jitted = jax.jit(_run_all)
