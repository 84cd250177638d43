"""Folders of finished runs as a sweep leaves them, without training: what reports are made of."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from sofnet_jax.evaluation.metrics import create_result
from sofnet_jax.host.files import write_json
from sofnet_jax.report.ablations import METHODS, create_config
from sofnet_jax.run.config import create_default
from sofnet_jax.run.predictions import Predictions, write_predictions
from sofnet_jax.run.result import write_config
from sofnet_jax.systems.sofnet.architecture import create_architecture
from sofnet_jax.systems.sofnet.costs import compute_costs

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
    """The larger `skill`, the more of the videos are recognised."""
    rng = np.random.default_rng(seed)
    labels = np.eye(CLASSES, dtype=np.float32)[np.arange(VIDEOS) % CLASSES]
    noise = rng.normal(0, 1, (VIDEOS, FRAMES, CLASSES))
    stop = rng.integers(0, num_gates + 1, (VIDEOS, FRAMES))
    stop[:, 0] = num_gates
    relevant = np.zeros((VIDEOS, FRAMES), np.float32)
    relevant[:, :2] = 1
    return Predictions(
        ids=tuple(f"{i}.mp4" for i in range(VIDEOS)),
        labels=labels,
        frame_logits=(skill * labels[:, None] + noise).astype(np.float32),
        stop=stop,
        relevant=relevant,
        total=VIDEOS,
        errors={},
    )


def write_method(
    workdir: Path,
    method: str,
    seed: int = 0,
    *,
    predictions: Predictions | None = None,
    base: ConfigDict | None = None,
) -> Path:
    """One run; returns its folder."""
    config = create_config(base or create_base(), METHODS[method], seed)
    architecture = create_architecture(num_classes=CLASSES, **config.model)
    names = architecture.gate_names
    predictions = predictions or draw_predictions(len(names), seed=seed)
    result = create_result(
        predictions,
        gate_names=names,
        costs=compute_costs(architecture, config.data.size),
        threshold=config.eval.threshold,
        min_frames=config.eval.min_frames,
    )
    folder = workdir / method / f"seed_{seed}"
    folder.mkdir(parents=True)
    write_config(config, folder)
    write_predictions(folder / "predictions.npz", predictions, names)
    write_json(folder / "result.json", result | {"commit": "abc1234", "seed": seed, "step": 7})
    return folder
