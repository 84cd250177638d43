"""The paper's figures of what the gates do, 3 and 4."""

import functools
import io

import numpy as np
from jaxtyping import Int
from PIL import Image

from sofnet_jax.evaluation.metrics import compute_consensus, compute_fates
from sofnet_jax.evaluation.strip import draw_decisions
from sofnet_jax.report import paper
from sofnet_jax.report.collection import Collection, Run, Value, measure
from sofnet_jax.report.part import Bars, Part, Picture, Row, Table
from sofnet_jax.report.tables import warn
from sofnet_jax.training.experiment import create_experiment

STRIPS = 6


def create_figure3(collection: Collection) -> Part:
    """Where frames stop, with early termination, of each seed and on average."""
    runs = collection.find("sofnet")
    names = runs[0].gate_names if runs else ()
    kinds = (*names, "exit", "used")
    shares = {kind: measure(runs, functools.partial(read_share, kind=kind)) for kind in kinds}
    stopped = (
        measure(runs, lambda run: sum(read_share(run, name) for name in names)) if runs else None
    )
    rows = [
        _create_share_row("used", paper.FIGURE_3["used"], shares.get("used")),
        _create_share_row("stopped, by any gate", paper.FIGURE_3["stopped"], stopped),
        *(_create_share_row(f"stopped at {name}", None, shares[name]) for name in names),
        _create_share_row("exit: never looked at", paper.FIGURE_3["exit"], shares.get("exit")),
    ]
    bars = {"paper": tuple(paper.FIGURE_3[kind] for kind in ("stopped", "exit", "used"))}
    drawn = [Bars("The paper's, as its text has them", ("stopped", "exit", "used"), bars)]
    if runs:
        ours = {f"seed {run.seed}": tuple(read_share(run, kind) for kind in kinds) for run in runs}
        drawn.append(Bars(f"Ours, {collection.title}", kinds, ours))
    return Part(
        "figure3",
        "Figure 3: what becomes of the frames",
        lead=tuple(filter(None, [warn(collection, paper.ACTIVITYNET)])),
        tables=(Table("Percent of the frames", ("", "paper", "ours"), tuple(rows)),),
        drawings=tuple(drawn),
        notes=(
            "The paper draws how the stopped frames spread over the gates, mostly over res1 and "
            "res5, and writes no figures.",
            f"Ours: {collection.describe(['sofnet'])}." if runs else "SoF-Net: not run.",
        ),
        data={
            "paper": paper.FIGURE_3,
            "ours": [
                {"seed": run.seed, **{kind: read_share(run, kind) for kind in kinds}}
                for run in runs
            ],
        },
    )


def read_share(run: Run, kind: str, early: bool = True) -> float:
    """Percent of the frames."""
    name = {"used": "usage", "exit": "exit"}.get(kind, f"stop/{kind}")
    return 100 * run.metrics(early)[name]


def _create_share_row(label: str, published: float | None, ours: Value | None) -> Row:
    cells = "" if published is None else f"{published:.1f}", ours.format(".1f") if ours else ""
    return Row(label, cells, measured=ours is not None)


def create_figure4(collection: Collection) -> Part:
    """Strips of a few validation videos: right and wrong ones, ended early and not.

    Raises:
        UserError: predictions or videos that cannot be read.
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
    ids = [predictions.ids[i] for i in chosen]
    experiment = create_experiment(run.restore_config())
    frames, classes = experiment.read_val_frames(ids), experiment.val_source.classes
    pictures = []
    for v, i in enumerate(chosen):
        truth = " + ".join(classes[c] for c in np.flatnonzero(predictions.labels[i]))
        caption = f"{truth}, recognised as {classes[best[i]]}"
        strip = draw_decisions(
            frames=frames[v : v + 1],
            stop=predictions.stop[i : i + 1],
            observed=observed[i : i + 1],
            relevant=predictions.relevant[i : i + 1],
            gate_names=gate_names,
            captions=[caption],
        )
        pictures.append(Picture(ids[v], _encode(strip)))
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
    """As many right ones that ended early as right ones that did not, and the rest wrong ones.

    Where there are too few of a kind, others take their place. Of each kind, those that lie evenly
    over its list.
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
