"""Training: the loop, with its place in the data, its checkpoints and its logs."""

import contextlib
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict
from PIL import Image
from tqdm import tqdm

from sofnet_jax.data.batch import Batch
from sofnet_jax.evaluation.evaluate import create_predict_step, predict_videos
from sofnet_jax.evaluation.metrics import compute_consensus, compute_fates
from sofnet_jax.evaluation.result import create_result, format_result
from sofnet_jax.evaluation.strip import draw_decisions, write_picture
from sofnet_jax.host.commit import read_commit
from sofnet_jax.host.errors import UserError, explain_full_disk
from sofnet_jax.host.files import write_json
from sofnet_jax.host.lock import lock_folder
from sofnet_jax.host.memory import describe_peaks, keep_freed_memory, read_peaks
from sofnet_jax.host.signals import Interrupted, Interruption
from sofnet_jax.parallel import devices
from sofnet_jax.run.checkpoint import Checkpoints, has_checkpoint, require_same
from sofnet_jax.run.log import Writer
from sofnet_jax.run.predictions import Predictions, write_predictions
from sofnet_jax.run.result import write_config
from sofnet_jax.systems.sofnet.released import PAPER
from sofnet_jax.training.experiment import Experiment, create_experiment
from sofnet_jax.training.profile import Clock, Trace, choose_steps
from sofnet_jax.training.step import create_state, select_arrays
from sofnet_jax.weights.load import Report, initialise, load_weights

PICTURED_VIDEOS = 6


def train(config: ConfigDict, workdir: Path, *, profile: bool = False) -> dict[str, Any]:
    """Trains, or goes on training, in `workdir`, and evaluates what comes out.

    With `profile`, the first process profiles a few steps into `workdir/profile`.

    Returns:
        The result, which is also printed and written to `workdir/result.json`.

    Raises:
        UserError: bad data or configuration, a checkpoint of another model, none that is whole, a
            loss that is not finite, a full disk.
        Interrupted: after SIGTERM or Ctrl-C, with everything saved.
    """
    experiment = create_experiment(config)
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    is_main = jax.process_index() == 0
    locked = lock_folder(workdir, "training") if is_main else contextlib.nullcontext()
    with locked, explain_full_disk(workdir), contextlib.closing(Run(experiment, workdir)) as run:
        with Interruption() as interruption:
            run.train(interruption, profile)
        return run.finish()


def evaluate(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates the checkpoint that `config.eval.checkpoint` names, also of a run that goes on.

    In a folder without one, it evaluates the weights that `config.init_from` names.

    Returns:
        The result, which is also printed and written to `workdir/result.json`.

    Raises:
        UserError: no checkpoint, one that is damaged or of another model, weights that are not
            whole, bad data, or a full disk.
    """
    experiment = create_experiment(config)
    if not has_checkpoint(workdir / "checkpoints") and not config.init_from:
        raise UserError(f"{workdir} holds no checkpoint; train first, or give --config.init_from")
    with (
        explain_full_disk(workdir),
        contextlib.closing(Run(experiment, workdir, read_only=True)) as run,
    ):
        if run.step and config.init_from not in ("", run.schedule["init_from"]):
            raise UserError(
                f"{workdir} holds a checkpoint of its own; to evaluate {config.init_from} give "
                "another --workdir"
            )
        return run.finish()


class Run:
    """One experiment in one folder."""

    def __init__(self, experiment: Experiment, workdir: Path, *, read_only: bool = False):
        """Takes up the latest checkpoint of the folder, if there is one.

        `read_only` leaves checkpoints and logs to a training that may be writing them.
        """
        config = experiment.config
        self.started = time.monotonic()
        self.commit = read_commit()  # now, for a training may last longer than it
        self.experiment, self.workdir = experiment, workdir
        self.left_out: dict[str, str] = {}
        self.step = 0
        self.schedule = experiment.schedule
        self.state = create_state(experiment.model, experiment.optimizer, config.seed)
        self.initialisation: Report | None = None
        if config.init_from and not has_checkpoint(workdir / "checkpoints"):
            self._initialise(config.init_from, whole=read_only)
        self.checkpoints = Checkpoints(
            workdir / "checkpoints", metric=config.eval.metric, read_only=read_only
        )
        self.train_steps: dict[bool, Callable] = {}
        self.is_main = jax.process_index() == 0
        self._take_up(read_only)
        if self.is_main:
            print(experiment.describe(self.state.params, workdir, self.step), flush=True)
            if self.initialisation:
                print(self.initialisation, flush=True)
                write_json(workdir / "init.json", dataclasses.asdict(self.initialisation))
        self.writer = Writer(
            workdir,
            first_step=self.step,
            evaluated=self.checkpoints.is_rated(self.step),
            enabled=self.is_main and not read_only,
        )
        self.pace = ""  # of the last steps, in words
        self.predict_step = create_predict_step(experiment.model)
        self.read_pictured = functools.lru_cache(1)(experiment.read_val_frames)

    def _initialise(self, source: str, *, whole: bool) -> None:
        """Starts from weights, which with `whole` must be all of the network's."""
        e = self.experiment
        variables, report = initialise(
            self.state.variables,
            load_weights(source, e.config.eval.checkpoint),
            e.train_source.classes,
        )
        if whole and report.reinitialised:
            reasons = ", ".join(dict.fromkeys(report.reinitialised.values()))
            raise UserError(
                f"{source} cannot be evaluated: {len(report.reinitialised)} tensors would be "
                f"random ({reasons}); give weights that hold all of this network, and the data "
                "whose classes they tell apart"
            )
        self.state, self.initialisation = dataclasses.replace(self.state, **variables), report

    def _take_up(self, read_only: bool) -> None:
        """Begins with the latest checkpoint, if there is one; a training with one that is whole."""
        if not read_only:
            for line in self.checkpoints.take_up(self._restore):
                if self.is_main:
                    print(line, file=sys.stderr, flush=True)
        elif (last := self.checkpoints.find("last")) is not None:
            self._restore(last)
        if not self.step:
            self.state = devices.replicate(self.state)

    def _restore(self, step: int) -> None:
        """Takes up a checkpoint. Raises UserError: it is another run's, or damaged."""
        record = self.checkpoints.read_record(step)
        # What checkpoints of before there were these fields do not tell.
        unset = {f"released.{name}": value for name, value in dataclasses.asdict(PAPER).items()}
        identity = {"model.shift": ""} | unset | record["identity"]
        require_same(identity, self.experiment.identity, self.workdir / "checkpoints")
        unset = {"init_from": self.schedule["init_from"], "loss.guidance": True}
        if "data.short_side" in self.schedule:
            unset |= {"data.short_side": 0}
        self.schedule = unset | record["schedule"]
        self.left_out = record["left_out"]
        self.state = devices.replicate(self.checkpoints.restore(step, self.state))
        self.step = step

    def train(self, interruption: Interruption, profile: bool) -> None:
        """Steps, evaluations and checkpoints up to the last epoch."""
        e = self.experiment
        require_same(self.schedule, e.schedule, self.workdir / "checkpoints")
        if self.is_main:
            write_config(e.config, self.workdir)
        if self.step > e.total_steps:
            raise UserError(
                f"{self.workdir} has trained {self.step} steps, but the configuration asks for "
                f"{e.total_steps}; use another --workdir or more train.joint_epochs"
            )
        batches = e.create_train_iterator(self.step)
        try:
            bar = tqdm(
                total=e.total_steps,
                initial=self.step,
                desc="train",
                unit="step",
                disable=None,
            )
            with bar, self._create_trace(profile) as trace:
                self._evaluate_if_due(bar)  # not done yet if the training was stopped here
                while self.step < e.total_steps:
                    until = (self.step // self._interval + 1) * self._interval
                    until = min(until, e.total_steps)
                    self._train_until(until, batches, interruption, bar, trace)
                    with self._timing("save"):
                        self._save()
                    self._evaluate_if_due(bar)
                if self.is_main and self.pace:
                    bar.write(describe_peaks())
        finally:
            batches.close()

    @property
    def _interval(self) -> int:
        """Steps from one evaluation to the next."""
        return self.experiment.config.eval.every_epochs * self.experiment.steps_per_epoch

    def _create_trace(self, profile: bool) -> Trace:
        """The profile of a few steps if it is wanted, or of none."""
        e = self.experiment
        breaks = {*range(0, e.total_steps, self._interval), e.warmup_steps, e.total_steps}
        steps = choose_steps(self.step, breaks) if profile and self.is_main else range(0)
        if profile and self.is_main and not steps:
            tqdm.write("no profile: the training is finished")
        return Trace(self.workdir / "profile", steps)

    @contextlib.contextmanager
    def _timing(self, name: str) -> Iterator[None]:
        """Logs for how many seconds the steps have stood still for what is done inside."""
        start = time.monotonic()
        yield
        self.writer.write(self.step, {f"time/{name}_seconds": time.monotonic() - start})

    def _evaluate_if_due(self, bar: tqdm) -> None:
        """Evaluates the checkpoint of this step unless that was done, and notes its metrics."""
        due = self.step % self._interval == 0 or self.step == self.experiment.total_steps
        if self.step and due and not self.checkpoints.is_rated(self.step):
            self.checkpoints.rate(self.step, self._evaluate_epoch(bar))

    def _train_until(
        self, until: int, batches, interruption: Interruption, bar: tqdm, trace: Trace
    ) -> None:
        """Steps up to `until`, of which the device always has one queued behind the one it runs.

        The metrics of a step are fetched while the next one runs, so the device never waits for
        the host; a loss that is not finite is noticed one step later, before any checkpoint.
        """
        clock = Clock()
        queued = None
        stopping = False
        while self.step < until and not stopping:
            with trace.step(self.step + 1, clock):
                with clock.part("input"):
                    batch = next(batches)
                self._note_left_out(batch)
                with clock.part("put"):
                    arrays = devices.put_batch(select_arrays(batch, stop=interruption.signum != 0))
                with clock.part("step" if self._gated in self.train_steps else "compilation"):
                    self.state, metrics = self.train_step(self.state, arrays)
                self.step += 1
                stopping = self._read_metrics(queued, clock, bar)
                queued = self.step, metrics
                bar.update()
        stopping |= self._read_metrics(queued, clock, bar)
        self.pace = clock.describe()
        if stopping:
            self._save()
            self.checkpoints.wait()
            raise Interrupted(self.step, interruption.signum)

    @property
    def train_step(self) -> Callable:
        """The step of the warm-up, then that of the joint training."""
        if self._gated not in self.train_steps:
            self.train_steps[self._gated] = self.experiment.create_train_step(self._gated)
        return self.train_steps[self._gated]

    @property
    def _gated(self) -> bool:
        """Whether the next step is one of the joint training."""
        e = self.experiment
        return bool(e.architecture.gates) and self.step >= e.warmup_steps

    def _note_left_out(self, batch: Batch) -> None:
        for errors in batch["errors"]:
            self.left_out |= errors

    def _read_metrics(self, queued: tuple[int, Any] | None, clock: Clock, bar: tqdm) -> bool:
        """Fetches the metrics of a step, checks and logs them; whether a process asks to stop."""
        if queued is None:
            return False
        step, metrics = queued
        with clock.part("metrics"):
            metrics = devices.to_host(metrics)
        metrics = {name: float(value) for name, value in metrics.items()}
        loss = metrics["loss/total"]
        if not np.isfinite([loss, metrics["weight_norm"]]).all():
            what = f"loss is {loss} at" if not np.isfinite(loss) else "weights overflow after"
            last = self.checkpoints.find("last")
            left = f"with the checkpoint of step {last} intact" if last else "before any checkpoint"
            raise UserError(
                f"the {what} step {step}; stopped, {left}. Lower optimizer.learning_rate?"
            )
        clock.steps += 1
        if step % self.experiment.config.train.log_every == 0:
            self._log(step, metrics, clock)
            bar.set_postfix(loss=f"{loss:.3f}", top1=f"{metrics['top1']:.2f}")
        return metrics["interrupt"] > 0

    def _log(self, step: int, metrics: dict[str, float], clock: Clock) -> None:
        e = self.experiment
        scalars = {f"train/{k}": v for k, v in metrics.items() if k != "interrupt"}
        scalars["train/epoch"] = step / e.steps_per_epoch
        memory = {f"memory/{name}_peak_gib": peak for name, peak in read_peaks().items()}
        self.writer.write(step, scalars | clock.read() | memory)

    def _predict(self) -> Predictions:
        """What the present state says of all validation videos."""
        ids = tuple(video.id for video in self.experiment.val_source.videos)
        batches = self.experiment.create_eval_iterator()
        try:
            return predict_videos(self.predict_step, self.state.variables, batches, ids)
        finally:
            batches.close()

    def _measure(self, predictions: Predictions) -> dict[str, Any]:
        e = self.experiment
        return create_result(
            predictions,
            gate_names=e.architecture.gate_names,
            paper_cost=e.paper_cost,
            full_cost=e.full_cost,
            threshold=e.config.eval.threshold,
            min_frames=e.config.eval.min_frames,
        )

    def _evaluate_epoch(self, bar: tqdm) -> dict[str, float]:
        """Evaluates, logs and prints a line."""
        e = self.experiment
        with self._timing("eval"):
            predictions = self._predict()
        result = self._measure(predictions)
        scalars = {
            f"{part}/{name}": float(value)
            for part in ("eval", "eval_early")
            for name, value in result.get(part, {}).items()
        }
        if self.is_main and e.architecture.gates and (image := self._draw(predictions)):
            self.writer.write_image(self.step, "eval/decisions", np.asarray(image))
        self.writer.write(self.step, scalars)
        m = result["eval"]
        if self.is_main:
            bar.write(
                f"epoch {self.step / e.steps_per_epoch:.0f}: top-1 {100 * m['top1']:.1f} %, "
                f"mAP {100 * m['map']:.1f} %, {m['gflops_per_video']:.4g} GFLOPs/V, "
                f"{100 * m['usage']:.1f} % used" + (self.pace and f"; {self.pace}")
            )
        return m

    def _save(self) -> None:
        record = {
            "identity": self.experiment.identity,
            "schedule": self.experiment.schedule,
            "examples": self.step * self.experiment.config.train.batch_size,  # place in the data
            "left_out": devices.gather_dict(self.left_out),
        }
        self.checkpoints.save(self.step, devices.to_host(self.state), record)

    def finish(self) -> dict[str, Any]:
        """Evaluates the checkpoint that the configuration names, prints and writes the result."""
        e = self.experiment
        self.checkpoints.wait()
        chosen = self.checkpoints.find(e.config.eval.checkpoint)
        if chosen is not None and chosen != self.step:
            left_out = self.left_out
            self._restore(chosen)
            self.left_out |= left_out  # an older checkpoint knows less
        predictions = self._predict()
        result = self._measure(predictions) | {
            "step": self.step,
            "left_out": devices.gather_dict(self.left_out),
            "commit": self.commit,
            "seed": e.config.seed,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self.started, 1),
        }
        if self.is_main:
            names = e.architecture.gate_names
            write_predictions(self.workdir / "predictions.npz", predictions, names)
            write_json(self.workdir / "result.json", result)
            if names and (image := self._draw(predictions)):
                write_picture(self.workdir / "decisions.png", image)
            name = "SoF-Net" if names else "TSN"
            print(format_result(name, result, names), flush=True)
        return result

    def _draw(self, predictions: Predictions) -> Image.Image | None:
        """A picture of the decisions on a few validation videos, whose frames are kept.

        None if one can no longer be read: no reason to end a training.
        """
        e, p = self.experiment, predictions
        chosen = np.linspace(0, len(p.ids) - 1, min(PICTURED_VIDEOS, len(p.ids))).astype(int)
        rule = e.config.eval.threshold, e.config.eval.min_frames
        kept, seen, observed = compute_fates(p, len(e.architecture.gates), *rule)
        best = compute_consensus(p.frame_logits, kept & seen).argmax(-1)
        try:
            frames = self.read_pictured(tuple(p.ids[i] for i in chosen))
        except UserError as error:
            tqdm.write(f"decisions are not drawn: {error}")
            return None
        classes = e.val_source.classes
        captions = [
            f"{' + '.join(classes[c] for c in np.flatnonzero(p.labels[i]))}, "
            f"recognised as {classes[best[i]]}"
            for i in chosen
        ]
        return draw_decisions(
            frames=frames,
            stop=p.stop[chosen],
            observed=observed[chosen],
            relevant=p.relevant[chosen],
            gate_names=e.architecture.gate_names,
            captions=captions,
        )

    def close(self) -> None:
        """Waits for the checkpoint that is being written, and closes the logs."""
        with contextlib.closing(self.writer):
            self.checkpoints.close()
