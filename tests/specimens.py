"""A tiny network of every system, with random weights that decide differently about videos."""

import functools
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import pytest
from gated_network import SIZE, create_network, draw_videos

from sofnet_jax.evaluation.metrics import compute_answer, compute_fates
from sofnet_jax.run.config import flatten_fields, get_config
from sofnet_jax.run.predictions import Predictions
from sofnet_jax.systems.base import Network, System
from sofnet_jax.systems.early_exit import Rule
from sofnet_jax.systems.registry import create_system
from sofnet_jax.systems.sofnet.released import ReleasedSoFNet

_SIMILAR = ("sofnet_shift", "sofnet_released", "frameexit_online")
FLOAT32 = "float32"  # also where bfloat16 is faster


@dataclass(frozen=True, eq=False)
class Specimen:
    """A system with weights, and prepared for inference."""

    name: str
    system: System
    variables: Any
    network: Network

    @property
    def num_frames(self) -> int:
        """The number of frames of its videos."""
        return self.system.architecture.num_frames or 10

    def draw(self, count: int, num_frames: int | None = None, seed: int = 0) -> np.ndarray:
        """Videos."""
        return draw_videos(count, num_frames or self.num_frames, seed)

    @functools.cached_property
    def _evaluate(self):
        return jax.jit(self.system.evaluate)

    def predict(self, videos: np.ndarray) -> Predictions:
        """What masked evaluation does with videos."""
        steps = jax.tree.map(np.asarray, self._evaluate(self.variables, videos))
        return Predictions(
            ids=tuple(map(str, range(len(videos)))),
            labels=np.eye(self.network.architecture.num_classes)[np.zeros(len(videos), int)],
            logits=steps.logits,
            time=steps.time,
            action=steps.action,
            relevant=np.full(videos.shape[:2], np.nan),
            total=len(videos),
            errors={},
            actions=self.system.architecture.actions,
            pooling=self.system.architecture.pooling,
        )

    def evaluate(self, videos: np.ndarray, rule: Rule) -> tuple[np.ndarray, list[list[tuple]]]:
        """The answer, and the steps (time, action) of every video, by masked evaluation."""
        p = self.predict(videos)
        fates = compute_fates(p, rule.threshold, rule.min_frames)
        traces = [
            list(zip(time[:n].tolist(), action[:n].tolist(), strict=True))
            for time, action, n in zip(p.time, p.action, fates.observed, strict=True)
        ]
        return compute_answer(p, fates), traces


SOFNET = {
    "sofnet": {},
    "sofnet_shift": {"gates": (2, 4), "shift": "online", "seed": 4},
    "sofnet_released": {"share": 0.7, "semantics": ReleasedSoFNet.semantics},
}


@functools.cache
def create_specimen(name: str) -> Specimen:
    """The specimen of this name, of `NAMES`."""
    if name in SOFNET:
        architecture, _, variables = create_network(**SOFNET[name])
        variant = "release" if name == "sofnet_released" else ""
        fields = flatten_fields(get_config(variant).to_dict()) | {"data.size": SIZE}
        system = create_system(fields, architecture=architecture)
    elif name == "tsn":
        system, variables = _create_tsn()
    else:
        system, variables = _create_frameexit(name)
    network = system.deploy(variables, dtype=FLOAT32, winograd=False)
    return Specimen(name, system, variables, network)


def _create_tsn() -> tuple[System, Any]:
    """TSN with the backbone and the classifier of SoF-Net's specimen."""
    _, _, variables = create_network()
    fields = flatten_fields(get_config("tsn").to_dict())
    fields |= {"data.size": SIZE, "model.backbone": "tiny", "model.width": 8}
    own = {
        collection: {k: v for k, v in tree.items() if k in ("backbone", "head")}
        for collection, tree in variables.items()
    }
    return create_system(fields, num_classes=5), own


def _create_frameexit(variant: str) -> tuple[System, Any]:
    """FrameExit whose gates each end a third of the videos that come to them."""
    fields = flatten_fields(get_config(variant).to_dict()) | {"data.num_frames": 6}
    fields |= {"data.size": SIZE, "model.backbone": "tiny", "model.width": 8}
    fields |= {"frameexit.features": 24, "frameexit.gate_features": (8, 4)}
    system = create_system(fields, num_classes=5)
    videos = draw_videos(12, 6, seed=99)
    rng = np.random.default_rng(0)

    def disturb(x):
        return np.array(x + 0.3 * rng.normal(size=x.shape) * (np.abs(x).mean() + 0.01), x.dtype)

    variables = jax.jit(system.module.init)(jax.random.key(0), videos)
    variables = jax.tree.map(disturb, variables)
    exit_ = variables["params"]["gates"]["exit"]
    # It begins at zero. So large, no margin is a matter of rounding; this seed's gates differ.
    drawn = np.random.default_rng(43).normal(0, 20, exit_["kernel"].shape)
    exit_["kernel"] = drawn.astype(np.float32)
    for gate, logits in enumerate(jax.jit(system.module.apply)(variables, videos).gate_logits.T):
        exit_["bias"][gate] -= np.quantile(logits, 2 / 3)
    variables["params"]["classifiers"]["kernel"] *= 8
    return system, variables


NAMES = (*SOFNET, "tsn", "frameexit", "frameexit_online")
# Those that differ little from another are left to the slow tests.
PARAMETERS = [
    pytest.param(name, marks=pytest.mark.slow if name in _SIMILAR else ()) for name in NAMES
]
