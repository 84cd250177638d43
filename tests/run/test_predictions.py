"""Stored predictions: what is read is what was written, and nothing from a bad file but a line."""

import dataclasses

import numpy as np
import pytest

from sofnet_jax.evaluation.metrics import compute_metrics
from sofnet_jax.host.errors import UserError
from sofnet_jax.run.predictions import Predictions, read_predictions, write_predictions
from sofnet_jax.systems.sofnet.costs import Cost

GATES = ("res1", "res3")


def create_predictions() -> Predictions:
    """Three videos of four frames, five classes, two gates, in the types that evaluation gives."""
    rng = np.random.default_rng(0)
    stop = rng.integers(0, 3, (3, 4))
    stop[:, -1] = 2
    relevant = rng.integers(0, 2, (3, 4)).astype(np.float32)
    relevant[0] = np.nan
    return Predictions(
        ids=("a.mp4", "ü/b.mp4", "broken\udcff.mp4"),  # a name that is not UTF-8
        labels=np.eye(5, dtype=np.float32)[[0, 3, 3]],
        frame_logits=rng.normal(0, 3, (3, 4, 5)).astype(np.float32),
        stop=stop,
        relevant=relevant,
        total=4,
        errors={"d.mp4": "d.mp4: no video stream"},
    )


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "predictions.npz"
    write_predictions(path, create_predictions(), GATES)
    return path


def test_what_is_read_is_what_was_written(path):
    expected = dataclasses.asdict(create_predictions())
    found, gate_names = read_predictions(path)
    assert gate_names == GATES
    for name, value in dataclasses.asdict(found).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert {x.dtype for x in (found.labels, found.frame_logits, found.relevant)} == {
        np.dtype("float32")
    }
    assert [p.name for p in path.parent.iterdir()] == ["predictions.npz"]


@pytest.mark.parametrize("threshold", [None, 0.5])
def test_metrics_are_the_same(path, threshold):
    options = {
        "gate_names": GATES,
        "costs": (Cost((1.0, 2.0), 4.0), Cost((1.5, 2.5), 5.0)),
        "threshold": threshold,
    }
    found, _ = read_predictions(path)
    assert compute_metrics(found, **options) == compute_metrics(create_predictions(), **options)


def test_network_without_gates(tmp_path):
    predictions = dataclasses.replace(create_predictions(), stop=np.zeros((3, 4), int), errors={})
    write_predictions(tmp_path / "tsn.npz", predictions, ())
    found, gate_names = read_predictions(tmp_path / "tsn.npz")
    assert (found.errors, gate_names) == ({}, ())


def refuse(path):
    with pytest.raises(UserError) as error:
        read_predictions(path)
    assert str(path) in str(error.value) and str(error.value).isprintable()


def test_damaged_files_are_refused(path):
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[:100], whole[:-100], whole[:200] + whole[210:]):
        path.write_bytes(content)
        refuse(path)
    refuse(path.with_name("none.npz"))
    refuse(path.parent)


def test_other_arrays_are_refused(path):
    with np.load(path) as archive:
        arrays = dict(archive)
    for change in (
        {"stop": arrays["stop"][:, :3]},
        {"stop": arrays["stop"].astype(float)},
        {"labels": arrays["labels"][:2]},
        {"frame_logits": arrays["frame_logits"][0]},
        {"errors": np.array("{")},
    ):
        np.savez(path, **arrays | change)
        refuse(path)
    del arrays["total"]
    np.savez(path, **arrays)
    refuse(path)


class Bomb:
    """What a pickle runs when it is read."""

    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


def test_pickles_are_refused(path):
    with np.load(path) as archive:
        arrays = dict(archive)
    bomb = np.array([Bomb(), Bomb(), Bomb()], object)
    np.savez(path, **arrays | {"ids": bomb})
    refuse(path)
    path.write_bytes(bomb.dumps())
    refuse(path)


@pytest.mark.parametrize(
    ("field", "place", "value"),
    [("stop", 0, 3), ("stop", 5, -1), ("frame_logits", 2, np.nan), ("ids", 1, "a.mp4")],
)
def test_what_no_network_says_is_refused(tmp_path, field, place, value):
    predictions = create_predictions()
    if field == "ids":
        ids = list(predictions.ids)
        ids[place] = value
        predictions = dataclasses.replace(predictions, ids=tuple(ids))
    else:
        getattr(predictions, field).reshape(-1)[place] = value
    write_predictions(tmp_path / "p.npz", predictions, GATES)
    with pytest.raises(UserError, match="damaged or holds no predictions"):
        read_predictions(tmp_path / "p.npz")
