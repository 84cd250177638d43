"""The ranges of a network's activations on training frames, which a run needs for int8."""

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sofnet_jax.engines.base import Engine, Ranges, Run
from sofnet_jax.engines.network import move_network
from sofnet_jax.engines.registry import find_engine, find_quantisation
from sofnet_jax.host.errors import DamagedError, UserError
from sofnet_jax.host.files import is_number, read_json, write_json
from sofnet_jax.host.paths import expand
from sofnet_jax.inference.online import Recognizer
from sofnet_jax.run.checkpoint import Which
from sofnet_jax.systems.base import Network

FILE = "int8.json"
VERSION = 1  # raised when layers become other models, whose activations have other names

_MOST = float(np.finfo(np.float32).max)
_EACH = 2  # frames of a video that ranges are found on, in each span; its frames are much alike


class _Recorder:
    """An engine that runs layers in float32 and keeps what they are given, by their models."""

    name, dtypes = "recorder", ("float32", "int8")

    def __init__(self, engine: Engine):
        self._engine = engine
        self._video: dict[bytes, list[Sequence[np.ndarray]]] = {}
        self.kept: dict[bytes, list[Sequence[np.ndarray]]] = {}

    def compile(self, model: bytes, dtype: str) -> Run:
        """Prepare a model; one of a gate or a classifier is float32, and nothing is kept."""
        run = self._engine.compile(model, "float32")
        if dtype == "float32":
            return run

        def record(arrays: Sequence[np.ndarray]) -> list[np.ndarray]:
            self._video.setdefault(model, []).append(arrays)
            return run(arrays)

        return record

    def end_video(self) -> None:
        """Keep a few examples of the video, evenly spaced."""
        for model, examples in self._video.items():
            places = (np.arange(_EACH) + 0.5) * len(examples) / _EACH
            chosen = dict.fromkeys(places.astype(int).tolist())
            self.kept.setdefault(model, []).extend(examples[i] for i in chosen)
        self._video.clear()


def compute_ranges(
    network: Network, videos: Iterable[UInt8[np.ndarray, "t h w 3"]]
) -> list[Ranges | None]:
    """The ranges of each span's activations, None without layers, on the frames that come to it.

    Args:
        network: in JAX and in float32.
        videos: of the training data. None ends early.

    Raises:
        UserError: no frame comes to a span, or what this needs is not installed.
    """
    from sofnet_jax.engines.layers import create_layers_model  # JAX alone does without onnx

    quantisation = find_quantisation()
    recorder = _Recorder(find_engine("onnxruntime"))
    recognizer = Recognizer(move_network(network, recorder, "int8"))
    for video in videos:
        recognizer.reset(network.architecture.num_frames or None)
        for time in network.architecture.order(len(video)):
            if recognizer.step(video[time]):
                break
        recognizer.result()
        recorder.end_video()
    ranges: list[Ranges | None] = []
    for span in network.spans:
        layers = getattr(span, "layers", None)
        if layers is None or not layers.layers:
            ranges.append(None)
            continue
        model = create_layers_model(layers)
        if model not in recorder.kept:
            raise UserError(f"no frame came to the layers of {span.name}; give more videos")
        ranges.append(quantisation.find_ranges(model, recorder.kept.pop(model)))
    return ranges


def write_ranges(folder: Path, digest: str, ranges: Sequence[Ranges | None], **facts: Any) -> Path:
    """Write ranges, whole or not at all, to the folder of a run whose weights have this digest."""
    spans = [None if each is None else {k: list(v) for k, v in each.items()} for each in ranges]
    content = {"version": VERSION, "weights": digest, **facts, "spans": spans}
    write_json(folder / FILE, content)
    return folder / FILE


def read_ranges(source: str, which: Which, digest: str, count: int) -> list[Ranges | None]:
    """The ranges of `count` spans of a run whose checkpoint has this digest.

    Raises:
        UserError: it is no run, or they are missing, damaged, or those of other weights.
    """
    folder = Path(expand(source))
    path = folder / FILE
    remedy = f"python -m sofnet_jax.quantize {shlex.quote(source)}" + (
        "" if which == "last" else f" --which={which}"
    )
    if not (folder / "config.json").exists():
        raise UserError(
            f"{source} is not the folder of a run, and int8 needs the videos that it was trained on"
        )
    if not path.exists():
        raise UserError(f"{folder} holds no {FILE}, which int8 needs: {remedy}")
    content = read_json(path)
    if content.get("version") != VERSION or content.get("weights") != digest:
        raise UserError(
            f"{path} belongs to other weights than the {which} checkpoint, or to another version "
            f"of this program: {remedy}"
        )
    try:
        spans = content["spans"]
        if not isinstance(spans, list) or len(spans) != count:
            raise ValueError("spans")
        return [None if each is None else _check(each) for each in spans]
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path} is damaged: {remedy}") from error


def _check(ranges: Any) -> Ranges:
    """The ranges of a span. Raises another error for anything else."""
    checked = {}
    for name, (low, high) in ranges.items():
        if not is_number(low) or not is_number(high) or not -_MOST <= low <= high <= _MOST:
            raise ValueError(name)
        checked[name] = float(low), float(high)
    return checked
