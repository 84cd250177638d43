"""Checkpoints: the latest and the best are kept and found, in one session and in several."""

import numpy as np
import pytest

from sofnet_jax.checkpoint import Checkpoints


def save(checkpoints: Checkpoints, step: int, top1: float | None) -> None:
    checkpoints.save(step, {"x": np.full(3, step)}, {"step": step})
    checkpoints.wait()
    if top1 is not None:
        checkpoints.rate(step, {"top1": top1, "top5": 1.0, "map": 1 - top1})


@pytest.mark.parametrize("sessions", ["one", "many"])
def test_latest_and_best(sessions, tmp_path):
    checkpoints = Checkpoints(tmp_path, metric="top1")
    best = {1: 1, 2: 1, 3: 1, 4: 1, 5: 1, 6: 6, 7: 6, 8: 8}
    for step, top1 in enumerate((0.5, 0.4, 0.1, None, 0.2, 0.6, 0.3, 0.6), 1):
        save(checkpoints, step, top1)
        if sessions == "many":
            checkpoints.close()
            checkpoints = Checkpoints(tmp_path, metric="top1")
        assert (checkpoints.find("last"), checkpoints.find("best")) == (step, best[step])
        assert checkpoints.is_rated(step) == (top1 is not None)
        found = checkpoints.restore(best[step], {"x": np.zeros(3, int)})["x"]
        np.testing.assert_array_equal(found, best[step])
    assert {p.name for p in tmp_path.iterdir()} == {"6", "8", "metrics.json"}
    checkpoints.close()
    by_map = Checkpoints(tmp_path, metric="map", read_only=True)
    assert by_map.find("best") == 8  # of equals the later


def test_nothing_there(tmp_path):
    checkpoints = Checkpoints(tmp_path / "new", metric="map")
    assert checkpoints.find("last") is None and checkpoints.find("best") is None
    save(checkpoints, 3, None)
    assert checkpoints.find("best") == 3
    checkpoints.close()


def test_a_reader_leaves_what_is_being_written(tmp_path):
    checkpoints = Checkpoints(tmp_path, metric="map")
    save(checkpoints, 1, 0.5)
    partial = tmp_path / "2.orbax-checkpoint-tmp"
    partial.mkdir()
    reader = Checkpoints(tmp_path, metric="map", read_only=True)
    assert reader.find("last") == 1 and partial.is_dir()
    assert reader.read_record(1) == {"step": 1}
    reader.close()
    checkpoints.close()
