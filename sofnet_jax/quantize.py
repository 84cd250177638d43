"""Find on training frames what engines need to compute a run in int8.

usage: python -m sofnet_jax.quantize RUN [FLAGS]
example: python -m sofnet_jax.quantize runs/mine

RUN is the folder of a run. Training videos pass its network in float32, as in evaluation, and the
ranges of the activations go to RUN/int8.json. Then `predict --engine=openvino --dtype=int8` and
--engine=onnxruntime compute the layers in int8 (docs/onnx.md). The videos are those that the
config.json of the run names. Rerun the command after more training.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import jax
import numpy as np
from absl import flags
from jaxtyping import UInt8

from sofnet_jax.data.pipeline import create_eval_iterator
from sofnet_jax.data.source import Source
from sofnet_jax.data.views import Sampler
from sofnet_jax.engines.network import restore_network
from sofnet_jax.host import command_line
from sofnet_jax.host.command_line import say_note
from sofnet_jax.host.errors import UserError, explain_unreadable
from sofnet_jax.host.files import require_place
from sofnet_jax.host.paths import expand
from sofnet_jax.inference.int8 import FILE, compute_ranges, write_ranges
from sofnet_jax.inference.load import load
from sofnet_jax.run.checkpoint import Which
from sofnet_jax.run.config import create_default, read_fields
from sofnet_jax.training.experiment import create_sources
from sofnet_jax.weights.load import load_weights

WHICH = flags.DEFINE_enum("which", "last", ["last", "best"], "Checkpoint of the run.")
VIDEOS = flags.DEFINE_integer("videos", 64, "Training videos to look at.", 1)


def main(argv: list[str]) -> None:
    """Find the ranges and write them."""
    if len(argv) != 2:
        raise UserError("give one name: python -m sofnet_jax.quantize RUN")
    jax.config.update("jax_platforms", "cpu")  # as the engines
    folder = Path(expand(argv[1]))
    with explain_unreadable():
        if not (folder / "config.json").exists():
            raise UserError(f"{folder} is not the folder of a run (it has no config.json)")
    which = cast(Which, WHICH.value)
    digest = load_weights(argv[1], which).digest
    model = load(argv[1], which, dtype="float32", engine="onnxruntime")
    source = _choose(_open_training_videos(folder), VIDEOS.value)
    require_place(folder / FILE)
    videos = list(_read(source, model.sampler))
    ranges = compute_ranges(restore_network(model.network), videos)
    path = write_ranges(folder, digest, ranges, videos=len(videos), size=model.size)
    print(f"wrote {path}: ranges of activations in {len(videos)} training videos", flush=True)


def _open_training_videos(folder: Path) -> Source:
    """The videos that a run was trained on. Raises UserError."""
    config = create_default()
    config.update_from_flattened_dict(read_fields(folder / "config.json"))
    config.data.synthetic.root = ""  # the same videos wherever they are; nothing is written there
    return create_sources(config)[0]


def _choose(source: Source, count: int) -> Source:
    """Some videos of a source, always the same."""
    order = np.random.default_rng(0).permutation(len(source))[:count]
    return dataclasses.replace(source, videos=[source.videos[i] for i in sorted(order.tolist())])


def _read(source: Source, sampler: Sampler) -> Iterator[UInt8[np.ndarray, "t size size 3"]]:
    """The frames of the videos, prepared as for evaluation; those that cannot be read are named."""
    batches = create_eval_iterator(
        source,
        batch_size=1,
        num_frames=sampler.num_frames,
        size=sampler.size,
        via=sampler.via,
    )
    for batch in batches:
        for error in batch["errors"]:
            for reason in error.values():
                say_note(f"left out: {reason}")
        if batch["valid"][0]:
            yield batch["frames"][0]


if __name__ == "__main__":
    command_line.run(main)
