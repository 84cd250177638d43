"""Loads a trained network: `sofnet_jax.load(…)`."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sofnet_jax.data.video.canvas import MAX_BYTES
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.run.checkpoint import Which
from sofnet_jax.run.config import DTYPES, flatten_fields, get_config, read_given_fields
from sofnet_jax.run.fields import LARGEST_SIZE, MOST_FRAMES
from sofnet_jax.systems.early_exit import Rule
from sofnet_jax.systems.sofnet.folded import deploy
from sofnet_jax.systems.sofnet.released import RELEASED_SIDE, Released
from sofnet_jax.weights.load import Weights, create_shapes, initialise, load_weights


def load(
    source: str | os.PathLike,
    which: Which = "last",
    *,
    dtype: str | None = None,
    size: int | None = None,
    num_frames: int | None = None,
    variant: str = "",
) -> TrainedModel:
    """Loads a trained network and compiles it.

    Args:
        source: the folder of a run, a file of weights, or hub:owner/name. A run's
            `config.json` says how the network sees a video and when that ends; for other weights
            the defaults of `sofnet_jax.run.fields` do.
        which: checkpoint of a run: the last or the best.
        dtype: of the stages' computation, float32 or bfloat16; by default what suits the device,
            float32 on a CPU.
        size: side of the frames in pixels, if not what the configuration says.
        num_frames: to look at, if not what the configuration says.
        variant: of the defaults, such as "release" for weights of the authors.

    Raises:
        UserError: nothing there, or nothing that can be used.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"dtype is '{dtype}'; choose one of {', '.join(DTYPES)}")
    fields = _read_fields(os.fspath(source), variant)
    given = {"data.size": size, "data.num_frames": num_frames}
    fields |= {name: value for name, value in given.items() if value is not None}
    try:
        released = Released(**_take_group(fields, "released"))
        shift = fields["model.shift"]
        viewing = {
            "num_frames": fields["data.num_frames"],
            "size": fields["data.size"],
            "short_side": 0 if fields["data.source"] == "synthetic" else fields["data.short_side"],
            "via": RELEASED_SIDE if released.crops else 0,
            "rule": Rule(fields["eval.threshold"], fields["eval.min_frames"]),
        }
    except (KeyError, TypeError) as error:
        raise UserError(f"{source}: its config.json lacks or has too much: {error}") from error
    _check_extent(viewing["size"], viewing["num_frames"])
    weights = load_weights(os.fspath(source), which)
    network = deploy(
        replace(weights.architecture, shift=shift),
        _fill(weights),
        dtype=None if dtype is None else DTYPES[dtype],
        released=released,
    )
    model = TrainedModel(
        network=network,
        classes=weights.classes or _number_classes(network.architecture.num_classes),
        notes=() if _is_run(source) else weights.notes,  # a run is followed as it is
        **viewing,
    )
    if not _is_run(source) and (size is None or num_frames is None):
        shown = f"{model.num_frames} frames of {model.size}×{model.size}"
        note = f"{source} does not tell what it was trained on: shown {shown}; see num_frames, size"
        model = replace(model, notes=(*model.notes, note))
    Recognizer(model.network).warm_up(model.size, model.size)
    return model


def _is_run(source: str | os.PathLike) -> bool:
    return (Path(source).expanduser() / "config.json").exists()


def _read_fields(source: str, variant: str) -> dict[str, Any]:
    """The configuration of a run, by dotted names; the defaults of weights that come without."""
    if not _is_run(source):
        try:
            return flatten_fields(get_config(variant).to_dict())
        except ValueError as error:
            raise UserError(str(error)) from error
    if variant:
        raise UserError(f"{source} is a run, with its own configuration; leave out '{variant}'")
    fields = read_given_fields(Path(source).expanduser() / "config.json")
    return {"model.shift": ""} | fields  # a run of before there was this field


def _take_group(fields: Mapping[str, Any], group: str) -> dict[str, Any]:
    """The fields of a group by their own names. Raises KeyError if there are none."""
    prefix = f"{group}."
    taken = {name[len(prefix) :]: fields[name] for name in fields if name.startswith(prefix)}
    if not taken:
        raise KeyError(group)
    return taken


def _check_extent(size: int, num_frames: int) -> None:
    """Raises UserError for a network's input that no memory holds."""
    for name, value, most in (
        ("size", size, LARGEST_SIZE),
        ("num_frames", num_frames, MOST_FRAMES),
    ):
        if not 1 <= value <= most:
            raise UserError(f"{name} is {value}; it must be a number from 1 to {most}")
    if 3 * num_frames * size**2 > MAX_BYTES:
        raise UserError(
            f"{num_frames} frames of {size}×{size} pixels take more than {MAX_BYTES >> 30} GB; "
            "lower size or num_frames"
        )


def _fill(weights: Weights) -> Any:
    """The variables of the weights' network. Raises UserError if some are missing or damaged."""
    variables, report = initialise(create_shapes(weights.architecture), weights)
    if missing := [name for name in report.reinitialised if ".inner." not in name]:
        raise UserError(
            f"{weights.source}: {report.reinitialised[missing[0]]}; to recognise anything, take "
            "weights that were trained to"
        )
    return variables


def _number_classes(count: int) -> tuple[str, ...]:
    return tuple(map(str, range(count)))
