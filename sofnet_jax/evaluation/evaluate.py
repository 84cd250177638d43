"""Exact evaluation: every video once, on any number of devices and processes."""

from collections.abc import Callable, Iterable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from sofnet_jax.data.batch import Batch
from sofnet_jax.host.errors import UserError
from sofnet_jax.parallel import devices
from sofnet_jax.run.predictions import Predictions
from sofnet_jax.systems.sofnet.network import Outputs, SoFNet


def create_predict_step(model: SoFNet) -> Callable:
    """`step(variables, batch) -> (frame logits, stop)`, deterministic, over all devices."""

    def step(variables: Any, batch: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        outputs = cast(Outputs, model.apply(variables, batch["frames"]))
        return outputs.frame_logits.astype(jnp.float32), outputs.decision.stop

    return devices.pmap_predict_step(step)


def predict_videos(
    step: Callable, variables: Any, batches: Iterable[Batch], ids: tuple[str, ...]
) -> Predictions:
    """Runs the network over all videos.

    The last batch is padded, and the padding dropped by its mask. A video that could not be read
    is left out of the predictions and named in their `errors`.

    Args:
        step: of `create_predict_step`.
        variables: parameters and statistics, on the host or replicated.
        batches: of this process; every process has equally many.
        ids: of all videos of the source, in its order.

    Raises:
        UserError: not one video could be read, or the network's scores are not finite.
    """
    rows: dict[str, list[np.ndarray]] = {}
    errors: dict[str, str] = {}
    pending = None
    for batch in tqdm(batches, "evaluate", unit="batch", leave=False, disable=None):
        outputs = step(variables, devices.put_batch({"frames": batch["frames"]}))
        for unreadable in batch["errors"]:
            errors |= unreadable
        _append(rows, pending)  # while the device works on this batch, the one before is fetched
        pending = batch, outputs
    _append(rows, pending)
    arrays = {name: devices.gather(np.concatenate(values)) for name, values in rows.items()}
    errors = devices.gather_dict(errors)
    order = np.argsort(arrays["index"], kind="stable")
    order = order[arrays["valid"][order]]
    if not len(order):
        reason = next(iter(errors.values()), "the source is empty")
        raise UserError(f"none of {len(ids)} videos could be read; the first: {reason}")
    finite = np.isfinite(arrays["logits"][order]).all((1, 2))
    if not finite.all():
        first = ids[arrays["index"][order][~finite][0]]
        raise UserError(f"the network's scores of {first} are not finite; the training diverged")
    return Predictions(
        ids=tuple(ids[i] for i in arrays["index"][order]),
        labels=arrays["labels"][order],
        frame_logits=arrays["logits"][order],
        stop=arrays["stop"][order],
        relevant=arrays["relevant"][order],
        total=len(ids),
        errors=errors,
    )


def _append(rows: dict[str, list[np.ndarray]], pending: tuple | None) -> None:
    if pending is None:
        return
    batch, (logits, stop) = pending
    values = {name: batch[name] for name in ("index", "valid", "labels", "relevant")}
    values["logits"] = _local(logits)
    values["stop"] = _local(stop)
    for name, value in values.items():
        rows.setdefault(name, []).append(np.asarray(value))


def _local(x: jax.Array) -> np.ndarray:
    """[devices, b, …] of this process to [devices·b, …]."""
    shards = sorted(x.addressable_shards, key=lambda s: s.index[0].start or 0)
    return np.concatenate([np.asarray(s.data)[0] for s in shards])
