"""Predictions as a file, from which metrics can be computed again."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import read_arrays, write_whole

# The kind and the dimensions of each array; equal letters are equal sizes.
_ARRAYS = {
    "ids": ("U", "v"),
    "labels": ("f", "vn"),
    "frame_logits": ("f", "vtn"),
    "stop": ("i", "vt"),
    "relevant": ("f", "vt"),
    "total": ("i", ""),
    "errors": ("U", ""),
    "gate_names": ("U", "k"),
}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """The outputs of a network for v videos, in the order of their source."""

    ids: tuple[str, ...]  # the videos that were evaluated
    labels: Float[np.ndarray, "v n"]  # multi-hot
    frame_logits: Float[np.ndarray, "v t n"]  # z_t of every frame, kept or not
    stop: Int[np.ndarray, "v t"]  # index of the gate that stopped the frame; k, their number: kept
    relevant: Float[np.ndarray, "v t"]  # 1 inside the annotated action, 0 outside; NaN: unknown
    total: int  # number of videos in the source
    errors: dict[str, str]  # the reason for each video that was not evaluated, by id


def write_predictions(path: Path, predictions: Predictions, gate_names: tuple[str, ...]) -> None:
    """Writes an .npz, whole or not at all: the fields of `Predictions`, `errors` as JSON text."""
    fields = vars(predictions) | {"errors": json.dumps(predictions.errors)}
    arrays = {name: np.asarray(value) for name, value in fields.items()}
    arrays["gate_names"] = np.array(gate_names, "U")
    for name, (kind, _) in _ARRAYS.items():
        if kind == "f":
            arrays[name] = arrays[name].astype(np.float32)
    with write_whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_predictions(path: Path) -> tuple[Predictions, tuple[str, ...]]:
    """The predictions and the names of the gates.

    Raises:
        UserError: the file is missing, damaged or of another kind.
    """
    try:
        arrays: dict[str, Any] = dict(read_arrays(path, _ARRAYS))
        _check(arrays)
        arrays["errors"] = dict(json.loads(str(arrays["errors"])))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # a damaged or hostile file makes the reader raise anything
        raise UserError(
            f"{path} is damaged or holds no predictions; write it again with --mode=evaluate"
        ) from error
    gate_names = tuple(arrays.pop("gate_names").tolist())
    scalars = {"ids": tuple(arrays["ids"].tolist()), "total": int(arrays["total"])}
    return Predictions(**arrays | scalars), gate_names


def _check(arrays: Mapping[str, np.ndarray]) -> None:
    """Raises ValueError unless the arrays can be `Predictions`."""
    sizes: dict[str, int] = {}
    for name, (kind, dimensions) in _ARRAYS.items():
        array = arrays[name]
        if array.dtype.kind != kind:
            raise ValueError(f"'{name}' is of another type")
        expected = tuple(
            sizes.setdefault(d, size) for d, size in zip(dimensions, array.shape, strict=False)
        )
        if array.ndim != len(dimensions) or array.shape != expected:
            raise ValueError(f"'{name}' is of another shape")
        if kind == "f" and name != "relevant" and not np.isfinite(array).all():
            raise ValueError(f"'{name}' is not finite")
    stop, ids = arrays["stop"], arrays["ids"]
    if not stop.size or stop.min() < 0 or stop.max() > len(arrays["gate_names"]):
        raise ValueError("frames stop where there is no gate")
    if len(set(ids.tolist())) < len(ids) or not arrays["labels"].any():
        raise ValueError("videos are not distinct, or have no labels")
