"""Predictions as a file, from which metrics can be computed again."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Float, Int

from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import read_arrays, write_whole
from sofnet_jax.systems.base import UNDECIDED, Action, Pooling

# The kind and the dimensions of each array; equal letters are equal sizes.
_ARRAYS = {
    "ids": ("U", "v"),
    "labels": ("f", "vn"),
    "logits": ("f", "vsn"),
    "time": ("i", "vs"),
    "action": ("i", "vs"),
    "relevant": ("f", "vt"),
    "total": ("i", ""),
    "errors": ("U", ""),
    "pooling": ("U", ""),
    "names": ("U", "a"),
    "uses": ("b", "a"),
    "answers": ("b", "a"),
}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a system did with v videos, in the order of their source.

    Attributes:
        ids: the videos that were evaluated.
        labels: multi-hot.
        logits: of every step, whether it counts or not.
        time: the frame that each step looked at.
        action: what was done with it, as an index of `actions`; -1: the video had ended.
        relevant: of every frame: 1 inside the annotated action, 0 outside; NaN: unknown.
        total: number of videos in the source.
        errors: the reason for each video that was not evaluated, by id.
        actions: what can be done with a frame.
        pooling: how logits become an answer.
    """

    ids: tuple[str, ...]
    labels: Float[np.ndarray, "v n"]
    logits: Float[np.ndarray, "v s n"]
    time: Int[np.ndarray, "v s"]
    action: Int[np.ndarray, "v s"]
    relevant: Float[np.ndarray, "v t"]
    total: int
    errors: dict[str, str]
    actions: tuple[Action, ...]
    pooling: Pooling

    @property
    def num_frames(self) -> int:
        """T, frames of a video."""
        return self.relevant.shape[1]


def write_predictions(path: Path, predictions: Predictions) -> None:
    """Writes an .npz, whole or not at all: the fields of `Predictions`, `errors` as JSON text."""
    fields = {**vars(predictions), "errors": json.dumps(predictions.errors)}
    actions = fields.pop("actions")
    arrays = {name: np.asarray(value) for name, value in fields.items()}
    arrays["names"] = np.array([action.name for action in actions], "U")
    arrays["uses"] = np.array([action.uses for action in actions], bool)
    arrays["answers"] = np.array([action.answers for action in actions], bool)
    for name, (kind, _) in _ARRAYS.items():
        if kind == "f":
            arrays[name] = arrays[name].astype(np.float32)
    with write_whole(path) as partial, partial.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read_predictions(path: Path) -> Predictions:
    """The predictions of a run.

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
    parts = (arrays.pop(name).tolist() for name in ("names", "uses", "answers"))
    return Predictions(
        **arrays
        | {
            "ids": tuple(arrays["ids"].tolist()),
            "total": int(arrays["total"]),
            "pooling": str(arrays["pooling"]),
            "actions": tuple(map(Action, *parts)),
        }
    )


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
    _check_steps(arrays)
    ids = arrays["ids"]
    if len(set(ids.tolist())) < len(ids) or not arrays["labels"].any():
        raise ValueError("videos are not distinct, or have no labels")


def _check_steps(arrays: Mapping[str, np.ndarray]) -> None:
    action, time = arrays["action"], arrays["time"]
    if not action.size or action.min() < UNDECIDED or action.max() >= len(arrays["names"]):
        raise ValueError("there are unknown actions")
    if ((action[:, :-1] == UNDECIDED) & (action[:, 1:] != UNDECIDED)).any():
        raise ValueError("a video goes on after its end")
    if (action[:, 0] == UNDECIDED).any():
        raise ValueError("a video has no steps")
    if time.min() < 0 or time.max() >= arrays["relevant"].shape[1]:
        raise ValueError("there are unknown frames")
    if str(arrays["pooling"]) not in get_args(Pooling):
        raise ValueError("unknown pooling")
