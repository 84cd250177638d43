"""The choice of a rule of early exit: by hand, against the metrics, and its command."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from command import call
from sweep_folder import create_base, draw_predictions

from sofnet_jax.calibrate import (
    calibrate,
    compute_loss,
    compute_outcomes,
    format_choice,
    judge,
    list_thresholds,
    load_runs,
    pool,
)
from sofnet_jax.evaluation.metrics import compute_metrics
from sofnet_jax.report.bootstrap import TITLES
from sofnet_jax.run.predictions import Predictions, write_predictions
from sofnet_jax.run.result import write_config
from sofnet_jax.systems.base import Action, Prices
from sofnet_jax.systems.frameexit.architecture import ACTIONS
from sofnet_jax.systems.tsn import KEPT

# How probable the right one of two classes is after each of three frames.
SURE_OF = {
    "a": [0.90, 0.95, 0.99],
    "b": [0.20, 0.30, 0.80],  # at first mistaken, with confidences of 0.8 and 0.7
    "c": [0.60, 0.85, 0.90],
    "d": [0.55, 0.60, 0.70],
}
MISTAKEN = SURE_OF | {"b": [0.01, 0.30, 0.80]}  # at first with a confidence of 0.99
ONE = Prices(np.ones(1), np.ones(1))  # a frame costs 1 GFLOP


def _create(probabilities, pooling="mean") -> Predictions:
    """Videos whose answer after each frame has these probabilities; every frame is kept."""
    p = np.array(list(probabilities.values()))
    logits = np.stack([np.log(p / (1 - p)), np.zeros_like(p)], -1)
    if pooling == "mean":  # the answer is the mean of the frames' logits
        total = logits * np.arange(1, 4)[:, None]
        logits = np.diff(total, axis=1, prepend=0)
    shape = p.shape
    return Predictions(
        ids=tuple(probabilities),
        labels=np.eye(2)[np.zeros(len(p), int)],
        logits=logits,
        time=np.tile(np.arange(3), (len(p), 1)),
        action=np.zeros(shape, int),
        relevant=np.full(shape, np.nan),
        total=len(p),
        errors={},
        actions=(KEPT,),
        pooling=pooling,
    )


def _choose(predictions, prices=ONE, *, loss=0.0, metric="top1", **options):
    outcomes = compute_outcomes(predictions, prices)
    return calibrate(outcomes, metric=metric, loss=loss, **options)


def _draw(seed, pooling="mean", videos=12, steps=5, classes=3):
    """Videos of random decisions, some of which end before their last frame."""
    rng = np.random.default_rng(seed)
    labels = np.eye(classes, dtype=np.float32)[rng.permutation(videos) % classes]
    logits = 2 * labels[:, None] + 2 * rng.normal(size=(videos, steps, classes))
    action = rng.integers(0, 2, (videos, steps))
    action[:, 0] = 1
    action[rng.random(videos) < 0.3, -1] = -1
    first = Action("passed", pooling == "last", False)  # with "mean", what is used answers
    return Predictions(
        ids=tuple(map(str, range(videos))),
        labels=labels,
        logits=logits.astype(np.float32),
        time=np.tile(np.arange(steps), (videos, 1)),
        action=action,
        relevant=np.full((videos, steps), np.nan),
        total=videos,
        errors={},
        actions=(first, KEPT),
        pooling=pooling,
    )


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_rules_by_hand(pooling):
    # No loss is allowed, so b must go on to its third frame.
    # T_min = 0: b goes on if ρ ≥ 0.8. Up to 0.85, a then ends after its first frame and c after its
    # second: 1 + 3 + 2 + 3 frames of four videos. T_min = 1: b goes on if ρ ≥ 0.7. Up to 0.85, a
    # and c end after their second frame: 2 + 3 + 2 + 3. T_min = 2 leaves nothing to save.
    choice = _choose(_create(SURE_OF, pooling))
    assert (choice.never.accuracy, choice.never.gflops) == (1, 3)
    assert [(p.rule.min_frames, p.gflops) for p in choice.rules] == [(0, 9 / 4), (1, 10 / 4)]
    assert 0.8 < choice.rules[0].rule.threshold < 0.85
    assert 0.7 < choice.rules[1].rule.threshold < 0.85
    assert choice.best is choice.rules[0]


def test_a_wrong_answer_that_is_sure_is_waited_for():
    # After one frame b is as sure of the wrong class as a ever is, 0.99: T_min = 0 saves nothing.
    choice = _choose(_create(MISTAKEN))
    assert [(p.rule.min_frames, p.gflops) for p in choice.rules] == [(1, 10 / 4)]


def test_a_loss_that_is_allowed_is_spent():
    # One video of four may be lost: all end after their first frame, where only b is wrong. If
    # T_min = 1, all end after their second, where only b is wrong.
    for loss in (25.0, 40.0):
        choice = _choose(_create(SURE_OF), loss=loss)
        assert [(p.rule.min_frames, p.gflops) for p in choice.rules] == [(0, 1), (1, 2)]
        assert (choice.best.accuracy, choice.best.rule.min_frames) == (3 / 4, 0)
    assert _choose(_create(SURE_OF), loss=24.9).best.gflops == 9 / 4


def test_of_rules_that_cost_the_same_the_more_accurate_one_and_the_later_one_is_best():
    # After one frame all are mistaken, with a confidence of 0.51. With any ρ that lets b go on,
    # T_min = 0 and 1 are the same rule.
    choice = _choose(_create({name: [0.49, *values[1:]] for name, values in SURE_OF.items()}))
    first, second = choice.rules
    assert (first.gflops, first.accuracy) == (second.gflops, second.accuracy)
    assert choice.best is second


def test_stopped_frames_count_and_cost_but_do_not_end_a_video():
    # The first frame is stopped, for a quarter of the price: a video can end after the second.
    p = _create({"a": [0.9, 0.9, 0.9]}, "last")
    actions = (Action("res1", False, False), KEPT)
    p = dataclasses.replace(p, actions=actions, action=np.array([[0, 1, 1]]))
    prices = Prices(np.array([0.25, 1]), np.ones(2))
    choice = _choose(p, prices)
    assert choice.never.gflops == 2.25
    assert [(r.rule.min_frames, r.gflops) for r in choice.rules] == [(0, 1.25), (1, 1.25)]


@pytest.mark.parametrize("metric", TITLES)
@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("seed", range(4))
def test_rules_keep_what_the_metrics_promise_as_do_all_surer_ones_and_none_is_cheaper(
    seed, pooling, metric, monkeypatch
):
    monkeypatch.setattr("sofnet_jax.calibrate._MOST", {"top1": 100, "map": 100})
    p, prices = _draw(seed, pooling), Prices(np.array([0.5, 2.0]), np.ones(2))
    never = compute_metrics(p, prices=prices)
    choice = _choose(p, prices, metric=metric, loss=5.0)
    assert choice.never.accuracy == pytest.approx(never[metric])
    assert choice.never.gflops == pytest.approx(never["gflops_per_video"])
    found = dict.fromkeys(range(5), never["gflops_per_video"])
    for point in choice.rules:
        metrics = compute_metrics(p, prices=prices, **vars(point.rule))
        assert point.accuracy == pytest.approx(metrics[metric])
        assert metrics[metric] >= never[metric] - 0.05 - 1e-9
        assert point.gflops == pytest.approx(metrics["gflops_per_video"])
        found[point.rule.min_frames] = point.gflops
    levels = np.unique(compute_outcomes(p, prices).sure.astype(float))
    thresholds = [*((levels[1:] + levels[:-1]) / 2)[::-1].tolist(), 0.0]  # all that differ
    for least, gflops in found.items():
        for threshold in thresholds:
            m = compute_metrics(p, prices=prices, threshold=threshold, min_frames=least)
            if m[metric] < never[metric] - 0.05 - 1e-9:
                break
            assert m["gflops_per_video"] >= gflops - 1e-9
    assert choice.best.gflops == min(found.values())


def test_thresholds_lie_between_the_confidences_and_are_short():
    surest = np.array([[0.0, 0.8, 0.85], [0.2, 0.2, 0.4]])
    assert list_thresholds(surest, 10) == [0.3, 0.6, 0.82]
    assert list_thresholds(surest, 2) == [0.3, 0.82]
    assert list_thresholds(np.zeros((2, 3)), 10) == []
    many = np.random.default_rng(0).random((30, 40))
    found = list_thresholds(many, 50)
    assert len(found) == 50 and np.diff(found).min() > 0
    # Neighbours of which one is 1, which no probability exceeds.
    ones = np.array([[np.nextafter(np.float32(1), np.float32(0)), 1]], np.float32)
    [threshold] = list_thresholds(ones, 10)
    assert float(ones[0, 0]) < threshold < 1


def test_a_threshold_that_was_given_is_tried(monkeypatch):
    monkeypatch.setattr("sofnet_jax.calibrate._MOST", {"top1": 0})
    assert not _choose(_create(SURE_OF)).rules
    choice = _choose(_create(SURE_OF), thresholds={0.84})
    assert (choice.best.rule.threshold, choice.best.gflops) == (0.84, 9 / 4)


def test_interval_of_the_loss_counts_a_video_of_several_runs_once():
    # Of 40 videos 4 are lost, whose standard error is √(0.1 · 0.9 / 40) = 0.047.
    p = _create({str(i): [0.2 if i < 4 else 0.9, 0.9, 0.9] for i in range(40)})
    intervals = []
    for parts in ([p], [p, p], [p, dataclasses.replace(p, ids=tuple(f"x{i}" for i in p.ids))]):
        outcomes = compute_outcomes(pool(parts), ONE)
        choice = calibrate(outcomes, metric="top1", loss=10.0)
        intervals.append(compute_loss(outcomes, choice, "top1"))
    once, same, others = intervals
    assert once.mean == pytest.approx(0.1)
    assert once == pytest.approx(same)
    assert once.high - once.low == pytest.approx(2 * 1.96 * 0.047, rel=0.15)
    assert others.high - others.low == pytest.approx((once.high - once.low) / 2**0.5, rel=0.15)


def test_the_text_names_the_rule_and_its_loss():
    outcomes = compute_outcomes(_create(SURE_OF), ONE)
    choice = calibrate(outcomes, metric="top1", loss=25.0)
    text = format_choice(choice, outcomes, metric="top1", loss=25.0)
    assert "top-1 100.0 %, 3 GFLOPs/V" in text
    # 1 of 3 GFLOPs is left, and 2 of 3.
    assert re.search(r"^ +0 +0\.0 +75\.0 +\+25\.0 +1 +66\.7$", text, re.MULTILINE)
    assert re.search(r"^ +1 +0\.0 +75\.0 +\+25\.0 +2 +33\.3$", text, re.MULTILINE)
    assert "chosen: ρ = 0.0, T_min = 0, which saves 66.7 % of the GFLOPs" in text
    assert "loss: +25.0 points of top-1, 95 % interval 0.0 … +75.0, so more than 25" in text
    assert "--config.eval.threshold=0.0 --config.eval.min_frames=0" in text


def _write(folder: Path, system: str, predictions: Predictions, **fields) -> Path:
    folder.mkdir()
    write_config(create_base(**{"model.system": system} | fields), folder)
    write_predictions(folder / "predictions.npz", predictions)
    return folder


def _write_tsn(folder: Path, seed: int = 0, **fields) -> Path:
    return _write(folder, "tsn", draw_predictions(0, seed=seed), **fields)


def _refuse(*arguments) -> str:
    """The line that the command ends with."""
    code, out, err = call("calibrate", *arguments)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("error: ")
    return err


def _parse_rule(out: str) -> dict[str, float]:
    found = re.search(r"--config.eval.threshold=(\S+) --config.eval.min_frames=(\d+)", out)
    assert found, out
    return {"threshold": float(found[1]), "min_frames": int(found[2])}


@pytest.mark.parametrize("system", ["tsn", "sofnet", "frameexit"])
def test_the_command_pools_runs_and_its_rule_keeps_the_loss(system, tmp_path):
    for seed in (0, 1):
        gates = {"tsn": 0, "sofnet": 5, "frameexit": 3}[system]
        p = draw_predictions(gates, skill=1.0, seed=seed)
        p = dataclasses.replace(p, ids=tuple(f"{seed}/{id}" for id in p.ids))
        if system == "frameexit":  # each video goes on up to its last frame
            p = dataclasses.replace(
                p, actions=ACTIONS, pooling="last", action=np.tile([0, 1, 1, 3], (len(p.ids), 1))
            )
        _write(tmp_path / str(seed), system, p)
    folders = [tmp_path / "0", tmp_path / "1"]
    code, out, err = call("calibrate", *folders, "--loss=3")
    assert (code, err) == (0, "")
    assert out.startswith(f"2 runs of {system}, 80 videos of 4 frames; without early exit top-1 ")
    runs = load_runs(list(map(str, folders)))
    pooled, prices = pool([run.predictions for run in runs]), runs[0].prices
    never = compute_metrics(pooled, prices=prices)
    metrics = compute_metrics(pooled, prices=prices, **_parse_rule(out))
    assert metrics["top1"] >= never["top1"] - 0.03
    saved = 100 * (1 - metrics["gflops_per_video"] / never["gflops_per_video"])
    assert saved > 1 and f"which saves {saved:.1f} % of the GFLOPs\n" in out
    assert f"\nloss: {100 * (never['top1'] - metrics['top1']):+.1f} points of top-1" in out


def test_rules_are_judged_on_runs_that_they_were_not_picked_on(tmp_path):
    # On one run the first frame is always right, on the other never: each rule fails there.
    p = draw_predictions(0)
    runs = []
    for i, first in enumerate((9 * p.labels, 9 * np.roll(p.labels, 1, axis=1))):
        logits = np.tile(99 * p.labels[:, None], (1, p.logits.shape[1], 1))
        logits[:, 0] = first
        own = dataclasses.replace(p, ids=tuple(f"{i}/{id}" for id in p.ids), logits=logits)
        runs.append(_write(tmp_path / str(i), "tsn", own))
    loaded = load_runs(list(map(str, runs)))
    lost, saved, count = judge(loaded, metric="top1", loss=0.5)
    # The second is ended after its first frame: all of its answers are lost. The first is ended
    # after its second frame, without a loss. Of four frames one and two were looked at.
    assert count == 2 and lost == pytest.approx(0.5)
    assert saved == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert judge(loaded[:1], metric="top1", loss=0.5) is None
    _, out, _ = call("calibrate", *runs)
    assert out.endswith(
        "runs judged by rules picked on runs of other videos: +50.0 points lost, "
        "62.5 % of the GFLOPs saved, mean of 2\n"
    )


def test_map_is_another_accuracy(tmp_path):
    folders = [_write_tsn(tmp_path / str(seed), seed) for seed in (0, 1)]
    code, out, _ = call("calibrate", *folders, "--metric=map", "--loss=2")
    assert code == 0 and " mAP % " in out
    pooled = pool([run.predictions for run in load_runs(list(map(str, folders)))])
    never = compute_metrics(pooled, prices=ONE)["map"]
    assert compute_metrics(pooled, prices=ONE, **_parse_rule(out))["map"] >= never - 0.02


def test_a_single_run_is_noted_also_if_it_is_given_twice(tmp_path):
    folder = _write_tsn(tmp_path / "run")
    (tmp_path / "link").symlink_to(folder)
    for folders in ([folder], [folder, tmp_path / "link"]):
        code, out, err = call("calibrate", *folders)
        assert code == 0 and out.startswith("1 run of tsn, 40 videos")
        assert err == (
            "note: the rule was picked on the videos that it is judged on, which is optimistic\n"
        )


def test_nothing_can_be_saved(tmp_path):
    # Only the last frame is right: whatever ends earlier is wrong.
    p = draw_predictions(0)
    logits = np.zeros_like(p.logits)
    logits[:, :-1] = 9 * np.roll(p.labels, 1, axis=1)[:, None]
    logits[:, -1] = 99 * p.labels
    _write(tmp_path / "run", "tsn", dataclasses.replace(p, logits=logits))
    code, out, _ = call("calibrate", tmp_path / "run")
    assert code == 0
    assert out.splitlines()[1:] == ["no rule within 0.5 points of top-1 saves anything"]


def test_runs_that_cannot_be_pooled_are_refused(tmp_path):
    run = _write_tsn(tmp_path / "run")
    other = _write(tmp_path / "sofnet", "sofnet", draw_predictions(5))
    assert f"{other}: model.system is sofnet, but tsn in {run}" in _refuse(run, other)
    larger = _write_tsn(tmp_path / "larger", **{"data.size": 64})
    assert f"{larger}: data.size is 64, but 48 in {run}" in _refuse(run, larger)
    p = draw_predictions(0)
    fewer = dataclasses.replace(p, labels=p.labels[:, :4], logits=p.logits[:, :, :4])
    fewer = _write(tmp_path / "fewer", "tsn", fewer)
    assert f"{fewer}: the number of classes is 4, but 5 in {run}" in _refuse(run, fewer)
    names = ("logits", "time", "action", "relevant")
    short = dataclasses.replace(p, **{name: getattr(p, name)[:, :3] for name in names})
    short = _write(tmp_path / "short", "tsn", short, **{"data.num_frames": 3})
    assert f"{short}: the number of frames is 3, but 4 in {run}" in _refuse(run, short)
    wide = _write_tsn(tmp_path / "wide", **{"model.width": 32})
    assert f"{wide}: what that costs in GFLOPs is " in _refuse(run, wide)
    gates = {"model.gates": (1, 2)}
    p = dataclasses.replace(draw_predictions(2), ids=tuple(f"x{i}" for i in p.ids))
    gates = _write(tmp_path / "gates", "sofnet", p, **gates)
    assert f"{gates}: what is done with frames is res1, res2, kept, but " in _refuse(other, gates)


def test_mistakes_are_one_line(tmp_path):
    run = _write_tsn(tmp_path / "run")
    assert "name the runs" in _refuse()
    for loss in ("-0.1", "nan", "inf", "101"):
        assert f"--loss={loss}: give points" in _refuse(run, f"--loss={loss}")
    assert "--loss" in _refuse(run, "--loss=little")
    assert "--metric" in _refuse(run, "--metric=top5")
    assert f"{tmp_path} holds no predictions.npz; give the folder" in _refuse(tmp_path)
    assert f"{tmp_path / 'none'} holds no predictions.npz" in _refuse(run, tmp_path / "none")
    (run / "config.json").unlink()
    assert f"{run / 'config.json'}: No such file" in _refuse(run)
    (run / "predictions.npz").write_text("x")
    _write_tsn(tmp_path / "again")
    (tmp_path / "again" / "predictions.npz").write_text("x")
    assert "is damaged or holds no predictions" in _refuse(tmp_path / "again")
