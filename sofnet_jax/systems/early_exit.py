"""When a video ends early (Eq. 7), and the consensus of its kept frames (Eq. 6)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import softmax


@dataclass(frozen=True)
class Rule:
    """When a video ends early (Eq. 7): after a kept frame, the T̄-th of those observed.

    Attributes:
        threshold: ρ, which the largest class probability must exceed; None: a video never ends.
        min_frames: T_min, which T̄ must exceed.
    """

    threshold: float | None = None
    min_frames: int = 0

    def ends(
        self, logits: Float[np.ndarray, "*b n"], observed: int | Int[np.ndarray, "..."]
    ) -> Bool[np.ndarray, "*b"] | np.bool_:
        """Whether videos end after a kept frame, given the mean kept logits and T̄."""
        if self.threshold is None:
            return np.zeros(logits.shape[:-1], bool)
        sure = softmax(logits, axis=-1).max(-1) > self.threshold
        return sure & (np.asarray(observed) > self.min_frames)


NEVER = Rule()


@dataclass(frozen=True)
class Result:
    """The result of a video.

    Attributes:
        scores: class probabilities: the softmax of `logits`.
        logits: mean of the kept frames' logits (Eq. 6).
        stop: index of the gate that stopped each observed frame; the number of gates if kept.
        ended: whether it ended early.
    """

    scores: Float[np.ndarray, "n"]
    logits: Float[np.ndarray, "n"]
    stop: Int[np.ndarray, "t"]
    ended: bool


class Consensus:
    """The mean logits of a video's kept frames, and where each frame was stopped."""

    def __init__(self, num_gates: int, num_classes: int, rule: Rule):
        self._num_gates = num_gates
        self._rule = rule
        self._sum = np.zeros(num_classes, np.float32)
        self._kept = 0
        self._stop = bytearray()
        self.ended = False

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
        """Records a frame that a gate stopped."""
        self._stop.append(gate)

    def keep(self, logits: Float[np.ndarray, "n"]) -> None:
        """Adds the logits of a kept frame, which may end the video."""
        self._stop.append(self._num_gates)
        self._sum = self._sum + logits
        self._kept += 1
        self.ended = bool(self._rule.ends(self._mean, len(self._stop)))

    def conclude(self, forced: Float[np.ndarray, "n"] | None = None) -> Result:
        """The result if the video ended now; without a kept frame its logits are zero.

        `forced` are the logits of the last frame if it is forwarded because no frame was kept.
        """
        stop, logits = np.array(self._stop, np.int64), self._mean
        if forced is not None:
            stop[-1], logits = self._num_gates, forced
        return Result(softmax(logits), logits, stop, self.ended)
