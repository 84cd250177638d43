"""Laws of training for every system: in two goes as in one, whatever evaluation's batches are."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from program import read_state
from scene_video import write_scene

from sofnet_jax.evaluation.metrics import compute_answer, compute_fates, compute_top_k
from sofnet_jax.host.errors import UserError
from sofnet_jax.run.config import apply_variant, create_default
from sofnet_jax.run.predictions import read_predictions
from sofnet_jax.training.experiment import Experiment
from sofnet_jax.training.loop import evaluate, train
from sofnet_jax.training.progress import Progress


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for v in range(20):
        write_scene(root / f"class{v % 2}" / f"{v}.mp4", seed=v)
    return str(root)


def create_config(data: str, variant: str):
    config = create_default()
    config.data.update({"train": data, "val": data, "num_frames": 4, "size": 32, "num_workers": 0})
    config.model.update({"backbone": "tiny", "width": 4, "hidden": 8, "forward_bias": 1.0})
    config.train.update({"batch_size": 4, "warmup_epochs": 1, "joint_epochs": 1, "log_every": 1})
    config.train.sync_batchnorm = True
    config.frameexit.update({"features": 12, "gate_features": (6, 4), "held_out": 0.4})
    config.frameexit.gate_epochs = 1
    config.optimizer.learning_rate = 0.01
    config.eval.batch_size = 8
    return apply_variant(config, variant)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["", "tsn", "frameexit", "frameexit_online"])
def test_in_two_goes_as_in_one(variant, data, tmp_path):
    config = create_config(data, variant)
    whole = train(config, tmp_path / "whole")
    part = create_config(data, variant)
    if variant.startswith("frameexit"):
        part.frameexit.gate_epochs = 0
    else:
        part.train.joint_epochs = 0
    train(part, tmp_path / "parts")
    again = train(config, tmp_path / "parts")
    states = [read_state(tmp_path / name) for name in ("whole", "parts")]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        np.testing.assert_array_equal(value, states[1][name], name)
    assert again["eval"] == whole["eval"]
    text = (tmp_path / "whole/metrics.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    losses = [row["train/loss/total"] for row in rows if "train/loss/total" in row]
    assert len(losses) == Experiment(config).total_steps and np.isfinite(losses).all()


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["", "tsn", "frameexit", "frameexit_online"])
def test_evaluation_does_not_depend_on_the_batch(variant, data, tmp_path):
    config = create_config(data, variant)
    result = train(config, tmp_path)
    stored = read_predictions(tmp_path / "predictions.npz")
    top1 = compute_top_k(compute_answer(stored, compute_fates(stored)), stored.labels, 1)
    assert top1 == result["eval"]["top1"]
    config.eval.batch_size = 4 * jax.device_count()  # another one, with padding
    evaluate(config, tmp_path)
    other = read_predictions(tmp_path / "predictions.npz")
    np.testing.assert_array_equal(other.action, stored.action)
    np.testing.assert_array_equal(other.time, stored.time)
    np.testing.assert_allclose(other.logits, stored.logits, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_gates_learn_alone_in_the_second_phase(data, tmp_path):
    config = create_config(data, "frameexit")
    config.frameexit.gate_epochs = 0
    train(config, tmp_path)
    before = read_state(tmp_path)
    config.frameexit.gate_epochs = 2
    train(config, tmp_path)
    after = read_state(tmp_path)
    moved = {name for name in before if not np.array_equal(before[name], after[name])}
    weights = {name for name in moved if "opt_state" not in name and "'step'" not in name}
    assert weights and all("'gates'" in name for name in weights)


def test_fields_that_do_not_fit(data):
    config = create_config(data, "frameexit")
    config.frameexit.held_out = 0.0
    with pytest.raises(UserError, match=r"only 0 training videos \(held out\)"):
        Experiment(config)
    config = create_config(data, "frameexit")
    config.data.num_frames = 1
    with pytest.raises(UserError, match="FrameExit needs at least 2"):
        Experiment(config)
    config = create_config(data, "frameexit,tsm_online")
    with pytest.raises(UserError, match=r"model\.shift: FrameExit"):
        Experiment(config)


@pytest.mark.parametrize("fields", [{"model.system": "tsn"}, {"data.num_frames": 5}])
def test_a_checkpoint_of_another_system_or_length_is_named(data, tmp_path, fields):
    config = create_config(data, "frameexit")
    stored = {"identity": Experiment(config).identity}
    config.update_from_flattened_dict(fields)
    checkpoints = SimpleNamespace(directory=tmp_path, read_record=lambda step: stored)
    progress = SimpleNamespace(experiment=Experiment(config), checkpoints=checkpoints)
    ((field, value),) = fields.items()
    there = {"model.system": "frameexit", "data.num_frames": 4}[field]
    message = f"another run: {field} is {there!r} there and {value!r} in the configuration; give"
    with pytest.raises(UserError, match=message):
        Progress.restore(progress, 1)
