"""The table of several parts of a set, each in a folder of runs by `sofnet_jax.compare`.

    python tests/real_table.py runs/composites_0 runs/composites_1 runs/composites_2

Top-1 is over the videos of all parts, and its mean and standard deviation over the seeds. The
interval of a difference to TSN is paired, over the videos. The rule of early exit of a part is
picked on the other parts; "equal cost" baselines may spend as much as SoF-Net does there.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from sofnet_jax.calibrate import calibrate, compute_outcomes, load_runs, pool
from sofnet_jax.data.views import segment_indices
from sofnet_jax.evaluation.metrics import compute_answer, compute_fates, compute_map
from sofnet_jax.report.bootstrap import draw_weights, summarise
from sofnet_jax.report.gates import compute_relevance
from sofnet_jax.systems.early_exit import Rule

LOSS = 0.5  # points of top-1 that early exit may lose where it is picked


def main(*folders: str) -> None:
    runs = {}  # by method, seed and part
    for folder in folders:
        for path in sorted(Path(folder).glob("*_seed*/predictions.npz")):
            method, seed = path.parent.name.split("_seed")
            runs.setdefault(method, {}).setdefault(seed, {})[folder] = load_runs([path.parent])[0]
    seeds = sorted(set.intersection(*(set(own) for own in runs.values())))
    runs = {m: {s: own[s] for s in seeds if len(own[s]) == len(folders)} for m, own in runs.items()}
    print(f"{len(folders)} parts, seeds {', '.join(runs['tsn'])}")
    rows = {}
    for method, own in runs.items():
        rows[method] = {key: whole(run) for key, run in each(own)}
        if method == "sofnet":
            rules = {key: pick(own, *key) for key, _ in each(own)}
            rows["sofnet, early exit"] = {k: whole(run, rules[k]) for k, run in each(own)}
    target = {key: row["cost"] for key, row in rows["sofnet, early exit"].items()}
    mean = np.mean(list(target.values()))
    rows["TSN, k of T"] = fewer(runs["tsn"], mean)
    rows["TSN, confidence exit"] = exits(runs["tsn"], mean)
    for name, row in rows.items():
        print(describe(name, row, rows["tsn"]))
    for name in ("sofnet", "sofnet, early exit"):
        print(detail(name, rows[name]))


def each(own):
    return [((seed, part), run) for seed, parts in own.items() for part, run in parts.items()]


def pick(own, seed, part) -> Rule:
    """The cheapest rule within the loss on the other parts, all seeds; if there are any."""
    others = [run for (_, other), run in each(own) if other != part] or [own[seed][part]]
    outcomes = compute_outcomes(pool([run.predictions for run in others]), others[0].prices)
    return calibrate(outcomes, metric="top1", loss=LOSS).best.rule


def whole(run, rule: Rule | None = None, predictions=None) -> dict:
    p = predictions or run.predictions
    fates = compute_fates(p, rule and rule.threshold, rule.min_frames if rule else 0)
    logits = compute_answer(p, fates)
    e = np.exp(logits - logits.max(1, keepdims=True))
    cost = (run.prices.paper[p.action] * fates.seen).sum(1).mean()
    options = {"threshold": rule.threshold, "min_frames": rule.min_frames} if rule else {}
    return {
        "ids": p.ids,
        "right": p.labels[np.arange(len(p.ids)), logits.argmax(1)] > 0,
        "map": compute_map(e / e.sum(1, keepdims=True), p.labels),
        "cost": float(cost / run.tsn_gflops),
        "used": float((fates.used & fates.seen).sum() / run.predictions.relevant.size),
        "relevance": compute_relevance(p, **options) if predictions is None else None,
        "stops": {
            a.name: float(((p.action == k) & fates.seen).mean())
            for k, a in enumerate(p.actions)
            if not a.uses
        },
    }


def fewer(own, target: float) -> dict:
    """Evenly spaced frames, as many as cost at least as much as SoF-Net."""
    rows = {}
    for key, run in each(own):
        p = run.predictions
        steps = segment_indices(p.num_frames, int(np.ceil(target * p.num_frames)))
        parts = {name: getattr(p, name)[:, steps] for name in ("logits", "time", "action")}
        rows[key] = whole(run, None, replace(p, **parts))
    return rows


def exits(own, target: float) -> dict:
    """The T_min and the confidence that spend as much as SoF-Net, the best of all T_min."""
    best = None
    for least in range(6):
        low, high = 0.0, 1.0
        for _ in range(20):
            middle = (low + high) / 2
            rows = {key: whole(run, Rule(middle, least)) for key, run in each(own)}
            spent = np.mean([row["cost"] for row in rows.values()])
            low, high = (middle, high) if spent < target else (low, middle)
        right = np.mean([row["right"].mean() for row in rows.values()])
        if spent < target + 0.03 and (best is None or right > best[0]):
            best = right, rows
    return best[1]


def describe(name: str, rows: dict, tsn: dict) -> str:
    seeds = sorted({seed for seed, _ in rows})
    by_seed = [np.concatenate([r["right"] for (s, _), r in rows.items() if s == x]) for x in seeds]
    own = [100 * right.mean() for right in by_seed]
    text = f"{name:<22} top-1 {np.mean(own):5.1f} ± {np.std(own, ddof=len(own) > 1):.1f}"
    text += f"  mAP {100 * np.mean([r['map'] for r in rows.values()]):5.1f}"
    text += f"  cost {100 * np.mean([r['cost'] for r in rows.values()]):5.1f} %"
    text += f"  frames {100 * np.mean([r['used'] for r in rows.values()]):5.1f} %"
    if rows is tsn:
        return text
    ids = [f"{part} {i}" for (_, part), r in rows.items() for i in r["ids"]]
    gains = [rows[k]["right"].astype(float) - tsn[k]["right"] for k in rows]
    weights = draw_weights(ids)
    gain = summarise(weights @ np.concatenate(gains) / weights.sum(1))
    return text + "  against TSN {:+.1f} ({:+.1f} … {:+.1f})".format(*(100 * x for x in gain))


def detail(name: str, rows: dict) -> str:
    stops = {k: 100 * np.mean([r["stops"][k] for r in rows.values()]) for k in first(rows)["stops"]}
    text = f"{name}: stopped " + ", ".join(f"{k} {v:.0f} %" for k, v in stops.items())
    if first(rows)["relevance"] is None:
        return text
    share, precision, recall = (
        100 * np.mean([getattr(r["relevance"], field) for r in rows.values()])
        for field in ("share", "precision", "recall")
    )
    text += f"; inside: {share:.0f} % of all, {precision:.0f} % of the kept"
    return f"{text}; recall {recall:.0f} %"


def first(rows: dict) -> dict:
    return next(iter(rows.values()))


if __name__ == "__main__":
    main(*sys.argv[1:])
