"""The folder of a run with given weights, as training leaves it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
from gated_network import SIZE

from sofnet_jax.run.checkpoint import Checkpoints
from sofnet_jax.run.config import create_default
from sofnet_jax.run.result import write_config

# Of a run of `gated_network.create_network`, some of whose videos end early.
GATED = {
    "data.size": SIZE,
    "data.num_frames": 6,
    "data.short_side": 40,
    "eval.threshold": 0.6,
    "eval.min_frames": 1,
}


def write_run(
    folder: Path,
    variables: dict,
    classes: list[str],
    fields: dict[str, object] | None = None,
    architecture: Any = None,
) -> Path:
    """A run with one checkpoint; `fields` are those of the configuration that are not defaults.

    The checkpoint tells its `architecture` if that is given.
    """
    config = create_default()
    config.update_from_flattened_dict(fields or {})
    folder.mkdir(parents=True, exist_ok=True)
    write_config(config, folder)
    checkpoints = Checkpoints(folder / "checkpoints", metric=config.eval.metric)
    state = {"step": np.array(7), **variables, "opt_state": {}}
    identity = {"classes": classes}
    if architecture is not None:
        told = {"system": config.model.system} | dataclasses.asdict(architecture)
        identity |= {f"model.{name}": value for name, value in told.items()}
    record = {"identity": identity}
    checkpoints.save(7, jax.tree.map(np.asarray, state), json.loads(json.dumps(record)))
    checkpoints.close()
    return folder
