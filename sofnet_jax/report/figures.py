"""The paper's figures of the gates' decisions, 3 and 4."""

import functools
import io

import numpy as np
from jaxtyping import Int
from PIL import Image

from sofnet_jax.evaluation.metrics import compute_consensus, compute_fates
from sofnet_jax.report import paper
from sofnet_jax.report.collection import Collection, Run, measure
from sofnet_jax.report.part import Bars, Part, Picture, Row, Table
from sofnet_jax.report.tables import warn
from sofnet_jax.training.experiment import Experiment

STRIPS = 6


def create_figure3(collection: Collection) -> Part:
    """Where frames stop, with early termination, for each seed and on average."""
    runs = collection.find("sofnet")
    names = runs[0].gate_names if runs else ()
    kinds = (*names, "exit", "used")
    shares = {kind: measure(runs, functools.partial(read_share, kind=kind)) for kind in kinds}
    shares["stopped"] = measure(runs, lambda run: sum(read_share(run, name) for name in names))
    labels = {
        "used": "used",
        "stopped": "stopped, by any gate",
        **{name: f"stopped at {name}" for name in names},
        "exit": "exit: never looked at",
    }
    rows = []
    for kind, label in labels.items():
        reported = f"{paper.FIGURE_3[kind]:.1f}" if kind in paper.FIGURE_3 else ""
        ours = shares[kind]
        cells = reported, ours.format(".1f") if ours else ""
        rows.append(Row(label, cells, measured=ours is not None))
    drawn = ("stopped", "exit", "used")
    bars = {"paper": tuple(paper.FIGURE_3[kind] for kind in drawn)}
    drawings = [Bars("The paper's, as its text has them", drawn, bars)]
    if runs:
        own = {f"seed {run.seed}": tuple(read_share(run, kind) for kind in kinds) for run in runs}
        drawings.append(Bars(f"Ours, {collection.title}", kinds, own))
    data = [{"seed": run.seed, **{k: read_share(run, k) for k in kinds}} for run in runs]
    return Part(
        "figure3",
        "Figure 3: what becomes of the frames",
        lead=tuple(filter(None, [warn(collection, paper.ACTIVITYNET)])),
        tables=(Table("Percent of the frames", ("", "paper", "ours"), tuple(rows)),),
        drawings=tuple(drawings),
        notes=(
            "The paper draws how the stopped frames spread over the gates, mostly over res1 and "
            "res5, and writes no figures.",
            f"Ours: {collection.describe(['sofnet'])}." if runs else "SoF-Net: not run.",
        ),
        data={"paper": paper.FIGURE_3, "ours": data},
    )


def read_share(run: Run, kind: str, early: bool = True) -> float:
    """Percentage of all frames that are "used", "exit" or stop at a gate."""
    name = {"used": "usage", "exit": "exit"}.get(kind, f"stop/{kind}")
    return 100 * run.metrics(early)[name]


def create_figure4(collection: Collection) -> Part:
    """Strips of a few validation videos, right and wrong, ended early and not.

    Raises:
        UserError: predictions or videos cannot be read.
    """
    runs = collection.find("sofnet")
    title = "Figure 4: decisions, frame by frame"
    if not runs:
        return Part("figure4", title, notes=("SoF-Net: not run.",))
    run = runs[0]
    predictions, gate_names = run.predictions
    kept, seen, observed = compute_fates(predictions, len(gate_names), **run.rule)
    best = compute_consensus(predictions.frame_logits, kept & seen).argmax(-1)
    right = predictions.labels[np.arange(len(best)), best] > 0
    chosen = choose_videos(right, observed < kept.shape[1], STRIPS)
    evaluator = Experiment(run.restore_config()).evaluator
    pictures = [
        Picture(predictions.ids[i], _encode(evaluator.draw(predictions, np.array([i]))))
        for i in chosen
    ]
    return Part(
        "figure4",
        title,
        lead=(
            "Above, what the network was shown; below, the kept frames, res# where a gate stopped "
            "one, exit for those never looked at. The blue bar marks the annotated action.",
        ),
        pictures=tuple(pictures),
        notes=(
            f"{run.folder.parent.name}, seed {run.seed}, commit {run.commit}. Chosen in the order "
            "of the validation videos: right ones ended early and not, then wrong ones.",
        ),
        data={
            "videos": [
                {
                    "id": predictions.ids[i],
                    "right": bool(right[i]),
                    "observed": int(observed[i]),
                    "stop": predictions.stop[i].tolist(),
                }
                for i in chosen
            ]
        },
    )


def choose_videos(right: np.ndarray, ended: np.ndarray, count: int) -> Int[np.ndarray, "v"]:
    """A third each of right videos ended early, right ones not ended early, and wrong ones.

    Each kind is sampled evenly; where it has too few videos, others fill its places.
    """
    part = count // 3
    kinds = [right & ended, right & ~ended, ~right]
    chosen: list[int] = []
    for kind in kinds:
        candidates = np.flatnonzero(kind)
        places = np.linspace(0, max(len(candidates) - 1, 0), min(part, len(candidates)))
        chosen += candidates[places.astype(int)].tolist()
    others = [i for i in range(len(right)) if i not in chosen]
    return np.array((chosen + others)[:count], np.int64)


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
