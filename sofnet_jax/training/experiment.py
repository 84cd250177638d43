"""What a configuration describes: data, system and optimizer."""

import contextlib
import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, cast

import jax
import optax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from sofnet_jax.data.batch import Batch
from sofnet_jax.data.pipeline import create_train_iterator
from sofnet_jax.data.prepared.dataset import create_prepared_source
from sofnet_jax.data.source import Source, create_source, select_part
from sofnet_jax.data.synthetic.dataset import VERSION, create_synthetic
from sofnet_jax.evaluation.evaluate import Evaluator
from sofnet_jax.host.errors import UserError
from sofnet_jax.host.paths import expand
from sofnet_jax.parallel import devices
from sofnet_jax.run.config import DTYPES, check_config, flatten_fields, select_fields
from sofnet_jax.systems.base import FrozenSystem, Phase, System
from sofnet_jax.systems.registry import create_system
from sofnet_jax.training.features import Features, compute_features
from sofnet_jax.training.optimizer import create_optimizer
from sofnet_jax.training.schedules import (
    create_cosine_schedule,
    create_learning_rate_schedule,
    create_progress_schedule,
    create_temperature_schedule,
)
from sofnet_jax.training.step import create_train_step

SYNTHETIC_ROOT = Path("~/.cache/sofnet_jax/synthetic")


@dataclasses.dataclass(frozen=True)
class Stage:
    """A phase of a training, its videos, and its steps from `start` to before `stop`."""

    phase: Phase
    source: Source
    start: int
    steps_per_epoch: int

    @property
    def stop(self) -> int:
        """The first step after it."""
        return self.start + (self.phase.steps or self.phase.epochs * self.steps_per_epoch)

    @property
    def ends(self) -> list[int]:
        """The steps after which an epoch is over; of a phase counted in steps, its quarters."""
        if steps := self.phase.steps:
            return [self.start + math.ceil(quarter * steps / 4) for quarter in range(1, 5)]
        return [*range(self.start + self.steps_per_epoch, self.stop + 1, self.steps_per_epoch)]


class Experiment:
    """A configuration made concrete; generates the synthetic videos if it needs them."""

    def __init__(self, config: ConfigDict):
        """Raises UserError if a value is out of range or data is missing."""
        check_config(config)
        self.config = config
        self.train_source, self.val_source = create_sources(config)
        fields = flatten_fields(config.to_dict())
        self.system = create_system(
            fields,
            num_classes=len(self.train_source.classes),
            dtype=DTYPES[config.train.dtype],
            bn_axis=devices.AXIS if config.train.sync_batchnorm else None,
            remat=config.train.remat,
        )
        self.stages = _create_stages(self.system, self.train_source, config)
        o, first = config.optimizer, self.stages[0]
        self.learning_rate = self._create_learning_rate()
        self.temperature = self._create_temperature()
        self.features: Features | None = None  # of the videos of a frozen phase
        self.create_optimizer = functools.partial(
            create_optimizer,
            o.name,
            self.learning_rate,
            momentum=o.momentum,
            weight_decay=o.weight_decay,
            warmup_steps=first.stop if len(self.stages) > 1 else 0,
            policy_rate=o.policy_rate,
            policy_name=o.policy_name,
            clip_norm=o.clip_norm,
            learning=self.system.learning,
        )
        self.optimizer = self.create_optimizer()
        self.evaluator = Evaluator(self.system, self.val_source, config)

    def _create_learning_rate(self) -> optax.Schedule:
        o, first = self.config.optimizer, self.stages[0]
        if o.schedule == "cosine":
            return create_cosine_schedule(o.learning_rate, [stage.stop for stage in self.stages])
        return create_learning_rate_schedule(
            o.learning_rate,
            drop_epochs=tuple(o.drop_epochs),
            steps_per_epoch=first.steps_per_epoch,
            warmup_epochs=self.system.drop_offset,
            restart=first.stop if self.system.learning.freezes else None,
        )

    def _create_temperature(self) -> optax.Schedule:
        t, last = self.config.temperature, self.stages[-1]
        if t.final:
            return create_progress_schedule(t.initial, t.final, range(last.start, last.stop))
        return create_temperature_schedule(
            t.initial,
            t.decay,
            steps_per_epoch=last.steps_per_epoch,
            warmup_epochs=self.config.train.warmup_epochs,
        )

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.stages[-1].stop

    @property
    def milestones(self) -> list[int]:
        """The steps after which a checkpoint is written and evaluated, ascending."""
        every = self.config.eval.every_epochs
        by_epochs = [stage for stage in self.stages if not stage.phase.steps]
        ends = [step for stage in by_epochs for step in stage.ends][every - 1 :: every]
        for stage in self.stages:
            if stage.phase.steps:
                ends += [stage.start, *stage.ends]
        return sorted({*ends, self.total_steps} - {0})

    def count_epochs(self, step: int) -> float:
        """The number of epochs after a step; phases that are counted in steps add none."""
        return sum(
            (min(step, stage.stop) - stage.start) / stage.steps_per_epoch
            for stage in self.stages
            if step > stage.start and not stage.phase.steps
        )

    def describe_step(self, step: int) -> str:
        """How far the training is after a step, as its phase is counted."""
        stage = next((s for s in reversed(self.stages) if s.start < step), self.stages[0])
        if steps := stage.phase.steps:
            return f"{stage.phase.name}, step {step - stage.start} of {steps}"
        return f"epoch {self.count_epochs(step):.0f}"

    @property
    def identity(self) -> dict[str, object]:
        """What a checkpoint must agree on to be restored."""
        model = {f"model.{k}": v for k, v in dataclasses.asdict(self.system.architecture).items()}
        classes = {"classes": list(self.train_source.classes)}
        return select_fields(self.config, "identity") | model | classes

    @property
    def schedule(self) -> dict[str, object]:
        """What a training must agree on with the checkpoint that it resumes."""
        generated = self.config.data.source == "synthetic"
        version = {"data.synthetic.version": VERSION} if generated else {}
        videos = {"number of training videos": len(self.train_source)}
        return select_fields(self.config, "schedule") | version | videos

    def find_phase(self, step: int) -> int:
        """The number of the phase that a step belongs to."""
        return sum(stage.stop <= step for stage in self.stages)

    def create_train_step(self, phase: int) -> Callable:
        """The optimizer step of a phase."""
        return create_train_step(
            self.system,
            self.create_optimizer(holds=self.stages[phase].phase.frozen),
            phase=phase,
            learning_rate=self.learning_rate,
            temperature=self.temperature,
            accumulate=self.config.train.accumulate,
        )

    def create_train_iterator(self, first_step: int) -> Generator[Batch, None, None]:
        """The batches of this process, from an optimizer step on."""
        step = first_step
        for _, group in itertools.groupby(self.stages, lambda s: (s.phase.part, s.phase.frozen)):
            stages = list(group)  # phases on the same videos share an order
            start, stop = stages[0].start, stages[-1].stop
            if step < stop:
                batches = self._begin_batches(stages[0], step - start)
                with contextlib.closing(batches):
                    yield from itertools.islice(batches, stop - step)
                step = stop

    def prepare_features(self, stage: Stage, variables: Any) -> Features:
        """The features of a frozen phase, computed once, from replicated variables."""
        if self.features is None:
            passes = math.ceil(len(range(stage.start, stage.stop)) / stage.steps_per_epoch)
            passes = min(self.config.train.feature_epochs, passes)
            with contextlib.closing(self._create_batches(stage.source, stage.start)) as batches:
                self.features = compute_features(
                    batches,
                    passes * stage.steps_per_epoch,
                    cast(FrozenSystem, self.system).extract,
                    variables,
                )
        return self.features

    def _begin_batches(self, stage: Stage, step: int) -> Generator[Any, None, None]:
        """The batches of the phases that begin with `stage`, from their step number `step` on."""
        if stage.phase.frozen:
            assert self.features, "prepare_features comes first"
            noise = self.config.train.feature_noise
            return self.features.repeat(self.config.seed, step, noise)
        return self._create_batches(stage.source, step)

    def _create_batches(self, source: Source, step: int) -> Generator[Batch, None, None]:
        c = self.config
        return create_train_iterator(
            source,
            batch_size=c.train.batch_size,
            num_frames=c.data.num_frames,
            size=c.data.size,
            seed=c.seed,
            start=step * c.train.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_workers=c.data.num_workers,
            scales=tuple(c.data.scales),
            flip=c.data.flip,
            via=self.system.via,
        )

    def describe(self, params: PyTree, workdir: Path, first_step: int) -> str:
        """The summary printed at the start, one screen."""
        c, system = self.config, self.system
        sizes = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in params.items()}
        shift = f"; {c.model.shift} temporal shift (TSM)" if c.model.shift else ""
        prices = system.architecture.prices(c.data.size)
        each = ", ".join(
            f"{action.name} {price:.4f}"
            for action, price in zip(
                system.architecture.actions, prices.paper.tolist(), strict=True
            )
        )
        start = f"at step {first_step}" if first_step else "from the beginning"
        lines = {
            "model": f"{c.model.backbone}, {sum(sizes.values()):,} parameters "
            f"({sizes['backbone']:,} backbone){shift}",
            "compute": f"{each} GFLOPs/frame",
            "data": f"{len(self.train_source)} training and {len(self.val_source)} validation "
            f"videos, {len(self.train_source.classes)} classes, {c.data.num_frames} frames of "
            f"{c.data.size}×{c.data.size}",
            "training": " + ".join(
                (
                    f"{stage.phase.steps} steps"
                    if stage.phase.steps
                    else f"{stage.phase.epochs} epochs of {stage.steps_per_epoch} steps"
                )
                + f" ({stage.phase.name})"
                for stage in self.stages
            )
            + f", {c.train.batch_size} videos a step, "
            f"{c.optimizer.name}, {c.train.dtype}",
            "devices": f"{jax.device_count()} × {jax.devices()[0].device_kind} in "
            f"{jax.process_count()} process(es)",
            "workdir": f"{workdir}, {start}",
        }
        notes = [*self.train_source.notes, *self.val_source.notes]
        text = [f"  {name:<9} {line}" for name, line in lines.items()]
        return "\n".join([system.title, *text, *(f"  note      {note}" for note in notes)])


def _create_stages(system: System, source: Source, config: ConfigDict) -> list[Stage]:
    """The phases with their videos. An epoch drops the videos that do not fill a batch.

    Raises UserError if there are fewer videos than a batch has.
    """
    stages: list[Stage] = []
    batch_size = config.train.batch_size
    for phase in system.phases:
        videos = select_part(source, phase.part, config.frameexit.held_out)
        steps = len(videos) // batch_size
        if not steps:
            raise UserError(
                f"train.batch_size is {batch_size}, but there are only {len(videos)} training "
                "videos" + ("" if phase.part == "all" else f" ({phase.part})") + "; lower it"
            )
        if phase.epochs and not stages:
            least = math.ceil(config.train.least_steps / steps)
            phase = phase._replace(epochs=max(phase.epochs, least))
        stages.append(Stage(phase, videos, stages[-1].stop if stages else 0, steps))
    return stages


def create_sources(config: ConfigDict) -> tuple[Source, Source]:
    """The training and validation videos. New kinds of source are added here."""
    data = config.data
    train, val = data.train, data.val
    if data.source == "synthetic":
        root = _write_synthetic(**data.synthetic)
        train, val = root / "train.csv", root / "val.csv"
    elif data.source == "prepared":
        if not data.prepared:
            raise UserError(
                "data.prepared is empty; give --config.data.prepared= the folder of a data set "
                "that python -m sofnet_jax.prepare wrote"
            )
        path = Path(expand(data.prepared))
        return create_prepared_source(path, "train"), create_prepared_source(path, "val")
    for name, path in (("train", train), ("val", val)):
        if not path:
            raise UserError(
                f"data.{name} is empty; give --config.data.{name}= a folder with one sub-folder "
                "per class, or a CSV of path,label"
            )
    short_side = data.short_side if data.source == "videos" else 0
    reading = {"short_side": short_side, "keep": data.keep}
    source = create_source(train, **reading)
    return source, create_source(val, classes=source.classes, **reading)


def _write_synthetic(root: str, **arguments: int) -> Path:
    """Write the embedded videos unless they are there; return their folder, by default a cache."""
    name = "_".join([f"v{VERSION}", *(f"{key}{value}" for key, value in arguments.items())])
    remedy = "; give --config.data.synthetic.root= a folder for the embedded videos"
    try:
        folder = Path(expand(root or SYNTHETIC_ROOT / name))
    except UserError as error:
        raise UserError(f"{error}{remedy}") from error
    try:
        create_synthetic(folder, **arguments)
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}{remedy}") from error
    return folder
