"""Exact evaluation: every video once, on any number of devices and processes."""

import contextlib
import functools
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Int, UInt8
from ml_collections import ConfigDict
from PIL import Image
from tqdm import tqdm

from sofnet_jax.data.batch import Batch
from sofnet_jax.data.pipeline import create_eval_iterator
from sofnet_jax.data.source import Source
from sofnet_jax.evaluation.metrics import compute_answer, compute_fates, create_result
from sofnet_jax.evaluation.strip import draw_decisions, write_picture
from sofnet_jax.evaluation.table import format_result
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import write_json
from sofnet_jax.parallel import devices
from sofnet_jax.run.predictions import Predictions, write_predictions
from sofnet_jax.systems.base import Steps, System, Trace

DRAWN_VIDEOS = 6


@dataclass(frozen=True)
class Evaluator:
    """Evaluates a system on the videos of a source, as its experiment's configuration says."""

    system: System
    source: Source
    config: ConfigDict

    def predict(self, variables: Any) -> Predictions:
        """Runs the network over all videos.

        The padding of the last batch is dropped by its mask. An unreadable video is left out of
        the predictions and named in their `errors`.

        Args:
            variables: parameters and statistics, on the host or replicated.

        Raises:
            UserError: every video is unreadable, or scores are not finite.
        """
        ids = tuple(video.id for video in self.source.videos)
        per_device = max(1, self.config.eval.batch_size // jax.device_count())
        own_part = self._create_batches(  # every process has equally many batches
            self.source,
            batch_size=per_device * jax.local_device_count(),
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_workers=self.config.data.num_workers,
        )
        rows: dict[str, list[np.ndarray]] = {}
        errors: dict[str, str] = {}
        pending = None
        with contextlib.closing(own_part) as batches:
            hidden = devices.hides_bar()
            for batch in tqdm(batches, "evaluate", unit="batch", leave=False, disable=hidden):
                outputs = self._step(variables, devices.put_batch({"frames": batch["frames"]}))
                for unreadable in batch["errors"]:
                    errors |= unreadable
                _append(rows, pending)  # the device works on this batch meanwhile
                pending = batch, outputs
        _append(rows, pending)
        arrays = {name: devices.gather(np.concatenate(values)) for name, values in rows.items()}
        errors = devices.gather_dict(errors)
        order = np.argsort(arrays["index"], kind="stable")
        order = order[arrays["valid"][order]]
        if not len(order):
            reason = next(iter(errors.values()), "the source is empty")
            raise UserError(f"none of {len(ids)} videos could be read; the first: {reason}")
        index, labels, logits, time, action, relevant = (
            arrays[name][order]
            for name in ("index", "labels", "logits", "time", "action", "relevant")
        )
        finite = np.isfinite(logits).all((1, 2))
        if not finite.all():
            first = ids[index[~finite][0]]
            raise UserError(
                f"the network's scores of {first} are not finite; the training diverged"
            )
        chosen = tuple(ids[i] for i in index)
        return Predictions(
            *(chosen, labels, logits, time, action, relevant, len(ids), errors),
            actions=self.system.architecture.actions,
            pooling=self.system.architecture.pooling,
        )

    def measure(self, predictions: Predictions) -> dict[str, Any]:
        """The metrics, as `create_result` returns them."""
        return create_result(
            predictions,
            prices=self.system.architecture.prices(self.config.data.size),
            threshold=self.config.eval.threshold,
            min_frames=self.config.eval.min_frames,
        )

    def write(
        self, folder: Path | None, predictions: Predictions, result: Mapping[str, Any]
    ) -> None:
        """Prints the result as a table; writes predictions.npz, result.json and decisions.png.

        Without a folder, it only prints.
        """
        print(format_result(self.system.title, result), flush=True)
        if not folder:
            return
        write_predictions(folder / "predictions.npz", predictions)
        write_json(folder / "result.json", result)
        if image := self.draw_some(predictions):
            write_picture(folder / "decisions.png", image)

    def draw_some(self, predictions: Predictions) -> Image.Image | None:
        """A picture of the decisions on a few videos, evenly spaced, whose frames are kept.

        None if there is nothing to decide, or if a video can no longer be read, which does not end
        a training.
        """
        if len(self.system.architecture.actions) < 2:
            return None
        count = len(predictions.ids)
        try:
            return self.draw(
                predictions, np.linspace(0, count - 1, min(DRAWN_VIDEOS, count)).astype(int)
            )
        except UserError as error:
            tqdm.write(f"decisions are not drawn: {error}")
            return None

    def draw(self, predictions: Predictions, videos: Int[np.ndarray, "v"]) -> Image.Image:
        """A picture of the decisions on some videos, by their place in the predictions.

        Raises UserError if a video can no longer be read.
        """
        p, classes = predictions, self.source.classes
        fates = compute_fates(p, self.config.eval.threshold, self.config.eval.min_frames)
        best = compute_answer(p, fates).argmax(-1)
        captions = [
            f"{' + '.join(classes[c] for c in np.flatnonzero(p.labels[i]))}, "
            f"recognised as {classes[best[i]]}"
            for i in videos
        ]
        return draw_decisions(
            frames=self._read_frames_once(tuple(p.ids[i] for i in videos)),
            traces=[
                Trace(p.time[i, : fates.observed[i]], p.action[i, : fates.observed[i]])
                for i in videos
            ],
            relevant=p.relevant[videos],
            actions=p.actions,
            captions=captions,
        )

    @functools.cached_property
    def _read_frames_once(self) -> Callable[[tuple[str, ...]], np.ndarray]:
        return functools.lru_cache(1)(self.read_frames)

    def read_frames(self, ids: Sequence[str]) -> UInt8[np.ndarray, "v t h w 3"]:
        """The frames of some videos as the network is shown them.

        Raises:
            UserError: a video is missing or unreadable.
        """
        videos = {video.id: video for video in self.source.videos}
        if absent := [name for name in ids if name not in videos]:
            raise UserError(f"{absent[0]} is no longer among the validation videos")
        source = replace(self.source, videos=[videos[i] for i in ids])
        batch = next(self._create_batches(source, batch_size=len(ids)))
        for why in (why for errors in batch["errors"] for why in errors.values()):
            raise UserError(why)
        return batch["frames"]

    def _create_batches(self, source: Source, **options: int) -> Generator[Batch, None, None]:
        data, via = self.config.data, self.system.via
        shown = {"num_frames": data.num_frames, "size": data.size, "via": via}
        return create_eval_iterator(source, **shown, **options)

    @functools.cached_property
    def _step(self) -> Callable:
        """`step(variables, batch) -> Steps`, deterministic, over all devices."""

        def step(variables: Any, batch: dict[str, jax.Array]) -> Steps:
            return self.system.evaluate(variables, batch["frames"])

        return devices.pmap_predict_step(step)


def _append(rows: dict[str, list[np.ndarray]], pending: tuple | None) -> None:
    if pending is None:
        return
    batch, steps = pending
    values = {name: batch[name] for name in ("index", "valid", "labels", "relevant")}
    values |= {name: devices.fetch(value) for name, value in steps._asdict().items()}
    for name, value in values.items():
        rows.setdefault(name, []).append(np.asarray(value))
