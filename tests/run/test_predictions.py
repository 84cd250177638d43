"""Stored predictions: what is read is what was written, and nothing from a bad file but a line."""

import dataclasses

import numpy as np
import pytest

from sofnet_jax.evaluation.metrics import compute_metrics
from sofnet_jax.host.errors import UserError
from sofnet_jax.run.predictions import Predictions, read_predictions, write_predictions
from sofnet_jax.systems.base import Action, Prices
from sofnet_jax.systems.tsn import KEPT

ACTIONS = (Action("res1", False, False), Action("res3", False, False), KEPT)


def create_predictions() -> Predictions:
    """Three videos of four frames, five classes, two gates, in the types that evaluation gives."""
    rng = np.random.default_rng(0)
    action = rng.integers(0, 3, (3, 4)).astype(np.int32)
    action[:, -1] = 2
    relevant = rng.integers(0, 2, (3, 4)).astype(np.float32)
    relevant[0] = np.nan
    return Predictions(
        ids=("a.mp4", "ü/b.mp4", "broken\udcff.mp4"),  # a name that is not UTF-8
        labels=np.eye(5, dtype=np.float32)[[0, 3, 3]],
        logits=rng.normal(0, 3, (3, 4, 5)).astype(np.float32),
        time=np.tile(np.arange(4, dtype=np.int32), (3, 1)),
        action=action,
        relevant=relevant,
        total=4,
        errors={"d.mp4": "d.mp4: no video stream"},
        actions=ACTIONS,
        pooling="mean",
    )


def create_ended() -> Predictions:
    """Of a system that takes three steps in five frames, in its own order, and ends by itself."""
    return dataclasses.replace(
        create_predictions(),
        logits=np.random.default_rng(1).normal(0, 3, (3, 3, 5)).astype(np.float32),
        time=np.array([[0, 4, 2], [4, 1, 0], [3, 0, 0]], np.int32),
        action=np.array([[0, 1, 2], [0, 2, -1], [0, -1, -1]], np.int32),
        relevant=np.full((3, 5), np.nan, np.float32),
        actions=(Action("first", True, True), Action("next", True, False), KEPT),
        pooling="last",
    )


CREATE = {"gates": create_predictions, "ends by itself": create_ended}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "predictions.npz"
    write_predictions(path, create_predictions())
    return path


@pytest.mark.parametrize("kind", CREATE)
def test_what_is_read_is_what_was_written(kind, path):
    expected = CREATE[kind]()
    write_predictions(path, expected)
    found = read_predictions(path)
    for name, value in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), value, err_msg=name)
    assert found.actions == expected.actions and type(found.actions[0]) is Action
    assert (found.pooling, found.errors) == (expected.pooling, expected.errors)
    assert found.num_frames == expected.relevant.shape[1]
    assert {x.dtype for x in (found.labels, found.logits, found.relevant)} == {np.dtype("float32")}
    assert [p.name for p in path.parent.iterdir()] == ["predictions.npz"]


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("kind", CREATE)
def test_metrics_are_the_same(kind, path, threshold):
    options = {
        "prices": Prices(np.array([1.0, 2.0, 4.0]), np.array([1.5, 2.5, 5.0])),
        "threshold": threshold,
    }
    expected = CREATE[kind]()
    write_predictions(path, expected)
    found = read_predictions(path)
    assert compute_metrics(found, **options) == compute_metrics(expected, **options)


def test_network_without_gates(tmp_path):
    predictions = dataclasses.replace(
        create_predictions(), action=np.zeros((3, 4), int), actions=(KEPT,), errors={}
    )
    write_predictions(tmp_path / "tsn.npz", predictions)
    found = read_predictions(tmp_path / "tsn.npz")
    assert (found.errors, found.actions) == ({}, (KEPT,))


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
        {"action": arrays["action"][:, :3]},
        {"action": arrays["action"].astype(float)},
        {"time": arrays["time"][:, :3]},
        {"time": arrays["time"].astype(float)},
        {"labels": arrays["labels"][:2]},
        {"logits": arrays["logits"][0]},
        {"logits": arrays["logits"][:, :3]},
        {"errors": np.array("{")},
        {"uses": arrays["uses"][:2]},
        {"answers": arrays["answers"].astype(int)},
        {
            "names": arrays["names"][:2],
            "uses": arrays["uses"][:2],
            "answers": arrays["answers"][:2],
        },
        {"pooling": np.array("sum")},
        {"pooling": np.array(["mean"])},
    ):
        np.savez(path, **arrays | change)
        refuse(path)
    for name in arrays:
        np.savez(path, **{other: array for other, array in arrays.items() if other != name})
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
    [
        ("action", 0, 3),
        ("action", 5, -2),
        ("action", 5, -1),  # ended, and then goes on
        ("time", 0, 4),
        ("time", 5, -1),
        ("logits", 2, np.nan),
        ("ids", 1, "a.mp4"),
    ],
)
def test_what_no_network_says_is_refused(tmp_path, field, place, value):
    predictions = create_predictions()
    if field == "ids":
        ids = list(predictions.ids)
        ids[place] = value
        predictions = dataclasses.replace(predictions, ids=tuple(ids))
    else:
        getattr(predictions, field).reshape(-1)[place] = value
    write_predictions(tmp_path / "p.npz", predictions)
    with pytest.raises(UserError, match="damaged or holds no predictions"):
        read_predictions(tmp_path / "p.npz")
