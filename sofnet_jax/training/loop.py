"""Training and evaluation of a configuration in a folder."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from sofnet_jax.evaluation.collapse import describe_collapse
from sofnet_jax.host.command_line import say_note
from sofnet_jax.host.errors import UserError, explain_full_disk
from sofnet_jax.host.files import require_place
from sofnet_jax.host.lock import lock_folder
from sofnet_jax.host.memory import describe_peaks, keep_freed_memory, read_peaks
from sofnet_jax.host.signals import Interrupted, Interruption
from sofnet_jax.parallel import devices
from sofnet_jax.run.checkpoint import Checkpoints, has_checkpoint, require_same
from sofnet_jax.run.log import Writer
from sofnet_jax.run.result import write_config
from sofnet_jax.systems.base import FrozenSystem
from sofnet_jax.training.experiment import Experiment
from sofnet_jax.training.profile import Clock, Trace, choose_steps
from sofnet_jax.training.progress import Progress, begin
from sofnet_jax.training.step import select_arrays


def train(config: ConfigDict, workdir: Path, *, profile: bool = False) -> dict[str, Any]:
    """Trains in `workdir`, or resumes, then evaluates the checkpoint `config.eval.checkpoint`.

    With `profile`, the first process profiles a few steps to `workdir/profile`.

    Returns:
        The result, which is also printed and written to `workdir/result.json`.

    Raises:
        UserError: bad data or configuration, checkpoints of another model or none whole, a loss
            that is not finite, a full disk.
        Interrupted: after SIGTERM or Ctrl-C, with everything saved.
    """
    e = Experiment(config)
    if jax.default_backend() == "cpu":
        keep_freed_memory()
    is_main = jax.process_index() == 0
    with (
        lock_folder(workdir, "training") if is_main else contextlib.nullcontext(),
        explain_full_disk(workdir),
        closing(Checkpoints(workdir / "checkpoints", metric=config.eval.metric)) as checkpoints,
    ):
        progress = begin(e, checkpoints, workdir)
        require_same(progress.schedule, e.schedule, checkpoints.directory)
        if progress.step > e.total_steps:
            raise UserError(
                f"{workdir} has trained {progress.step} steps, but the configuration asks for "
                f"{e.total_steps}; use another --workdir or more train.joint_epochs"
            )
        if is_main:
            write_config(config, workdir)
        evaluated = checkpoints.is_rated(progress.step)
        writer = Writer(workdir, first_step=progress.step, evaluated=evaluated, enabled=is_main)
        with closing(writer), Interruption() as interruption:
            Trainer(progress, writer, interruption).run(workdir / "profile", profile and is_main)
        return _conclude(progress, workdir)


def evaluate(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates the checkpoint `config.eval.checkpoint`, even while a training is running.

    In a folder without checkpoints, it evaluates the weights that `config.init_from` names.

    Returns:
        The result, which is also printed, and written to `workdir/result.json` if that is possible.

    Raises:
        UserError: no checkpoint, one that is damaged or of another model, incomplete weights, bad
            data, or a full disk.
    """
    e, folder = Experiment(config), workdir / "checkpoints"
    if not has_checkpoint(folder) and not config.init_from:
        raise UserError(f"{workdir} holds no checkpoint; train first, or give --config.init_from")
    place = _find_place(workdir)
    with (
        explain_full_disk(workdir),
        closing(Checkpoints(folder, metric=config.eval.metric, read_only=True)) as checkpoints,
    ):
        progress = begin(e, checkpoints, workdir, writable=place is not None)
        if progress.step and config.init_from not in ("", progress.schedule["init_from"]):
            raise UserError(
                f"{workdir} holds a checkpoint of its own; to evaluate {config.init_from} give "
                "another --workdir"
            )
        return _conclude(progress, place)


def _find_place(workdir: Path) -> Path | None:
    """The folder for the results; None, with a note, if nothing can be written to it."""
    try:
        require_place(workdir / "result.json")
    except OSError as error:
        if jax.process_index() == 0:
            reason = error.strerror or error
            say_note(f"cannot write to {workdir} ({reason}); the result is only printed")
        return None
    return workdir


@dataclasses.dataclass
class Trainer:
    """Steps through a training, with an evaluation and a checkpoint after every few epochs."""

    progress: Progress
    writer: Writer
    interruption: Interruption
    train_steps: dict[int, Callable] = dataclasses.field(default_factory=dict)  # by phase
    pace: str = ""  # of the latest steps, in words

    def run(self, folder: Path, profile: bool) -> None:
        """Trains up to the last epoch; with `profile`, profiles a few steps to `folder`."""
        p, e = self.progress, self.progress.experiment
        steps = range(0)
        if profile:
            breaks = {0, *e.milestones, *(stage.stop for stage in e.stages)}
            steps = choose_steps(p.step, breaks)
            if not steps:
                tqdm.write("no profile: the training is finished")
        batches = e.create_train_iterator(p.step)
        with closing(batches), self.bar, Trace(folder, steps) as trace:
            self._evaluate_if_due()  # unless that was done before the training was stopped
            while p.step < e.total_steps:
                self._begin_frozen_phase()
                until = next(step for step in e.milestones if step > p.step)
                self._train_until(until, batches, trace)
                with self._timing("save"):
                    p.save()
                self._evaluate_if_due()
            if self.pace and jax.process_index() == 0:
                self.bar.write(describe_peaks())

    def _begin_frozen_phase(self) -> None:
        """Computes the features of a phase in which they no longer change, if that is next."""
        p, e = self.progress, self.progress.experiment
        stage = e.stages[e.find_phase(p.step)]
        if not stage.phase.frozen:
            return
        with self._timing("features"):
            features = e.prepare_features(stage, p.state.variables)
        if p.step == stage.start:
            system = cast(FrozenSystem, e.system)
            params = system.begin_gates(devices.to_host(p.state.params), features.moments)
            p.state = dataclasses.replace(p.state, params=devices.replicate(params))

    @functools.cached_property
    def bar(self) -> tqdm:
        """The progress bar, which a terminal shows from its first use on."""
        total, done = self.progress.experiment.total_steps, self.progress.step
        hidden = devices.hides_bar()
        return tqdm(total=total, initial=done, desc="train", unit="step", disable=hidden)

    @contextlib.contextmanager
    def _timing(self, name: str) -> Iterator[None]:
        """Logs the seconds for which training stands still."""
        start = time.monotonic()
        yield
        seconds = time.monotonic() - start
        self.writer.write(self.progress.step, {f"time/{name}_seconds": seconds})

    def _train_until(self, until: int, batches, trace: Trace) -> None:
        """Steps up to `until`; the device always has one queued behind the one it runs.

        The metrics of a step are fetched while the next one runs, so the device never waits for
        the host; a loss that is not finite is noticed one step later, before any checkpoint.
        """
        p, e = self.progress, self.progress.experiment
        clock = Clock()
        queued = None
        stopping = False
        while p.step < until and not stopping:
            with trace.step(p.step + 1, clock):
                with clock.part("input"):
                    batch = next(batches)
                for errors in batch["errors"]:
                    p.left_out |= errors
                stop = self.interruption.signum != 0
                with clock.part("put"):
                    arrays = devices.put_batch(select_arrays(batch, stop=stop))
                phase = e.find_phase(p.step)
                with clock.part("step" if phase in self.train_steps else "compilation"):
                    if phase not in self.train_steps:
                        self.train_steps[phase] = e.create_train_step(phase)
                    p.state, metrics = self.train_steps[phase](p.state, arrays)
                p.step += 1
                stopping = self._read_metrics(queued, clock)
                queued = p.step, metrics
                self.bar.update()
        stopping |= self._read_metrics(queued, clock)
        self.pace = clock.describe()
        if stopping:
            p.save()
            p.checkpoints.wait()
            raise Interrupted(p.step, self.interruption.signum)

    def _read_metrics(self, queued: tuple[int, Any] | None, clock: Clock) -> bool:
        """Fetches, checks and logs the metrics of a step; True if a process asks to stop."""
        if queued is None:
            return False
        step, metrics = queued
        with clock.part("metrics"):
            metrics = devices.to_host(metrics)
        metrics = {name: float(value) for name, value in metrics.items()}
        loss, interrupt = metrics["loss/total"], metrics.pop("interrupt")
        if not np.isfinite([loss, metrics["weight_norm"]]).all():
            what = f"loss is {loss} at" if not np.isfinite(loss) else "weights overflow after"
            last = self.progress.checkpoints.find("last")
            left = f"with the checkpoint of step {last} intact" if last else "before any checkpoint"
            raise UserError(
                f"the {what} step {step}; stopped, {left}. Lower optimizer.learning_rate?"
            )
        clock.steps += 1
        e = self.progress.experiment
        if step % e.config.train.log_every == 0:
            scalars = {f"train/{name}": value for name, value in metrics.items()}
            scalars["train/epoch"] = e.count_epochs(step)
            memory = {f"memory/{name}_peak_gib": peak for name, peak in read_peaks().items()}
            self.writer.write(step, scalars | clock.read() | memory)
            self.bar.set_postfix(loss=f"{loss:.3f}", top1=f"{metrics['top1']:.2f}")
        return interrupt > 0

    def _evaluate_if_due(self) -> None:
        """Evaluates this step's checkpoint unless it has metrics; logs and prints a line."""
        p, e, step = self.progress, self.progress.experiment, self.progress.step
        if step not in e.milestones or p.checkpoints.is_rated(step):
            return
        with self._timing("eval"):
            predictions = e.evaluator.predict(p.state.variables)
        result = e.evaluator.measure(predictions)
        scalars = {
            f"{part}/{name}": float(value)
            for part in ("eval", "eval_early")
            for name, value in result.get(part, {}).items()
        }
        is_main = jax.process_index() == 0
        if is_main and (image := e.evaluator.draw_some(predictions)):
            self.writer.write_image(step, "eval/decisions", np.asarray(image))
        self.writer.write(step, scalars)
        m = result["eval"]
        if is_main:
            self.bar.write(
                f"{e.describe_step(step)}: top-1 {100 * m['top1']:.1f} %, "
                f"mAP {100 * m['map']:.1f} %, {m['gflops_per_video']:.4g} GFLOPs/V, "
                f"{100 * m['usage']:.1f} % used" + (self.pace and f"; {self.pace}")
            )
            first = next(iter(e.stages[-1].ends), step)
            late = first <= step < e.total_steps  # the end has a note of its own
            if late and (collapse := describe_collapse(m, e.config)):
                self.bar.write(f"note: {collapse}")
        p.checkpoints.rate(step, m)


def _conclude(progress: Progress, place: Path | None) -> dict[str, Any]:
    """Evaluates the checkpoint that the configuration names; prints and writes the result.

    `place` is the folder for the result; without one, it is only printed.
    """
    p, e = progress, progress.experiment
    p.checkpoints.wait()
    chosen = p.checkpoints.find(e.config.eval.checkpoint)
    if chosen is not None and chosen != p.step:
        left_out = p.left_out
        p.restore(chosen)
        p.left_out |= left_out  # an older checkpoint lacks later ones
    predictions = e.evaluator.predict(p.state.variables)
    result = e.evaluator.measure(predictions) | {
        "step": p.step,
        "left_out": devices.gather_dict(p.left_out),
        "commit": p.commit,
        "seed": e.config.seed,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - p.started, 1),
    }
    if jax.process_index() == 0:
        e.evaluator.write(place, predictions, result)
        if collapse := describe_collapse(result["eval"], e.config):
            print(f"note: {collapse}", flush=True)
    return result
