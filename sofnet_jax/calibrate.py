"""Choose the rule of early exit that saves most within a promised loss of accuracy.

usage: python -m sofnet_jax.calibrate RUN [RUN …] [--loss=POINTS] [--metric=top1|map]
example: python -m sofnet_jax.calibrate runs/fold1 runs/fold2 --loss=0.5

A video ends after a kept frame if more than T_min frames were looked at and the largest class
probability exceeds ρ (Eq. 7): eval.min_frames and eval.threshold. RUN is the folder of a finished
run, whose predictions.npz says what every rule would yield. Several runs must be of one network;
their videos are pooled. Give runs on other folds or seeds than the run that the rule is meant for.
"""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from absl import flags
from jaxtyping import Bool, Float, Int
from scipy.special import softmax

from sofnet_jax.evaluation.metrics import (
    compute_answer,
    compute_fates,
    compute_map,
    compute_metrics,
)
from sofnet_jax.evaluation.table import align_columns
from sofnet_jax.host import command_line
from sofnet_jax.host.command_line import make_printable, say_note
from sofnet_jax.host.errors import UserError, explain_unreadable
from sofnet_jax.host.paths import expand
from sofnet_jax.host.streams import printing
from sofnet_jax.report.bootstrap import (
    TITLES,
    Difference,
    Metric,
    Scored,
    compute_weighted_accuracy,
    draw_weights,
    summarise,
)
from sofnet_jax.report.collection import Run
from sofnet_jax.run.config import read_fields
from sofnet_jax.run.predictions import Predictions
from sofnet_jax.systems.base import Prices
from sofnet_jax.systems.early_exit import NEVER, Rule

LOSS = flags.DEFINE_float("loss", 0.5, "Points of accuracy, in percent, that may be lost.")
METRIC = flags.DEFINE_enum("metric", "top1", ["top1", "map"], "Accuracy whose loss is limited.")

_MOST = {"top1": 200, "map": 20}  # thresholds for each T_min; mAP takes 20 ms for each
_ROUNDING = 1e-9  # of an accuracy


def main(argv: list[str]) -> None:
    """Pool the runs' predictions and print the rules."""
    if len(argv) < 2:
        raise UserError("name the runs: python -m sofnet_jax.calibrate RUN [RUN …]")
    loss, metric = LOSS.value, cast(Metric, METRIC.value)
    if not 0 <= loss <= 100:  # nor NaN
        raise UserError(f"--loss={loss:g}: give points of accuracy, from 0 to 100")
    jax.config.update("jax_platforms", "cpu")  # nothing here needs an accelerator
    runs = load_runs(argv[1:])
    predictions = pool([run.predictions for run in runs])
    outcomes = compute_outcomes(predictions, runs[0].prices)
    used = {run.rule["threshold"] for run in runs}
    choice = calibrate(outcomes, metric=metric, loss=loss, thresholds=used)
    who = f"{len(runs)} run{'s' * (len(runs) > 1)} of {make_printable(runs[0].method)}"
    extent = f"{len(predictions.ids)} videos of {predictions.num_frames} frames"
    text = format_choice(choice, outcomes, metric=metric, loss=loss)
    with printing():
        print(f"{who}, {extent}; {text}", flush=True)
        if choice.rules and (judged := judge(runs, metric=metric, loss=loss)):
            lost, saved, count = judged
            print(
                f"runs judged by rules picked on runs of other videos: {_sign(lost)} points lost, "
                f"{100 * saved:.1f} % of the GFLOPs saved, mean of {count}"
            )
    if len(runs) == 1:
        say_note("the rule was picked on the videos that it is judged on, which is optimistic")


@explain_unreadable()
def load_runs(names: Sequence[str]) -> list[Run]:
    """The runs in these folders, each once.

    Raises:
        UserError: a folder holds no predictions, or the runs are not of one network.
    """
    folders = [Path(expand(name)) for name in names]
    runs = [_load_run(folder) for folder in {f.resolve(): f for f in folders}.values()]
    first, *others = map(_describe, runs)
    for run, found in zip(runs[1:], others, strict=True):
        for what, value in found.items():
            if value != first[what]:
                raise UserError(
                    f"{run.folder}: {what} is {value}, but {first[what]} in {runs[0].folder}; "
                    "give runs of one network"
                )
    return runs


def _load_run(folder: Path) -> Run:
    if not (folder / "predictions.npz").exists():
        raise UserError(f"{folder} holds no predictions.npz; give the folder of a finished run")
    config = read_fields(folder / "config.json")
    return Run(config["model.system"], config["seed"], folder, config, result={})


def _describe(run: Run) -> dict[str, Any]:
    """What runs must have in common to be pooled, by what it is."""
    p = run.predictions
    return {
        "model.system": run.method,
        "model.backbone": run.config["model.backbone"],
        "data.size": run.config["data.size"],
        "the number of classes": p.labels.shape[1],
        "the number of frames": p.num_frames,
        "the number of steps": p.action.shape[1],
        "what is done with frames": ", ".join(action.name for action in p.actions),
        "what that costs in GFLOPs": ", ".join(f"{price:.6g}" for price in run.prices.paper),
    }


def pool(parts: Sequence[Predictions]) -> Predictions:
    """The predictions of all runs as those of one; an id may occur several times."""
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(p, name) for p in parts])
        for name in ("labels", "logits", "time", "action", "relevant")
    }
    ids = tuple(id for p in parts for id in p.ids)
    return replace(parts[0], ids=ids, total=sum(p.total for p in parts), errors={}, **arrays)


@dataclass(frozen=True)
class Point:
    """A rule, the step after which it ends each video, accuracy in 0…1 and GFLOPs per video."""

    rule: Rule
    end: Int[np.ndarray, "v"]
    accuracy: float
    gflops: float


@dataclass(frozen=True)
class Outcomes:
    """What videos would yield if they ended after each of their steps.

    Attributes:
        ids: the videos; an id may occur several times.
        labels: multi-hot.
        logits: the answer.
        sure: the largest class probability, if the step answered; otherwise 0.
        gflops: spent so far, in the paper's count.
    """

    ids: tuple[str, ...]
    labels: Float[np.ndarray, "v n"]
    logits: Float[np.ndarray, "v s n"]
    sure: Float[np.ndarray, "v s"]
    gflops: Float[np.ndarray, "v s"]

    @functools.cached_property
    def scores(self) -> Float[np.ndarray, "v s n"]:
        """Class probabilities."""
        return softmax(self.logits, axis=-1)

    @functools.cached_property
    def hits(self) -> Bool[np.ndarray, "v s"]:
        """Whether the best class is one of the labels."""
        return np.take_along_axis(self.labels, self.logits.argmax(-1), 1) > 0

    def measure(self, rule: Rule, end: Int[np.ndarray, "v"], metric: Metric) -> Point:
        """Accuracy and cost of a rule after whose step number `end`, from 0, each video ends."""
        videos = np.arange(len(end))
        if metric == "top1":
            accuracy = float(self.hits[videos, end].mean())
        else:
            accuracy = compute_map(self.scores[videos, end], self.labels)
        return Point(rule, end, accuracy, float(self.gflops[videos, end].mean()))


class Choice(NamedTuple):
    """Without early exit, and for each T_min the cheapest rule within the loss, if it saves."""

    never: Point
    rules: tuple[Point, ...]

    @property
    def best(self) -> Point:
        """The cheapest of all; among equal ones the most accurate, then that of most frames."""
        return min(self.rules, key=lambda p: (p.gflops, -p.accuracy, -p.rule.min_frames))


def compute_outcomes(predictions: Predictions, prices: Prices) -> Outcomes:
    """What stored predictions say about every way to end their videos."""
    p, fates = predictions, compute_fates(predictions)
    steps = np.arange(p.action.shape[1])
    parts = [fates._replace(seen=fates.seen & (steps <= last)) for last in steps]
    logits = np.stack([compute_answer(p, part) for part in parts], 1)
    answered = np.array([action.answers for action in p.actions])[p.action] & fates.seen
    sure = np.where(answered, softmax(logits, axis=-1).max(-1), 0)
    gflops = (prices.paper[p.action] * fates.seen).cumsum(1)
    return Outcomes(p.ids, p.labels, logits, sure, gflops)


def calibrate(
    outcomes: Outcomes, *, metric: Metric, loss: float, thresholds: Collection[float] = ()
) -> Choice:
    """Find for each T_min the cheapest rule whose accuracy is at most `loss` points lower.

    Args:
        outcomes: of the videos.
        metric: the accuracy.
        loss: in percent.
        thresholds: to try besides those that the confidences suggest.
    """
    num_videos, num_steps = outcomes.sure.shape
    never = outcomes.measure(NEVER, np.full(num_videos, num_steps - 1), metric)
    options: dict[str, Any] = {"metric": metric, "loss": loss, "thresholds": thresholds}
    found = [_find_cheapest(outcomes, never, least, **options) for least in range(num_steps)]
    return Choice(never, tuple(p for p in found if p.gflops < never.gflops))


def judge(runs: Sequence[Run], *, metric: Metric, loss: float) -> tuple[float, float, int] | None:
    """What rules do on videos that they were not picked on: accuracy lost and GFLOPs saved.

    The rule of each run is picked on the runs that share no video with it. Both are shares, means
    of the runs that have such others, whose number is last; None if there are none.
    """
    found = []
    for run in runs:
        own = set(run.predictions.ids)
        others = [other.predictions for other in runs if own.isdisjoint(other.predictions.ids)]
        if not others:
            continue
        choice = calibrate(compute_outcomes(pool(others), run.prices), metric=metric, loss=loss)
        rule = choice.best.rule if choice.rules else NEVER
        never = compute_metrics(run.predictions, prices=run.prices)
        ended = compute_metrics(
            run.predictions,
            prices=run.prices,
            threshold=rule.threshold,
            min_frames=rule.min_frames,
        )
        saved = 1 - ended["gflops_per_video"] / never["gflops_per_video"]
        found.append((never[metric] - ended[metric], saved))
    if not found:
        return None
    lost, saved = np.mean(found, 0).tolist()
    return lost, saved, len(found)


def _find_cheapest(
    outcomes: Outcomes,
    never: Point,
    min_frames: int,
    *,
    metric: Metric,
    loss: float,
    thresholds: Collection[float],
) -> Point:
    """The lowest threshold that is, with all higher ones, within the loss; `never` without one.

    The higher the threshold, the later videos end, and the more they cost. A lower one that is
    within the loss although one above is not owes that to chance.
    """
    num_steps = outcomes.sure.shape[1]
    late = np.arange(1, num_steps + 1) > min_frames
    surest = np.maximum.accumulate(np.where(late, outcomes.sure, 0), 1)
    tried = sorted({0.0, *list_thresholds(surest, _MOST[metric]), *thresholds})
    goes_on = surest[..., None] <= np.array(tried, surest.dtype)  # rounded as `Rule` does
    ends = np.minimum(goes_on.sum(1), num_steps - 1)
    least, found = never.accuracy - loss / 100 - _ROUNDING, never
    for threshold, end in reversed([*zip(tried, ends.T, strict=True)]):
        point = outcomes.measure(Rule(threshold, min_frames), end, metric)
        if point.accuracy < least:
            break
        found = point
    return found


def list_thresholds(surest: Float[np.ndarray, "v s"], most: int) -> list[float]:
    """Thresholds that differ in the videos that they end, `most` at most, evenly spread.

    Each lies between two neighbouring confidences and has few digits.
    """
    levels = np.unique(surest[surest > 0]).astype(float)
    count = max(len(levels) - 1, 0)
    chosen = np.linspace(0, count - 1, min(count, most)).round().astype(int)
    return [_choose_between(levels[i], levels[i + 1]) for i in chosen]


def _choose_between(low: float, high: float) -> float:
    """The number of fewest digits in the middle half of an interval."""
    middle = float(low + high) / 2
    rounded = (round(middle, digits) for digits in range(1, 20))
    return next(x for x in rounded if abs(x - middle) <= (high - low) / 4)


def compute_loss(outcomes: Outcomes, choice: Choice, metric: Metric) -> Difference:
    """The accuracy that the best rule loses, with its 95 % interval over the choice of videos."""
    weights, videos = draw_weights(outcomes.ids), np.arange(len(outcomes.ids))
    never, best = (
        compute_weighted_accuracy(
            Scored(outcomes.ids, outcomes.labels, outcomes.logits[videos, point.end]),
            weights,
            metric,
        )
        for point in (choice.never, choice.best)
    )
    return summarise(never - best)


def format_choice(choice: Choice, outcomes: Outcomes, *, metric: Metric, loss: float) -> str:
    """The rules as a table, the best one, and how to use it."""
    never, title = choice.never, TITLES[metric]
    lines = [
        f"without early exit {title} {100 * never.accuracy:.1f} %, {never.gflops:.4g} GFLOPs/V"
    ]
    if not choice.rules:
        return "\n".join([*lines, f"no rule within {loss:g} points of {title} saves anything"])
    best, lost = choice.best, compute_loss(outcomes, choice, metric)
    lines += [
        f"the cheapest rule for each T_min that loses at most {loss:g} points:",
        "",
        *_create_table(choice, title),
        "",
        f"chosen: ρ = {best.rule.threshold}, T_min = {best.rule.min_frames}, which saves "
        f"{_save(best, never):.1f} % of the GFLOPs",
        f"loss: {_sign(lost.mean)} points of {title}, 95 % interval {_sign(lost.low)} … "
        + _sign(lost.high)
        + f", so more than {loss:g} is possible on other videos" * (100 * lost.high > loss),
        "use it: repeat the command of sofnet_jax.main that trained the run, with",
        f"    --config.eval.threshold={best.rule.threshold} "
        f"--config.eval.min_frames={best.rule.min_frames}",
        "a finished run is only evaluated; predict follows its config.json, which --mode=evaluate "
        "leaves",
    ]
    return "\n".join(lines)


def _create_table(choice: Choice, title: str) -> list[str]:
    never = choice.never
    cells = [["T_min", "ρ", f"{title} %", "loss", "GFLOPs/V", "saved %"]]
    for p in choice.rules:
        accuracy = f"{100 * p.accuracy:.1f}", _sign(never.accuracy - p.accuracy)
        cost = f"{p.gflops:.4g}", f"{_save(p, never):.1f}"
        cells.append([str(p.rule.min_frames), str(p.rule.threshold), *accuracy, *cost])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return align_columns(cells, [False] * len(widths), widths)


def _sign(difference: float) -> str:
    """A difference in percent, with its sign unless it is rounded to zero."""
    rounded = round(100 * difference, 1)
    return f"{rounded:+.1f}" if rounded else "0.0"


def _save(point: Point, never: Point) -> float:
    """The saved share of the GFLOPs in percent."""
    return 100 * (1 - point.gflops / never.gflops)


if __name__ == "__main__":
    command_line.run(main)
