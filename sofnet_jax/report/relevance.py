"""Whether the gates keep what matters: their decisions inside and outside the annotated action."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from sofnet_jax.evaluation.metrics import compute_fates
from sofnet_jax.run.predictions import Predictions


@dataclass(frozen=True)
class Relevance:
    """What becomes of frames inside and outside the annotated action; all shares in 0…1.

    Attributes:
        share: of all frames, those inside.
        precision: of the kept frames, those inside; NaN if none was kept.
        inside, outside: of the frames there, those stopped at each gate, by its name; `exit`, never
            looked at after early termination; and `used`, kept. They add to 1; NaN if no frame is
            there.
    """

    share: float
    precision: float
    inside: Mapping[str, float]
    outside: Mapping[str, float]

    @property
    def recall(self) -> float:
        """Of the frames inside, those that were kept; NaN if none is inside."""
        return self.inside["used"]


def compute_relevance(
    predictions: Predictions,
    gate_names: tuple[str, ...],
    *,
    threshold: float | None = None,
    min_frames: int = 0,
) -> Relevance | None:
    """Over all frames of known relevance, with early termination (Eq. 7) if `threshold` is given.

    None if nothing is annotated.
    """
    p = predictions
    inside, outside = p.relevant == 1, p.relevant == 0
    if not (inside | outside).any():
        return None
    kept, seen, _ = compute_fates(p, len(gate_names), threshold, min_frames)
    fates = {name: (p.stop == k) & seen for k, name in enumerate(gate_names)}
    fates |= {"exit": ~seen, "used": kept & seen}
    known = inside | outside
    return Relevance(
        share=_share(inside, known),
        precision=_share(inside, known & fates["used"]),
        inside={name: _share(fate, inside) for name, fate in fates.items()},
        outside={name: _share(fate, outside) for name, fate in fates.items()},
    )


def _share(of: Bool[np.ndarray, "v t"], among: Bool[np.ndarray, "v t"]) -> float:
    return float(of[among].mean()) if among.any() else float("nan")
