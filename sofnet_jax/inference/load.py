"""Load a trained network: `sofnet_jax.load(…)`."""

import os
from dataclasses import replace
from pathlib import Path

from sofnet_jax.data.video.canvas import MAX_BYTES
from sofnet_jax.data.views import Sampler
from sofnet_jax.host.errors import UserError
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.run.checkpoint import Which
from sofnet_jax.run.config import DTYPES, flatten_fields, get_config, read_fields
from sofnet_jax.run.fields import LARGEST_SIZE, MOST_FRAMES
from sofnet_jax.systems import tsn
from sofnet_jax.systems.early_exit import Rule
from sofnet_jax.systems.registry import create_system, find_system
from sofnet_jax.weights.load import create_shapes, initialise, load_weights


def load(
    source: str | os.PathLike,
    which: Which = "last",
    *,
    dtype: str | None = None,
    size: int | None = None,
    num_frames: int | None = None,
    variant: str = "",
) -> TrainedModel:
    """Load a trained network and compile it.

    Args:
        source: the folder of a run, a weight file, or hub:owner/name. The `config.json` of a run
            says how the network sees a video and when that ends; other weights take the defaults
            of `sofnet_jax.run.fields`.
        which: checkpoint of a run, the last or the best.
        dtype: precision of the stages, float32 or bfloat16; by default the device's fastest.
        size: side of the frames in pixels; by default the configuration's.
        num_frames: frames of a video; by default the configuration's.
        variant: of the defaults, such as "release" for weights of the authors.

    Raises:
        UserError: the source does not exist or cannot be used.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"dtype is '{dtype}'; choose one of {', '.join(DTYPES)}")
    source = os.fspath(source)
    config = Path(source).expanduser() / "config.json"
    is_run = config.exists()
    if is_run and variant:
        raise UserError(f"{source} is a run, with its own configuration; leave out '{variant}'")
    try:
        fields = read_fields(config) if is_run else flatten_fields(get_config(variant).to_dict())
    except ValueError as error:
        raise UserError(str(error)) from error
    given = {"data.size": size, "data.num_frames": num_frames}
    fields |= {name: value for name, value in given.items() if value is not None}
    size, num_frames = (fields[name] for name in given)
    _check_extent(size, num_frames)
    weights = load_weights(source, which)
    variables, report = initialise(create_shapes(weights.architecture), weights)
    if missing := [name for name in report.reinitialised if ".inner." not in name]:
        raise UserError(
            f"{source}: {report.reinitialised[missing[0]]}; take weights of a network that was "
            "trained to recognise actions"
        )
    notes = () if is_run else weights.notes  # the configuration of a run follows them already
    if not is_run and None in given.values():
        shown = f"{num_frames} frames of {size}×{size}"
        note = f"{source} does not say what it was trained on: shown {shown}; see num_frames, size"
        notes = (*notes, note)
    architecture = weights.architecture
    if isinstance(architecture, tsn.Architecture):
        architecture = replace(architecture, shift=fields["model.shift"])
    fields["model.system"] = find_system(architecture, fields["model.system"]).name
    system = create_system(fields, architecture=architecture)
    if system.num_frames not in (0, num_frames):
        raise UserError(
            f"num_frames is {num_frames}, but {source} has a classifier for each of "
            f"{system.num_frames} frames; leave it out"
        )
    sampler = Sampler(
        num_frames,
        size,
        short_side=0 if fields["data.source"] == "synthetic" else fields["data.short_side"],
        via=system.via,
    )
    network = system.deploy(variables, dtype=None if dtype is None else DTYPES[dtype])
    Recognizer(network).warm_up(size, size)
    classes = weights.classes or tuple(map(str, range(network.num_classes)))
    rule = Rule(fields["eval.threshold"], fields["eval.min_frames"])
    return TrainedModel(network, classes, sampler, rule, notes)


def _check_extent(size: int, num_frames: int) -> None:
    """Raise UserError for an input that does not fit in memory."""
    limits = ("size", size, LARGEST_SIZE), ("num_frames", num_frames, MOST_FRAMES)
    for name, value, most in limits:
        if not 1 <= value <= most:
            raise UserError(f"{name} is {value}; it must be a number from 1 to {most}")
    if 3 * num_frames * size**2 > MAX_BYTES:
        raise UserError(
            f"{num_frames} frames of {size}×{size} pixels take more than {MAX_BYTES >> 30} GB; "
            "lower size or num_frames"
        )
