"""The choice of the engine that runs a network's layers."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from sofnet_jax.engines.base import Ranges
from sofnet_jax.engines.registry import ENGINES, NAMES, use_engine
from sofnet_jax.host.errors import UserError, first_line
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.systems.base import Network

_REPEATS = 3


def choose_engine(
    network: Network,
    name: str,
    dtype: str,
    size: int,
    ranges: Sequence[Ranges | None] | None = None,
) -> tuple[Network, str]:
    """The network in the engine of a name; `auto` is the fastest one that works here.

    Args:
        network: in JAX, in float32 if `name` is not "jax".
        name: of `registry.NAMES`.
        dtype: precision of the layers.
        size: side of the frames in pixels.
        ranges: for int8, of the activations of every span.

    Returns:
        The network, and what was chosen and why, in words; "" if there was nothing to choose.

    Raises:
        UserError: no such engine, one that is not installed, or one that fails.
    """
    if name not in NAMES:
        raise UserError(f"engine is '{name}'; choose one of {', '.join(NAMES)}")
    if name == "jax":
        if dtype == "int8":
            engines = " or ".join(f"--engine={engine}" for engine in ENGINES)
            raise UserError(f"JAX does not compute in int8; give {engines}")
        return network, ""
    if name != "auto":
        moved = use_engine(network, name, dtype, ranges)
        _measure(moved, name, size)
        return moved, ""
    networks = {"jax": network} if np.dtype(dtype) == network.dtype else {}
    times: dict[str, float] = {}
    reasons = [] if networks else ["jax was left out: it does not use this type's instructions"]
    for engine in (*ENGINES, *networks):
        try:
            moved = networks.get(engine) or use_engine(network, engine, dtype, ranges)
            times[engine] = _measure(moved, engine, size)
            networks[engine] = moved
        except UserError as error:
            reasons.append(str(error))
    if not times:
        raise UserError("; ".join(reasons))
    best = min(times, key=lambda engine: times[engine])
    return networks[best], _describe(best, dtype, times, reasons)


def _measure(network: Network, engine: str, size: int) -> float:
    """The seconds that all spans take for a frame. Raises UserError if the engine fails."""
    recognizer, seconds = Recognizer(network), []
    try:
        recognizer.warm_up(size, size)
        for _ in range(_REPEATS):
            start = time.perf_counter()
            recognizer.warm_up(size, size)
            seconds.append(time.perf_counter() - start)
    except Exception as error:  # each has exceptions of its own
        raise UserError(f"the engine {engine} failed: {first_line(error)}") from error
    return min(seconds)


def _describe(best: str, dtype: str, times: Mapping[str, float], reasons: list[str]) -> str:
    others = [
        f"{engine} takes {times[engine] / times[best]:.2f} × as long"
        for engine in sorted(times, key=lambda engine: times[engine])
        if engine != best
    ]
    return f"engine: {best}, {dtype}" + "".join(f"; {text}" for text in [*others, *reasons])
