"""Where a training stands: started from nothing, from weights or from a checkpoint, and saved."""

import dataclasses
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from sofnet_jax.host.errors import UserError
from sofnet_jax.host.files import write_json
from sofnet_jax.host.git import read_commit
from sofnet_jax.parallel import devices
from sofnet_jax.run.checkpoint import Checkpoints, require_same
from sofnet_jax.run.config import complete, refuse_older
from sofnet_jax.training.experiment import Experiment
from sofnet_jax.training.step import TrainState, create_state
from sofnet_jax.weights.load import Report, initialise, load_weights


@dataclasses.dataclass
class Progress:
    """Where a training stands."""

    experiment: Experiment
    checkpoints: Checkpoints
    state: TrainState  # replicated over the devices once the training has begun
    schedule: Mapping[str, Any]  # `Experiment.schedule` of the training that computed the state
    step: int = 0  # optimizer steps done
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)  # why, by training video
    commit: str = dataclasses.field(default_factory=read_commit)  # of this process's code
    started: float = dataclasses.field(default_factory=time.monotonic)

    def restore(self, step: int) -> None:
        """Continues from a checkpoint.

        Raises:
            UserError: it belongs to another model, is damaged, or is from an older version.
        """
        record, folder = self.checkpoints.read_record(step), self.checkpoints.directory
        saved, asked = record["identity"], self.experiment.identity
        if (name := "model.system") in saved:  # another system has other fields in any version
            require_same({name: saved[name]}, {name: asked[name]}, folder)
        saved = complete(saved, asked)
        refuse_older(folder, asked, saved)
        require_same(saved, asked, folder)
        refuse_older(folder, ("init_from",), record["schedule"])
        self.state = devices.replicate(self.checkpoints.restore(step, self.state))
        self.step = step
        self.schedule = complete(record["schedule"], self.experiment.schedule)
        self.left_out = record["left_out"]

    def save(self) -> None:
        """Writes a checkpoint in the background."""
        record = {
            "identity": self.experiment.identity,
            "schedule": self.experiment.schedule,
            "examples": self.step * self.experiment.config.train.batch_size,  # place in the data
            "total_steps": self.experiment.total_steps,
            "left_out": devices.gather_dict(self.left_out),
        }
        self.checkpoints.save(self.step, devices.to_host(self.state), record)


def begin(
    experiment: Experiment, checkpoints: Checkpoints, workdir: Path, *, writable: bool = True
) -> Progress:
    """Continues from the latest checkpoint, or starts; prints what is trained or evaluated.

    Without checkpoints, it starts from the weights that `init_from` names, or from random ones.
    What happened to these weights is written to `workdir/init.json` if that is `writable`.

    Raises:
        UserError: checkpoints of another model, none whole, or unusable weights.
    """
    state = create_state(experiment.system, experiment.optimizer, experiment.config.seed)
    progress = Progress(experiment, checkpoints, state, experiment.schedule)
    report = None
    if experiment.config.init_from and checkpoints.find("last") is None:
        report = _initialise(progress, whole=checkpoints.read_only)
    lines = checkpoints.restore_latest(progress.restore)
    if not progress.step:
        progress.state = devices.replicate(progress.state)
    if jax.process_index() == 0:
        for line in lines:
            print(line, file=sys.stderr, flush=True)
        print(experiment.describe(progress.state.params, workdir, progress.step), flush=True)
        if report:
            print(report, flush=True)
        if report and writable:
            write_json(workdir / "init.json", dataclasses.asdict(report))
    return progress


def _initialise(progress: Progress, *, whole: bool) -> Report:
    """Starts from weights, which with `whole` must fill the network."""
    experiment = progress.experiment
    source = experiment.config.init_from
    variables, report = initialise(
        progress.state.variables,
        load_weights(source, experiment.config.eval.checkpoint),
        experiment.train_source.classes,
        experiment.system,
    )
    if whole and report.reinitialised:
        reasons = ", ".join(dict.fromkeys(report.reinitialised.values()))
        raise UserError(
            f"{source} cannot be evaluated: {len(report.reinitialised)} tensors would be "
            f"random ({reasons}); give weights that hold all of this network, and data with "
            "the classes it was trained on"
        )
    progress.state = dataclasses.replace(progress.state, **variables)
    return report
