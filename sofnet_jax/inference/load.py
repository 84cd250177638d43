"""Load a trained network: `sofnet_jax.load(…)`."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax

from sofnet_jax.data.video.canvas import MAX_BYTES
from sofnet_jax.data.views import Sampler
from sofnet_jax.host.errors import UserError, explain_unreadable
from sofnet_jax.host.paths import expand
from sofnet_jax.inference.choice import choose_engine
from sofnet_jax.inference.int8 import read_ranges
from sofnet_jax.inference.many import create_recognizer
from sofnet_jax.inference.model import TrainedModel
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.run.checkpoint import Which
from sofnet_jax.run.config import DTYPES, VARIANTS, flatten_fields, get_config, read_fields
from sofnet_jax.run.fields import INFERENCE_PRECISIONS, LARGEST_SIZE, MOST_FRAMES
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
    many: bool = False,
    engine: str = "jax",
) -> TrainedModel:
    """Load a trained network and compile it.

    Args:
        source: the folder of a run, a weight file, or hub:owner/name. The `config.json` of a run
            says how the network sees a video and when that ends; other weights take the defaults
            of `sofnet_jax.run.fields`.
        which: checkpoint of a run, the last or the best.
        dtype: precision of the stages, float32, bfloat16, or, in an engine and for a run that
            `sofnet_jax.quantize` was run on, int8; by default the device's fastest.
        size: side of the frames in pixels; by default the configuration's.
        num_frames: frames of a video; by default the configuration's.
        variant: of the defaults, such as "release" for weights of the authors.
        engine: what runs the layers: jax, onnxruntime, openvino, or auto, the fastest of those that
            are installed. The others run on the CPU.
        many: compile what `many.predict_videos` needs, in place of what the model's methods need.

    Raises:
        UserError: the source does not exist or cannot be used.
    """
    if dtype is not None and dtype not in INFERENCE_PRECISIONS:
        raise UserError(f"dtype is '{dtype}'; choose one of {', '.join(INFERENCE_PRECISIONS)}")
    source = os.fspath(source)
    config = Path(expand(source)) / "config.json"
    with explain_unreadable():
        is_run = config.exists()
    if is_run and variant:
        raise UserError(f"{source} is a run, with its own configuration; leave out '{variant}'")
    fields = read_fields(config) if is_run else {}
    weights = load_weights(source, which)
    digest = weights.digest if dtype == "int8" else ""
    name = weights.system.name
    if is_run:
        if "system" in weights.told and fields["model.system"] != name:
            raise UserError(
                f"{config} says model.system is {fields['model.system']}, but the checkpoint of "
                f"the run holds weights of {name}; take another copy of it"
            )
    else:
        fields = _create_fields(variant or (name if name in VARIANTS else ""))
    given = {"data.size": size, "data.num_frames": num_frames}
    fields |= {field: value for field, value in given.items() if value is not None}
    _check_extent(fields)
    # What the tensors do not tell; a source of ours tells it.
    told = {"shift": fields["model.shift"], "online": fields["frameexit.online"]}
    weights = replace(weights, told={**told, **weights.told})
    architecture = weights.architecture
    if not is_run and num_frames is None and architecture.num_frames:
        given["data.num_frames"] = fields["data.num_frames"] = architecture.num_frames
        _check_extent(fields)
    size, num_frames = fields["data.size"], fields["data.num_frames"]
    shapes = create_shapes(architecture, weights.system)
    variables, report = initialise(shapes, weights, system=weights.system)
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
    name = find_system(architecture, fields["model.system"]).name
    system = create_system(fields | {"model.system": name}, architecture=architecture)
    if system.architecture.num_frames not in (0, num_frames):
        raise UserError(
            f"num_frames is {num_frames}, but {source} has a classifier for each of "
            f"{system.architecture.num_frames} frames; leave it out"
        )
    sampler = Sampler(
        num_frames,
        size,
        short_side=0 if fields["data.source"] == "synthetic" else fields["data.short_side"],
        via=system.via,
    )
    if engine == "auto" and jax.default_backend() != "cpu":
        engine = "jax"  # the others run on the CPU
    # What other engines round, they round; int8 in JAX is refused below.
    plain = dtype if engine == "jax" and dtype != "int8" else "float32"
    network = system.deploy(variables, dtype=None if plain is None else DTYPES[plain])
    ranges = None
    if dtype == "int8" and engine != "jax":
        ranges = read_ranges(source, which, digest, len(network.spans))
    network, choice = choose_engine(network, engine, dtype or "float32", size, ranges)
    if many:
        create_recognizer(network).warm_up(size, size, num_frames)
    else:
        Recognizer(network).warm_up(size, size)
    classes = weights.classes or tuple(map(str, range(network.architecture.num_classes)))
    rule = Rule(fields["eval.threshold"], fields["eval.min_frames"])
    return TrainedModel(network, classes, sampler, rule, (*notes, choice) if choice else notes)


def _create_fields(variant: str) -> dict[str, Any]:
    """The defaults, varied. Raises UserError."""
    try:
        return flatten_fields(get_config(variant).to_dict())
    except ValueError as error:
        raise UserError(str(error)) from error


def _check_extent(fields: dict[str, Any]) -> None:
    """Raise UserError for an input that does not fit in memory."""
    size, num_frames = fields["data.size"], fields["data.num_frames"]
    limits = ("size", size, LARGEST_SIZE), ("num_frames", num_frames, MOST_FRAMES)
    for name, value, most in limits:
        if not 1 <= value <= most:
            raise UserError(f"{name} is {value}; it must be a number from 1 to {most}")
    if 3 * num_frames * size**2 > MAX_BYTES:
        raise UserError(
            f"{num_frames} frames of {size}×{size} pixels take more than {MAX_BYTES >> 30} GB; "
            "lower size or num_frames"
        )
