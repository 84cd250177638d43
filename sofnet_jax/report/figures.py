"""Figures 3 and 4: the gates' decisions."""

import io

import numpy as np
from jaxtyping import Int
from PIL import Image

from sofnet_jax.evaluation.metrics import compute_answer, compute_fates
from sofnet_jax.report import paper
from sofnet_jax.report.collection import Collection, measure
from sofnet_jax.report.section import Bars, Picture, Row, Section, Table
from sofnet_jax.training.experiment import Experiment

STRIPS = 6


def create_figure3(collection: Collection) -> Section:
    """Where frames stop, with early exit, for each seed and on average."""
    runs = collection.find("sofnet")
    names = runs[0].stopping if runs else ()
    own = {run.seed: run.shares(early=True) for run in runs}
    shares = [each | {"stopped": sum(each[name] for name in names)} for each in own.values()]
    labels = {
        "used": "used",
        "stopped": "stopped, by any gate",
        **{name: f"stopped at {name}" for name in names},
        "exit": "exit: never observed",
    }
    rows = []
    for kind, label in labels.items():
        reported = f"{paper.FIGURE_3[kind]:.1f}" if kind in paper.FIGURE_3 else ""
        ours = measure(each[kind] for each in shares)
        rows.append(Row(label, (reported, ours.format(".1f") if ours else ""), ours is not None))
    drawn = ("stopped", "exit", "used")
    bars = {"paper": tuple(paper.FIGURE_3[kind] for kind in drawn)}
    drawings = [Bars("Paper, as stated in its text", drawn, bars)]
    if runs:
        bars = {f"seed {seed}": tuple(each.values()) for seed, each in own.items()}
        drawings.append(Bars(f"Ours, {collection.title}", (*names, "exit", "used"), bars))
    return Section(
        "figure3",
        "Figure 3: where frames stop",
        lead=collection.caution(paper.ACTIVITYNET),
        tables=(Table("Percent of the frames", ("", "paper", "ours"), tuple(rows)),),
        drawings=tuple(drawings),
        notes=(
            "The paper draws the shares of the gates without numbers; res1 and res5 stop the most.",
            f"Ours: {collection.describe(['sofnet'])}." if runs else "SoF-Net: not run.",
        ),
        data={
            "paper": paper.FIGURE_3,
            "ours": [{"seed": seed, **each} for seed, each in own.items()],
        },
    )


def create_figure4(collection: Collection) -> Section:
    """Strips of a few validation videos: correct or not, terminated early or not.

    Raises:
        UserError: predictions or videos cannot be read.
    """
    runs = collection.find("sofnet")
    title = "Figure 4: decisions frame by frame"
    if not runs:
        return Section("figure4", title, notes=("SoF-Net: not run.",))
    run = runs[0]
    predictions = run.predictions
    fates = compute_fates(predictions, **run.rule)
    best = compute_answer(predictions, fates).argmax(-1)
    right = predictions.labels[np.arange(len(best)), best] > 0
    chosen = choose_videos(right, fates.observed < predictions.num_frames, STRIPS)
    evaluator = Experiment(run.restore_config()).evaluator
    pictures = [
        Picture(predictions.ids[i], _encode(evaluator.draw(predictions, np.array([i]))))
        for i in chosen
    ]
    return Section(
        "figure4",
        title,
        lead=(
            "Top: the network's input. Bottom: the kept frames; res# marks a frame that a gate "
            "stopped, exit one that was never observed. The blue bar marks the annotated action.",
        ),
        drawings=tuple(pictures),
        notes=(
            f"{run.folder.parent.name}, seed {run.seed}, commit {run.commit}. In order: videos "
            "classified correctly with and without early exit, then misclassified ones.",
        ),
        data={
            "videos": [
                {
                    "id": predictions.ids[i],
                    "right": bool(right[i]),
                    "observed": int(fates.observed[i]),
                    "stop": predictions.action[i].tolist(),
                }
                for i in chosen
            ]
        },
    )


def choose_videos(right: np.ndarray, ended: np.ndarray, count: int) -> Int[np.ndarray, "v"]:
    """A third each: correct and ended early, correct and not ended early, misclassified.

    Each kind is sampled evenly; if it has too few videos, others fill its places.
    """
    third = count // 3
    kinds = [right & ended, right & ~ended, ~right]
    chosen: list[int] = []
    for kind in kinds:
        candidates = np.flatnonzero(kind)
        places = np.linspace(0, max(len(candidates) - 1, 0), min(third, len(candidates)))
        chosen += candidates[places.astype(int)].tolist()
    others = [i for i in range(len(right)) if i not in chosen]
    return np.array((chosen + others)[:count], np.int64)


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
