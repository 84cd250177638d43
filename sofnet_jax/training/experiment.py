"""What a configuration describes: data, network, optimizer and their costs."""

import dataclasses
from collections.abc import Callable, Generator
from pathlib import Path

import jax
from jaxtyping import PyTree
from ml_collections import ConfigDict

from sofnet_jax.data.batch import Batch
from sofnet_jax.data.pipeline import create_train_iterator
from sofnet_jax.data.prepared.dataset import create_prepared_source
from sofnet_jax.data.source import Source, create_source
from sofnet_jax.data.synthetic.dataset import VERSION, create_synthetic
from sofnet_jax.evaluation.evaluate import Evaluator, choose_via
from sofnet_jax.host.errors import UserError
from sofnet_jax.parallel import devices
from sofnet_jax.run.config import DTYPES, check_config, select_fields
from sofnet_jax.systems.sofnet.architecture import create_architecture
from sofnet_jax.systems.sofnet.costs import compute_costs, compute_lookup
from sofnet_jax.systems.sofnet.network import SoFNet
from sofnet_jax.systems.sofnet.released import Released
from sofnet_jax.training.optimizer import create_optimizer
from sofnet_jax.training.schedules import create_learning_rate_schedule, create_temperature_schedule
from sofnet_jax.training.step import create_train_step

SYNTHETIC_ROOT = Path("~/.cache/sofnet_jax/synthetic")


class Experiment:
    """A configuration made concrete; generates the synthetic videos if it needs them."""

    def __init__(self, config: ConfigDict):
        """Raises UserError if a value is out of range or data is missing."""
        check_config(config)
        self.config = config
        self.train_source, self.val_source = _create_sources(config)
        released = Released(**config.released)
        if config.model.shift == "online" and released.state:
            raise UserError(
                "model.shift is 'online', which reads kept frames only, but released.state also "
                "remembers others; turn off one of them"
            )
        self.architecture = create_architecture(
            num_classes=len(self.train_source.classes), **config.model
        )
        self.model = SoFNet(
            self.architecture,
            dtype=DTYPES[config.train.dtype],
            bn_axis=devices.AXIS if config.train.sync_batchnorm else None,
            remat=config.train.remat,
            released=released,
        )
        # An incomplete last batch is dropped.
        self.steps_per_epoch = len(self.train_source) // config.train.batch_size
        if not self.steps_per_epoch:
            raise UserError(
                f"train.batch_size is {config.train.batch_size}, but there are only "
                f"{len(self.train_source)} training videos; lower it"
            )
        o, warmup_epochs = config.optimizer, config.train.warmup_epochs
        epochs = {"steps_per_epoch": self.steps_per_epoch, "warmup_epochs": warmup_epochs}
        self.learning_rate = create_learning_rate_schedule(
            o.learning_rate, drop_epochs=tuple(o.drop_epochs), **epochs
        )
        self.temperature = create_temperature_schedule(**config.temperature, **epochs)
        self.optimizer = create_optimizer(
            o.name,
            self.learning_rate,
            momentum=o.momentum,
            weight_decay=o.weight_decay,
            warmup_steps=self.warmup_steps,
            policy_rate=o.policy_rate,
            released=released,
        )
        self.costs = compute_costs(self.architecture, config.data.size)
        self.evaluator = Evaluator(self.model, self.val_source, config, self.costs)

    @property
    def warmup_steps(self) -> int:
        """Steps with frozen policies."""
        return self.config.train.warmup_epochs * self.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.warmup_steps + self.config.train.joint_epochs * self.steps_per_epoch

    @property
    def identity(self) -> dict[str, object]:
        """What a checkpoint must agree on to be restored."""
        model = {f"model.{k}": v for k, v in dataclasses.asdict(self.architecture).items()}
        classes = {"classes": list(self.train_source.classes)}
        return select_fields(self.config, "identity") | model | classes

    @property
    def schedule(self) -> dict[str, object]:
        """What a training must agree on with the checkpoint that it resumes."""
        generated = self.config.data.source == "synthetic"
        version = {"data.synthetic.version": VERSION} if generated else {}
        videos = {"number of training videos": len(self.train_source)}
        return select_fields(self.config, "schedule") | version | videos

    def create_train_step(self, gated: bool) -> Callable:
        """The optimizer step of the joint training; of the warm-up if `gated` is false."""
        return create_train_step(
            self.model,
            self.optimizer,
            gated=gated,
            learning_rate=self.learning_rate,
            temperature=self.temperature,
            lookup=compute_lookup(self.costs[0], self.config.loss.reference_gflops),
            alpha=self.config.loss.alpha,
            beta=self.config.loss.beta,
            guidance=self.config.loss.guidance,
            accumulate=self.config.train.accumulate,
        )

    def create_train_iterator(self, first_step: int) -> Generator[Batch, None, None]:
        """The batches of this process, from an optimizer step on."""
        c = self.config
        return create_train_iterator(
            self.train_source,
            batch_size=c.train.batch_size,
            num_frames=c.data.num_frames,
            size=c.data.size,
            seed=c.seed,
            start=first_step * c.train.batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_workers=c.data.num_workers,
            scales=tuple(c.data.scales),
            flip=c.data.flip,
            via=choose_via(c),
        )

    def describe(self, params: PyTree, workdir: Path, first_step: int) -> str:
        """The summary printed at the start, one screen."""
        c, a, (paper, full) = self.config, self.architecture, self.costs
        sizes = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in params.items()}
        gates = " ".join(a.gate_names) if a.gates else "none (TSN)"
        shift = f"; {a.shift} temporal shift (TSM)" if a.shift else ""
        per_gate = " ".join(f"{g:.4f}" for g in paper.gates)
        start = f"at step {first_step}" if first_step else "from the beginning"
        lines = {
            "model": f"{c.model.backbone}, {sum(sizes.values()):,} parameters "
            f"({sizes['backbone']:,} backbone); gates after {gates}{shift}",
            "compute": f"{paper.whole:.4f} GFLOPs/frame ({full.whole:.4f} full)"
            + (f"; up to each gate {per_gate}" if a.gates else ""),
            "data": f"{len(self.train_source)} training and {len(self.val_source)} validation "
            f"videos, {a.num_classes} classes, {c.data.num_frames} frames of {c.data.size}×"
            f"{c.data.size}",
            "training": f"{c.train.warmup_epochs} + {c.train.joint_epochs} epochs of "
            f"{self.steps_per_epoch} steps, {c.train.batch_size} videos a step, "
            f"{c.optimizer.name}, {c.train.dtype}",
            "devices": f"{jax.device_count()} × {jax.devices()[0].device_kind} in "
            f"{jax.process_count()} process(es)",
            "workdir": f"{workdir}, {start}",
        }
        if followed := [name for name, value in c.released.items() if value]:
            lines["released"] = f"as the authors' code in {', '.join(followed)}"
        notes = [*self.train_source.notes, *self.val_source.notes]
        text = [f"  {name:<9} {line}" for name, line in lines.items()]
        return "\n".join(["SoF-Net", *text, *(f"  note      {note}" for note in notes)])


def _create_sources(config: ConfigDict) -> tuple[Source, Source]:
    """The training and validation videos. New kinds of source are added here."""
    data = config.data
    train, val = data.train, data.val
    if data.source == "synthetic":
        arguments = data.synthetic.to_dict()
        given = arguments.pop("root")
        name = "_".join([f"v{VERSION}", *(f"{key}{value}" for key, value in arguments.items())])
        root = (Path(given) if given else SYNTHETIC_ROOT / name).expanduser()
        create_synthetic(root, **arguments)
        train, val = root / "train.csv", root / "val.csv"
    elif data.source == "prepared":
        if not data.prepared:
            raise UserError(
                "data.prepared is empty; give --config.data.prepared= the folder of a data set "
                "that python -m sofnet_jax.prepare wrote"
            )
        path = Path(data.prepared).expanduser()
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
