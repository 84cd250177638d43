"""Reports: the paper's numbers, ours and the difference; numbers not measured are left out."""

import dataclasses
import json
import re
import subprocess
import sys

import numpy as np
import pytest
from sweep_folder import (
    CLASSES,
    FRAMES,
    VIDEOS,
    create_base,
    draw_predictions,
    write_method,
)

from sofnet_jax.evaluation.metrics import compute_metrics
from sofnet_jax.host.errors import UserError
from sofnet_jax.report import paper
from sofnet_jax.report.__main__ import SECTIONS, create_sections
from sofnet_jax.report.ablations import EARLY, SOFNET, TSN, Side
from sofnet_jax.report.collection import Value, choose_collection, load_collections
from sofnet_jax.report.comparisons import (
    COMPARISONS,
    NOTHING_SAVED,
    OPEN,
    OPPOSITE,
    SEEN,
    Comparison,
    Outcome,
    compare,
    create_claims,
    judge_gates,
)
from sofnet_jax.report.curves import create_curves, create_table_c
from sofnet_jax.report.figures import choose_videos, create_figure3
from sofnet_jax.report.gates import create_gates
from sofnet_jax.report.page import create_page, write_section
from sofnet_jax.report.runtime import create_table3
from sofnet_jax.report.section import Picture, Section
from sofnet_jax.report.tables import TABLES, create_table, create_table1
from sofnet_jax.report.text import format_section
from sofnet_jax.run.predictions import write_predictions

GATES = 5


def _load(workdir):
    return choose_collection(load_collections(workdir))


def _find_row(section, label, index=0):
    [row] = [row for row in section.tables[index].rows if row.label == label]
    return row


def _create_all(workdir, dataset=""):
    return create_sections(load_collections(workdir), dataset, list(SECTIONS))


def test_the_papers_numbers_agree_with_each_other():
    """T times the GFLOPs of a frame are those of a video; ms times 4,921 videos the total."""
    for line in (line for lines in paper.TABLE_1.values() for line in lines if line.numbers):
        num_frames = int((re.findall(r"T = (\d+)", line.label) or [16])[0])
        whole = num_frames * line.numbers["per_frame"]
        assert line.numbers["per_video"] == pytest.approx(whole, abs=0.06 * num_frames / 10)
    for line in paper.TABLE_5:
        whole = 16 * line.numbers["per_frame"]
        assert line.numbers["per_video"] == pytest.approx(whole, abs=0.1)
    for line in paper.TABLE_3:
        if line.numbers:
            total = 4.921 * line.numbers["runtime"]
            assert line.numbers["total"] == pytest.approx(total, rel=0.001)
    assert sum(paper.FIGURE_3.values()) == pytest.approx(100)
    [usage] = [line.numbers["usage"] for line in paper.TABLE_3 if line.side == EARLY]
    assert usage == paper.FIGURE_3["used"]
    tables = (*paper.TABLE_4, *paper.TABLE_5, *paper.TABLE_A, *paper.TABLE_D)
    for side in (TSN, SOFNET, EARLY):
        same = [line.numbers for line in tables if line.side == side]
        assert len({(n["accuracy"], n["per_video"]) for n in same}) == 1
    [early] = [line.numbers for line in paper.TABLE_5 if line.side == EARLY]
    assert paper.TABLE_C[0.999, 3] == (early["accuracy"], early["per_frame"])


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_differences_are_those_of_its_rows(name):
    accuracies = {line.side: line.numbers.get("accuracy") for line in TABLES[name].lines}
    for c in COMPARISONS[name]:
        pair = accuracies[c.a], accuracies[c.b]
        if c.paper is not None and None not in pair:
            assert c.paper == pytest.approx(pair[0] - pair[1])


def test_a_row_has_the_papers_number_ours_and_the_difference(tmp_path):
    shares = []
    for seed in (0, 1):
        predictions = draw_predictions(0, seed=seed)
        write_method(tmp_path, "tsn", seed, predictions=predictions)
        best = predictions.logits.mean(1).argmax(-1)
        shares.append(100 * np.mean(best == np.arange(VIDEOS) % CLASSES))
    base = create_base("mini_kinetics")
    for seed in (0, 1):
        write_method(
            tmp_path / "k", "tsn", seed, predictions=draw_predictions(0, seed=seed), base=base
        )
    section = create_table("tableB", load_collections(tmp_path)["mini_kinetics"])
    row = _find_row(section, "TSN")
    mean, deviation = np.mean(shares), np.std(shares, ddof=1)
    assert row.cells[:3] == ("39.2", f"{mean:.1f} ± {deviation:.1f}", f"{mean - 39.2:+.1f}")
    assert row.cells[-1] == "tsn, seeds 0 1, abc1234"
    data = section.data["lines"][0]["measures"]["accuracy"]
    assert data["paper"] == 39.2 and data["ours"]["mean"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("value", "spec", "expected"),
    [
        (Value(0.00143, 0.0000961, 3), ".3g", "0.00143 ± 0.00010"),
        (Value(27.42, 1.234, 3), ".3g", "27.4 ± 1.2"),
        (Value(1234.5, None, 1), ".3g", "1234"),
        (Value(0.0, 0.0, 2), ".3g", "0.00 ± 0.00"),
        (Value(96.36, 0.5, 3), ".1f", "96.4 ± 0.5"),
    ],
)
def test_a_mean_and_its_deviation_have_the_same_digits(value, spec, expected):
    assert value.format(spec) == expected


def test_what_was_not_run_says_so_and_is_not_filled_in(tmp_path):
    write_method(tmp_path, "sofnet")
    section = create_table("table4", _load(tmp_path))
    row = _find_row(section, "policy + guidance")
    assert row.cells == ("74.7", "", "", "32.6", "", "", "not run") and not row.measured
    assert any("--methods=tsn,fc_unguided,unguided,fc" in note for note in section.notes)
    ours = [line for line in section.data["lines"] if line["method"] != "sofnet"]
    assert all(m["ours"] is None for line in ours for m in line["measures"].values())
    section = create_table1([_load(tmp_path)])
    assert _find_row(section, "OCSampler (offline, MV2+R50, 224, T = 10)").cells[-1] == "reported"


def test_thresholds_are_those_of_an_evaluation_each(tmp_path):
    predictions = draw_predictions(GATES, skill=4.0)
    write_method(tmp_path, "sofnet", predictions=predictions)
    collection = _load(tmp_path)
    section = create_table_c(collection)
    [run] = collection.find("sofnet")
    assert run.stopping == tuple(f"res{i}" for i in range(1, 6))
    for entry in section.data["grid"]:
        expected = compute_metrics(
            predictions,
            prices=run.prices,
            threshold=entry["rho"],
            min_frames=entry["min_frames"],
        )
        assert entry["accuracy"]["mean"] == pytest.approx(100 * expected["map"])
        assert entry["per_frame"]["mean"] == pytest.approx(expected["gflops_per_frame"])
    costs_along = {e["min_frames"]: [] for e in section.data["grid"]}
    for entry in section.data["grid"]:
        costs_along[entry["min_frames"]].append(entry["per_frame"]["mean"])
    for row in costs_along.values():
        assert row == sorted(row)  # a higher ρ never ends a video sooner
    assert len(section.drawings) == 1


def test_a_comparison_is_on_the_same_videos(tmp_path):
    """With weights of 1: the difference of the accuracies; b against itself is none at all."""
    write_method(tmp_path, "sofnet", predictions=draw_predictions(GATES, skill=3.0))
    write_method(tmp_path, "fc", predictions=draw_predictions(GATES, skill=0.5))
    collection = _load(tmp_path)
    outcome = compare(Comparison("", Side("sofnet"), Side("fc")), "top1", collection)
    runs = [collection.find(method)[0].metrics(False)["top1"] for method in ("sofnet", "fc")]
    assert outcome.points == pytest.approx(100 * (runs[0] - runs[1]))
    assert outcome.interval[0] < outcome.points < outcome.interval[1]
    same = compare(Comparison("", Side("fc"), Side("fc")), "top1", collection)
    assert (same.interval, same.gflops_ratio) == ((0, 0), 1)
    missing = compare(Comparison("", Side("fc"), Side("tsm")), "top1", collection)
    assert missing.points is None and missing.missing == "no tsm"


@pytest.mark.parametrize(
    ("interval", "cost", "by_sign", "by_saving"),
    [
        ((0.1, 2.0), 0.8, SEEN, SEEN),
        ((0.0, 2.0), 0.8, OPEN, SEEN),
        ((-0.5, 2.0), 0.8, OPEN, SEEN),
        ((-3.0, 2.0), 0.8, OPEN, OPEN),
        ((-3.0, -1.1), 0.8, OPPOSITE, OPPOSITE),
        ((-0.5, -0.1), 0.8, OPPOSITE, SEEN),
        ((0.1, 2.0), 1.1, SEEN, NOTHING_SAVED),
        ((0.0, 0.0), 1.0, OPEN, NOTHING_SAVED),
    ],
)
def test_verdicts(interval, cost, by_sign, by_saving):
    outcome = Outcome(None, sum(interval) / 2, interval, cost)
    assert outcome.decide(saves=False) == by_sign
    assert outcome.decide(saves=True) == by_saving


@pytest.mark.parametrize(
    ("gates", "verdict"),
    [
        ([0, 0, 0, 1, 4, 4], "seen"),
        ([0, 0, 0, 1, 2, 3], "seen for the first gate only"),
        ([0, 1, 1, 2, 3, 3], "not seen"),
    ],
)
def test_which_gates_stop_most(tmp_path, gates, verdict):
    predictions = draw_predictions(GATES)
    predictions.logits[:] = 0  # so that no video ends early
    predictions.action[:] = 5
    predictions.action.reshape(-1)[: len(gates)] = gates
    write_method(tmp_path, "sofnet", predictions=predictions)
    row, data = judge_gates(_load(tmp_path))
    assert row.cells[0] == data["verdict"] == verdict
    assert data["stops"]["res1"] == pytest.approx(100 * gates.count(0) / (VIDEOS * FRAMES))


def test_shares_of_figure_3_and_of_the_gates_add_up(tmp_path):
    write_method(tmp_path, "sofnet", predictions=draw_predictions(GATES, skill=5.0))
    collection = _load(tmp_path)
    [shares] = [dict(own) for own in create_figure3(collection).data["ours"]]
    del shares["seed"]
    assert sum(shares.values()) == pytest.approx(100) and shares["exit"] == 0  # T_min = 3 of 4
    [whole, _] = create_gates(collection).data["runs"]
    assert whole["share"] == 0.5  # the first two frames of four
    assert sum(whole["inside"].values()) == pytest.approx(1)
    assert whole["recall"] == whole["inside"]["used"]


def test_pictured_videos_are_of_each_kind():
    right = np.array([True, True, True, False, True, False, True, True])
    ended = np.array([True, False, True, False, False, False, True, False])
    chosen = choose_videos(right, ended, 6)
    assert sorted(chosen[:2]) == [0, 6] and sorted(chosen[2:4]) == [1, 7]
    assert sorted(chosen[4:]) == [3, 5]
    assert len(set(choose_videos(np.ones(3, bool), np.ones(3, bool), 6))) == 3


def test_curves_over_training_and_reported_systems(tmp_path):
    folder = write_method(tmp_path, "sofnet")
    rows = [
        {"step": 10, "train/epoch": 2.0},
        {"step": 10, "eval/top1": 0.1, "eval/map": 0.2, "eval/gflops_per_video": 0.01},
        {"step": 20, "eval/top1": 0.3, "eval/map": 0.4, "eval/gflops_per_video": 0.005},
    ]
    lines = [*map(json.dumps, rows), '{"step": 30, "eval/to']  # cut short by a killed process
    (folder / "metrics.jsonl").write_text("\n".join(lines))
    collection = _load(tmp_path)
    section = create_curves(collection)
    [training] = section.data["training"]
    whole = collection.find("sofnet")[0].tsn_gflops
    assert training["names"] == ["2", "4"] and training["y"] == pytest.approx((20, 40))
    assert training["x"] == pytest.approx((1 / whole, 0.5 / whole))
    reported = dict(
        zip(section.data["reported"]["names"], section.data["reported"]["x"], strict=True)
    )
    assert reported["AdaFrame"] == pytest.approx(100 * 79.0 / 40.3)
    assert "reported" in section.notes[0] and len(section.drawings) == 3


def test_runs_of_several_data_sets_are_not_mixed(tmp_path):
    write_method(tmp_path / "a", "sofnet")
    write_method(tmp_path / "b", "sofnet", base=create_base("thumos14"))
    write_method(tmp_path / "c", "sofnet", base=create_base("mini_kinetics"))
    sections, failures = _create_all(tmp_path)
    made = {section.name: section for section in sections}
    assert set(made) == {"table1", "table2"}
    assert "choose with --dataset" in failures["table4"]
    assert [t.caption for t in made["table1"].tables] == [
        "Paper: ActivityNet-v1.3. Ours: ActivityNet-v1.3.",
        "Paper: Mini-Kinetics. Ours: Mini-Kinetics.",
    ]
    assert made["table2"].data["dataset"] == "thumos14"
    sections, failures = _create_all(tmp_path, "thumos14")
    assert set(failures) == {"figure4"}  # whose videos are not there
    with pytest.raises(UserError, match="--dataset: no runs on 'ucf', only on activitynet, "):
        choose_collection(load_collections(tmp_path), "ucf")


def test_a_folder_without_runs(tmp_path):
    with pytest.raises(UserError, match=r"holds no finished runs \(none begun\); train some: "):
        load_collections(tmp_path)
    folder = write_method(tmp_path, "sofnet")
    (folder / "result.json").unlink()
    with pytest.raises(UserError, match=": not finished"):
        load_collections(tmp_path)
    with pytest.raises(UserError, match="none: no such folder"):
        load_collections(tmp_path / "none")


def test_runs_of_compare_are_found(tmp_path):
    write_method(tmp_path, "sofnet", 3).rename(tmp_path / "sofnet_seed3")
    assert [run.seed for run in _load(tmp_path).find("sofnet")] == [3]


def test_runs_in_a_folder_that_cannot_be_read_are_noted(tmp_path, close_folder):
    (tmp_path / "sofnet_seed0").mkdir()
    close_folder(tmp_path / "sofnet_seed0")
    with pytest.raises(UserError, match="sofnet_seed0: skipped .Permission denied"):
        load_collections(tmp_path)


def test_runs_that_are_not_what_they_seem_are_skipped(tmp_path):
    write_method(tmp_path, "sofnet")
    damaged = write_method(tmp_path, "tsn")
    (damaged / "result.json").write_text('{"eval": ')
    other = write_method(tmp_path, "fc")
    config = json.loads((other / "config.json").read_text())
    config["model"]["temporal"] = True
    (other / "config.json").write_text(json.dumps(config))
    shifted = write_method(tmp_path, "tsn", 1, base=create_base(**{"model.shift": "online"}))
    larger = write_method(tmp_path, "sofnet_224", 3).rename(tmp_path / "sofnet" / "seed_3")
    weighted = write_method(tmp_path, "unguided", base=create_base(**{"loss.alpha": 0.5}))
    moved = write_method(tmp_path, "sofnet", 1)
    moved.rename(tmp_path / "sofnet" / "seed_2")
    shorter = create_base(**{"train.joint_epochs": 5})
    write_method(tmp_path, "beta05", base=shorter)
    again = write_method(tmp_path / "z", "sofnet")
    collection = _load(tmp_path)
    assert {m: len(runs) for m, runs in collection.runs.items()} == {"sofnet": 1, "beta05": 1}
    notes = "\n".join(collection.notes)
    for expected in (
        f"{damaged / 'result.json'} is damaged",
        f"{other}: skipped, model.temporal is True, but False in fc",
        f"{shifted}: skipped, model.shift is 'online', but '' in tsn",
        f"{larger}: skipped, data.size is 64, not 48",
        f"{weighted}: skipped, loss.alpha is 0.5, not 0.9",
        "seed_2: skipped, its seed is 1, not that of its name",
        "beta05/seed_0: train.joint_epochs is 5, not 60 as in ",
        f"{again}: skipped, ",
    ):
        assert expected in notes


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("result.json", {"eval": []}),
        ("result.json", {"eval": None}),
        ("result.json", {"eval_early": "none"}),
        ("result.json", {"eval": {"top1": float("nan")}}),
        ("config.json", {"model": {"gates": 5}}),
        ("config.json", {"data": {"size": "a"}}),
        ("config.json", {"eval": {"threshold": None}}),
    ],
)
def test_damaged_runs_are_skipped(tmp_path, file, damage):
    write_method(tmp_path, "tsn")
    folder = write_method(tmp_path, "sofnet")
    content = json.loads((folder / file).read_text())
    for name, value in damage.items():
        content[name] = content[name] | value if isinstance(value, dict) else value
    (folder / file).write_text(json.dumps(content))
    collection = _load(tmp_path)
    assert set(collection.runs) == {"tsn"}
    [note] = collection.notes
    assert f"{folder / file} is damaged" in note


def test_odd_logs_names_and_gates_are_accepted(tmp_path):
    base = create_base(**{"model.gates": (3,)})
    predictions = draw_predictions(1)
    ids = ("<b>\udcff.mp4", *predictions.ids[1:])
    predictions = dataclasses.replace(predictions, ids=ids)
    folder = write_method(tmp_path, "sofnet", predictions=predictions, base=base)
    lines = ["5", '["train/epoch"]', '{"step": "a", "train/epoch": null}', "\udcff"]
    (folder / "metrics.jsonl").write_text("\n".join(lines), errors="surrogateescape")
    sections, failures = _create_all(tmp_path)
    assert set(failures) == {"figure4"}  # whose videos are not there
    for section in sections:
        write_section(tmp_path / "out", section)
        format_section(section)
    page = create_page("", (), [Section("p", "<i>", drawings=(Picture(ids[0], bytes(24)),))])
    assert "<b>" not in page and "<i>" not in page


def test_predictions_of_other_gates_are_refused(tmp_path):
    folder = write_method(tmp_path, "sofnet", base=create_base(**{"model.gates": (3,)}))
    assert _load(tmp_path).find("sofnet")[0].predictions.actions[0].name == "res3"
    write_predictions(folder / "predictions.npz", draw_predictions(1))  # a gate after res1
    with pytest.raises(UserError, match="config.json disagree on the gates"):
        _ = _load(tmp_path).find("sofnet")[0].predictions


@pytest.mark.parametrize("method", ["sofnet", "tsn"])
def test_plain_cost_is_that_of_tsn(method, tmp_path):
    for name in ("sofnet", "tsn"):
        write_method(tmp_path, name)
    collection = _load(tmp_path)
    [run], [tsn] = collection.find(method), collection.find("tsn")
    assert run.tsn_gflops == pytest.approx(tsn.metrics(False)["gflops_per_video"])


def test_missing_predictions_are_reported_and_the_rest_is_made(tmp_path):
    for method in ("tsn", "sofnet"):
        folder = write_method(tmp_path, method)
    (folder / "predictions.npz").unlink()
    sections, failures = _create_all(tmp_path)
    assert set(failures) == {"figure4", "tableC", "gates", "curves"}
    assert all("predictions.npz" in why for why in failures.values())
    [table4] = [section for section in sections if section.name == "table4"]
    assert "predictions.npz" in table4.tables[1].rows[0].cells[-1]
    assert table4.tables[0].rows[0].measured


def test_runtime_is_of_the_seed_that_was_measured(tmp_path):
    for seed in (0, 1):
        write_method(tmp_path, "sofnet", seed)
    section = create_table3(_load(tmp_path))
    assert _find_row(section, "SoF-Net (168)").cells[1] == ""
    assert "python -m sofnet_jax.benchmark runtime" in section.notes[0]
    content = {
        "dataset": "activitynet",
        "host": "a host",
        "device": "a device",
        "videos": 3,
        "repeats": 5,
        "methods": {
            "sofnet": {"seed": 1, "milliseconds": {"frame by frame": 2.5, "as one program": 1.5}}
        },
    }
    (tmp_path / "runtime.json").write_text(json.dumps(content))
    row = _find_row(create_table3(_load(tmp_path)), "SoF-Net (168)")
    assert row.cells[:7] == ("74.6", "2.50", "-72.1", "367.2", "0.1", "-367.1", "1.50")
    for damage in ("{", "[]", json.dumps(content | {"methods": {"sofnet": {}}})):
        (tmp_path / "runtime.json").write_text(damage)
        with pytest.raises(UserError, match="damaged; measure again"):
            create_table3(_load(tmp_path))
    (tmp_path / "runtime.json").write_text(json.dumps(content | {"dataset": "thumos14"}))
    with pytest.raises(UserError, match="was measured on thumos14, not on activitynet"):
        create_table3(_load(tmp_path))


def test_claims_that_were_not_run_are_not_decided(tmp_path):
    write_method(tmp_path, "fc")
    section = create_claims(_load(tmp_path))
    assert {claim["verdict"] for claim in section.data["claims"]} == {"not run"}
    assert not any(row.measured for row in section.tables[0].rows)


@pytest.mark.slow
def test_the_command(tmp_path, write_video):
    lines = []
    for i in range(VIDEOS):
        lines.append(f"{i}.mp4,{i % CLASSES}")
    for i in (0, 1, 2):
        write_video(tmp_path / f"{i}.mp4", range(8))
    for name in map(str, range(3, VIDEOS)):
        (tmp_path / f"{name}.mp4").symlink_to(tmp_path / "0.mp4")
    (tmp_path / "val.csv").write_text("\n".join(lines))
    fields = {
        "data.train": str(tmp_path / "val.csv"),
        "data.val": str(tmp_path / "val.csv"),
        "data.num_workers": 0,
    }
    base = create_base("videos", **fields)
    for method in ("tsn", "sofnet"):
        write_method(tmp_path / "runs", method, base=base)
    (tmp_path / "runs/sofnet/seed_0/predictions.npz").rename(tmp_path / "kept.npz")

    def report(*arguments):
        command = [sys.executable, "-m", "sofnet_jax.report", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    done = report("all", f"--workdir={tmp_path / 'runs'}")
    assert done.returncode == 1
    expected = r"^error: figure4, tableC, gates, curves: \S*predictions.npz: "
    assert re.search(expected, done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr
    page = (tmp_path / "runs/report/index.html").read_text()
    assert "not run" in page and "Could not be created: figure4, tableC, " in page
    assert (tmp_path / "runs/report/table4.csv").exists()

    (tmp_path / "kept.npz").rename(tmp_path / "runs/sofnet/seed_0/predictions.npz")
    done = report("figure4", f"--workdir={tmp_path / 'runs'}", f"--out={tmp_path / 'out'}")
    assert (done.returncode, done.stderr) == (0, "")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"figure4.json", "figure4.png", *(f"figure4_{n}.png" for n in range(2, 7))}
