"""What the kept frames of a video say together, and when that is enough."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax


@dataclass(frozen=True)
class Rule:
    """When a video ends early (Eq. 7): after a kept frame, number T̄ of those looked at.

    Attributes:
        threshold: ρ, which the largest class probability has to exceed; None: a video never ends.
        min_frames: T_min, which T̄ has to exceed.
    """

    threshold: float | None = None
    min_frames: int = 0


NEVER = Rule()


@dataclass(frozen=True)
class Result:
    """What became of a video.

    Attributes:
        scores: class probabilities: the softmax of `logits`.
        logits: mean of the kept frames' (Eq. 6).
        stop: index of the gate that stopped each frame looked at; the number of gates if kept.
        ended: whether it ended early.
    """

    scores: Float[np.ndarray, "n"]
    logits: Float[np.ndarray, "n"]
    stop: Int[np.ndarray, "t"]
    ended: bool


class Consensus:
    """The mean logits of the kept frames of a video, and where each frame was stopped."""

    def __init__(self, num_gates: int, num_classes: int, rule: Rule):
        self._num_gates = num_gates
        self._rule = rule
        self._sum = np.zeros(num_classes, np.float32)
        self._kept = 0
        self._stop = bytearray()
        self.ended = False

    def __len__(self) -> int:
        """The number of frames looked at."""
        return len(self._stop)

    @property
    def kept_any(self) -> bool:
        """Whether a frame was kept."""
        return self._kept > 0

    @property
    def scores(self) -> Float[np.ndarray, "n"] | None:
        """Class probabilities so far; None if no frame was kept."""
        return softmax(self._mean) if self._kept else None

    @property
    def _mean(self) -> Float[np.ndarray, "n"]:
        return self._sum / np.float32(max(self._kept, 1))

    def stop(self, gate: int) -> None:
        """Notes a frame that a gate stopped."""
        self._stop.append(gate)

    def keep(self, logits: Float[np.ndarray, "n"]) -> None:
        """Adds the logits of a frame that was kept; the video may have ended with it."""
        self._stop.append(self._num_gates)
        self._sum = self._sum + logits
        self._kept += 1
        if self._rule.threshold is not None and len(self._stop) > self._rule.min_frames:
            self.ended = bool(softmax(self._mean).max() > self._rule.threshold)

    def conclude(self, forced: Float[np.ndarray, "n"] | None = None) -> Result:
        """The result, were the video to end now; its logits are zero if no frame was kept.

        `forced` are the logits of the last frame if that is forwarded for want of a kept one.
        """
        stop, logits = np.array(self._stop, np.int64), self._mean
        if forced is not None:
            stop[-1], logits = self._num_gates, forced
        return Result(softmax(logits), logits, stop, self.ended)
