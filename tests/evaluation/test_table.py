from dataclasses import replace

import numpy as np
import pytest

from sofnet_jax.compare import format_comparison
from sofnet_jax.evaluation.metrics import create_result
from sofnet_jax.evaluation.table import format_result
from sofnet_jax.host.files import write_json
from sofnet_jax.run.predictions import Predictions
from sofnet_jax.systems.base import Action, Prices
from sofnet_jax.systems.tsn import KEPT

PREDICTIONS = Predictions(
    ids=("a", "b"),
    labels=np.eye(2, dtype=np.float32),
    logits=np.array([[[9.0, 0.0], [9.0, 0.0]], [[0.0, 1.0], [3.0, 0.0]]]),
    time=np.array([[0, 1], [0, 1]]),
    action=np.array([[1, 1], [1, 0]]),  # only the last frame of "b" is stopped
    relevant=np.array([[1.0, 0.0], [1.0, 0.0]]),
    total=3,
    errors={"c": "c.mp4: no video stream"},
    actions=(Action("res1", False, False), KEPT),
    pooling="mean",
)
ARGUMENTS = {
    "prices": Prices(np.array([1.0, 4.0]), np.array([2.0, 5.0])),
    "threshold": 0.9,
    "min_frames": 0,
}


def test_result_with_and_without_early_termination():
    result = create_result(PREDICTIONS, **ARGUMENTS)
    # Frames cost 4 + 4 and 4 + 1 GFLOPs; "a" is sure after its first frame (0.9999 > 0.9).
    assert result["eval"]["gflops_per_video"] == pytest.approx((8 + 5) / 2)
    assert result["eval_early"]["gflops_per_video"] == pytest.approx((4 + 5) / 2)
    assert result["eval"]["top1"] == 1
    assert (result["eval"]["evaluated"], result["eval"]["total"]) == (2, 3)
    assert result["unreadable"] == {"c": "c.mp4: no video stream"}


def test_table_names_what_is_missing():
    result = create_result(PREDICTIONS, **ARGUMENTS)
    text = format_result("SoF-Net", result | {"left_out": {"d": "d.mp4: empty"}})
    assert "evaluated 2 / 3 videos" in text
    assert "c.mp4: no video stream" in text
    assert "left out of training: 1 video\n" in text and "d.mp4: empty" in text
    rows = [line.split() for line in text.splitlines() if line.startswith("SoF-Net")]
    assert rows[0][1:6] == ["100.0", "100.0", "100.0", "6.5", "8.5"]
    # Used, stopped at res1, never seen, in the span; with early exit "a" ends after one frame.
    assert rows[0][-4:] == ["75.0", "25.0", "0.0", "66.7"]
    assert rows[1][-4:] == ["50.0", "25.0", "25.0", "100.0"]
    assert text.splitlines()[0].split()[-6:] == ["%", "res1", "exit", "in", "span", "%"]


def test_legend_names_the_actions_of_any_system():
    result = create_result(PREDICTIONS, **ARGUMENTS)
    assert "\nres#: share of the frames stopped there" in format_result("SoF-Net", result)
    metrics = {name.replace("stop/res1", "stop/dull"): x for name, x in result["eval"].items()}
    text = format_result("Mine", {"eval": metrics, "unreadable": {}})
    assert "\ndull: share of the frames stopped there" in text and "res#" not in text


def test_network_without_gates_is_not_terminated_early():
    all_kept = replace(PREDICTIONS, action=np.zeros((2, 2), int), actions=(KEPT,))
    prices = Prices(np.array([4.0]), np.array([5.0]))
    result = create_result(all_kept, **ARGUMENTS | {"prices": prices})
    assert "eval_early" not in result
    text = format_result("TSN", result)
    assert "res" not in text and "early exit" not in text


def test_comparison_states_gain_and_cost_over_seeds():
    def row(top1, gflops):
        result = create_result(PREDICTIONS, **ARGUMENTS)
        return result["eval"] | {"top1": top1, "gflops_per_video": gflops}

    results = {
        seed: {"TSN": row(0.8, 10.0), "SoF-Net": row(top1, 4.0), "SoF-Net, early exit": row(0.7, 3)}
        for seed, top1 in ((0, 0.81), (1, 0.83))
    }
    text = format_comparison(results)
    assert "SoF-Net: +2.0 points of top-1 against TSN (by seed: +1.0, +3.0)" in text
    assert "at 40 % of its GFLOPs" in text
    assert "Mean of 2 seeds" in text


def test_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"top1": 1})
    with pytest.raises(TypeError):
        write_json(path, {"top1": object()})
    assert path.read_text() == '{\n  "top1": 1\n}\n'
