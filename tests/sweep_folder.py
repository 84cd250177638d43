"""Folders of finished runs as a sweep leaves them, without training: what reports are made of."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sofnet_jax.evaluation.metrics import create_result
from sofnet_jax.host.files import write_json
from sofnet_jax.report.ablations import METHODS, create_config
from sofnet_jax.run.config import create_default, flatten_fields
from sofnet_jax.run.predictions import Predictions, write_predictions
from sofnet_jax.run.result import write_config
from sofnet_jax.systems.base import Action
from sofnet_jax.systems.registry import create_system
from sofnet_jax.systems.tsn import KEPT

VIDEOS, FRAMES, CLASSES = 40, 4, 5


def create_base(dataset: str = "activitynet", **fields: object) -> ConfigDict:
    config = create_default()
    config.data.name = dataset
    config.data.num_frames = FRAMES
    config.model.backbone = "tiny"
    config.data.size = 48
    config.update_from_flattened_dict(fields)
    return config


def draw_predictions(num_gates: int, *, skill: float = 2.0, seed: int = 0) -> Predictions:
    """The larger `skill`, the more of the videos are recognised; TSN has no gate."""
    rng = np.random.default_rng(seed)
    labels = np.eye(CLASSES, dtype=np.float32)[np.arange(VIDEOS) % CLASSES]
    noise = rng.normal(0, 1, (VIDEOS, FRAMES, CLASSES))
    action = rng.integers(0, num_gates + 1, (VIDEOS, FRAMES))
    action[:, 0] = num_gates
    relevant = np.zeros((VIDEOS, FRAMES), np.float32)
    relevant[:, :2] = 1
    return Predictions(
        ids=tuple(f"{i}.mp4" for i in range(VIDEOS)),
        labels=labels,
        logits=(skill * labels[:, None] + noise).astype(np.float32),
        time=np.tile(np.arange(FRAMES), (VIDEOS, 1)),
        action=action,
        relevant=relevant,
        total=VIDEOS,
        errors={},
        actions=(*(Action(f"res{i + 1}", False, False) for i in range(num_gates)), KEPT),
        pooling="mean",
    )


def write_method(
    workdir: Path,
    method: str,
    seed: int = 0,
    *,
    predictions: Predictions | None = None,
    base: ConfigDict | None = None,
) -> Path:
    """One run, in which the gates have the names of its system; returns its folder."""
    config = create_config(base or create_base(), METHODS[method], seed)
    system = create_system(flatten_fields(config.to_dict()), num_classes=CLASSES)
    predictions = predictions or draw_predictions(len(system.architecture.actions) - 1, seed=seed)
    predictions = replace(predictions, actions=system.architecture.actions)
    result = create_result(
        predictions,
        prices=system.architecture.prices(config.data.size),
        threshold=config.eval.threshold,
        min_frames=config.eval.min_frames,
    )
    folder = workdir / method / f"seed_{seed}"
    folder.mkdir(parents=True)
    write_config(config, folder)
    write_predictions(folder / "predictions.npz", predictions)
    write_json(folder / "result.json", result | {"commit": "abc1234", "seed": seed, "step": 7})
    return folder
