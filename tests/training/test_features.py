"""Phases in which only the gates learn, from features that are computed once."""

import itertools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from program import read_state
from scene_video import write_scene

from sofnet_jax.compare import compare
from sofnet_jax.host.errors import UserError
from sofnet_jax.parallel import devices
from sofnet_jax.run.config import apply_variant, create_default
from sofnet_jax.systems.sofnet.system import standardise
from sofnet_jax.training.experiment import Experiment
from sofnet_jax.training.features import Features, compute_features
from sofnet_jax.training.loop import train

STEPS = 7


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for v in range(8):
        write_scene(root / f"class{v % 2}" / f"{v}.mp4", seed=v)
    return str(root)


def create_config(data, variant="", **train_fields):
    config = create_default()
    config.data.update({"train": data, "val": data, "num_frames": 4, "size": 32, "num_workers": 0})
    config.model.update({"backbone": "tiny", "width": 4, "hidden": 8, "forward_bias": 1.0})
    config.train.update({"batch_size": 4, "warmup_epochs": 2, "joint_epochs": 0, "log_every": 1})
    config.train.update({"gate_steps": STEPS, "feature_epochs": 2})
    config.optimizer.update({"learning_rate": 0.01, "policy_name": "adam", "schedule": "cosine"})
    config.temperature.final = 0.5
    config.eval.batch_size = 8
    config.train.update(train_fields)
    return apply_variant(config, variant)


def _select(state, *words):
    return {
        name: value
        for name, value in state.items()
        if "opt_state" not in name and any(f"'{word}" in name for word in words)
    }


def test_gates_learn_alone_on_the_network_of_tsn(data, tmp_path):
    train(create_config(data), tmp_path / "sofnet")
    train(create_config(data, "tsn"), tmp_path / "tsn")
    after, tsn = read_state(tmp_path / "sofnet"), read_state(tmp_path / "tsn")
    network = _select(tsn, "backbone", "head")
    assert len(network) > 20
    for name, value in network.items():
        np.testing.assert_array_equal(after[name], value, name)
    gates = _select(after, "policy_res1")
    biases = [value for name, value in gates.items() if "'b_q'" in name]
    assert len(gates) > 5 and len(biases) == 1 and (biases[0] != [0, 1]).all()  # as they began


@pytest.mark.parametrize("stopped", [4, 5, 8])  # after the network; at a quarter of the gates'
def test_a_training_resumes_within_the_gates(data, tmp_path, monkeypatch, stopped):
    config = create_config(data)
    experiment = Experiment(config)
    assert experiment.milestones == [2, 4, 6, 8, 10, 11]  # 2 epochs of 2 steps; quarters of 7
    train(config, tmp_path / "whole")

    class Killed(Exception):
        pass

    count = itertools.count(1)
    put = devices.put_batch

    def kill(batch):
        if "labels" in batch and next(count) > stopped:
            raise Killed
        return put(batch)

    monkeypatch.setattr(devices, "put_batch", kill)
    with pytest.raises(Killed):
        train(config, tmp_path / "parts")
    monkeypatch.undo()
    train(config, tmp_path / "parts")
    whole, parts = read_state(tmp_path / "whole"), read_state(tmp_path / "parts")
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value, name)


def test_gates_of_frameexit_learn_alone_on_videos_held_out(data, tmp_path, capsys):
    config = create_config(data, "frameexit")
    config.frameexit.update({"features": 12, "gate_features": (6, 4), "held_out": 0.5})
    stages = Experiment(config).stages
    assert [stage.phase.part for stage in stages] == ["most", "held out"]
    assert stages[1].stop - stages[1].start == STEPS
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), np.uint8)
    system = Experiment(config).system
    variables = system.module.init(jax.random.key(0), jnp.array(frames))
    features = system.extract(variables, jnp.array(frames))
    assert set(features) == {"res5"}
    outputs, again = (system.module.apply(variables, x) for x in (jnp.array(frames), features))
    np.testing.assert_allclose(outputs.step_logits, again.step_logits, rtol=1e-5, atol=1e-6)

    train(config, tmp_path)
    assert f"gates, step {STEPS} of {STEPS}: top-1" in capsys.readouterr().out
    end = read_state(tmp_path)
    config.train.gate_steps = 1
    config.frameexit.gate_epochs = 9  # not read
    train(config, tmp_path / "less")
    start = read_state(tmp_path / "less")
    moved = {name for name, value in end.items() if not np.array_equal(value, start[name])}
    weights = {name for name in moved if "opt_state" not in name and "'step'" not in name}
    assert weights and all("'gates'" in name for name in weights)


def test_gates_see_features_standardised():
    rng = np.random.default_rng(0)
    x = rng.normal(3, [0.1, 1, 5], (50, 3))
    layer = {"kernel": jnp.array(rng.normal(size=(3, 4))), "bias": jnp.array(rng.normal(size=4))}
    mean, deviation = x.mean(0), x.std(0)
    new = standardise(layer, mean, deviation)
    expected = (x - mean) / deviation @ layer["kernel"] + layer["bias"]
    np.testing.assert_allclose(x @ new["kernel"] + new["bias"], expected, rtol=1e-4, atol=1e-4)
    # A constant feature carries nothing, and must not be amplified to overflow.
    new = standardise(layer, mean, np.zeros(3))
    assert np.isfinite(new["kernel"]).all() and np.isfinite(new["bias"]).all()


def test_features_are_those_of_inference_and_their_moments_right(data):
    experiment = Experiment(create_config(data))
    system = experiment.system
    frames = np.random.default_rng(0).integers(0, 256, (4, 4, 32, 32, 3), np.uint8)
    variables = system.module.init(jax.random.key(0), jnp.array(frames))
    found = compute_features(
        iter([{"frames": frames, "labels": np.zeros(4)}] * 2),
        *(2, system.extract, devices.replicate(variables)),
    )
    assert len(found.batches) == 2
    own = found.batches[0]["frames"]
    outputs = system.module.apply(variables, jnp.array(frames))
    again = system.module.apply(variables, jax.tree.map(jnp.array, own))
    np.testing.assert_array_equal(outputs.decision.stop, again.decision.stop)
    np.testing.assert_allclose(outputs.frame_logits, again.frame_logits, rtol=1e-5, atol=1e-6)
    for stage, (mean, deviation) in found.moments.items():
        np.testing.assert_allclose(mean, own[stage].mean((0, 1)), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(deviation, own[stage].std((0, 1)), rtol=1e-2, atol=1e-4)


def test_every_pass_has_an_order_of_its_own_which_a_resumed_training_finds_again():
    features = Features([*range(20)], {})
    order = [*itertools.islice(features.repeat(0, 0), 60)]
    passes = [order[i : i + 20] for i in (0, 20, 40)]
    assert all(sorted(own) == [*range(20)] for own in passes)
    assert passes[0] != passes[1] != passes[2]
    assert [*itertools.islice(features.repeat(0, 33), 27)] == order[33:]
    assert [*itertools.islice(features.repeat(1, 0), 20)] != order[:20]


def test_noise_is_drawn_anew_in_every_pass_and_the_same_again():
    frames = np.full((4, 3, 2), [1, 5], np.float32)
    deviation = np.array([2.0, 0.0])
    features = Features(
        [{"frames": {"res1": frames}, "index": 0}], {"res1": (deviation, deviation)}
    )
    first, second = (b["frames"]["res1"] for b in itertools.islice(features.repeat(0, 0, 0.5), 2))
    assert (first[..., 1] == 5).all() and (second[..., 1] == 5).all()
    assert (first[..., 0] != second[..., 0]).all() and first.dtype == np.float32
    assert 0.5 < np.concatenate([first, second])[..., 0].std() < 1.5
    [again] = itertools.islice(features.repeat(0, 1, 0.5), 1)
    np.testing.assert_array_equal(again["frames"]["res1"], second)
    assert again["index"] == 0 and (frames[..., 0] == 1).all()


def test_no_more_passes_are_stored_than_are_needed(data, monkeypatch):
    counts = []
    monkeypatch.setattr(
        "sofnet_jax.training.experiment.compute_features",
        lambda batches, count, extract, variables: counts.append(count) or Features([], {}),
    )
    for steps, expected in ((3, 4), (7, 4), (1, 2)):  # an epoch has 2 steps; at most 2 epochs
        experiment = Experiment(create_config(data, gate_steps=steps))
        experiment.prepare_features(experiment.stages[1], {})
        assert counts.pop() == expected


def test_the_first_phase_has_enough_steps(data):
    for least, epochs in ((0, 2), (4, 2), (5, 3), (100, 50)):
        stages = Experiment(create_config(data, least_steps=least)).stages
        assert [stage.phase.epochs for stage in stages] == [epochs, 0]
        assert stages[1].stop - stages[1].start == STEPS
    # A network that is given is not trained.
    assert Experiment(create_config(data, least_steps=5, warmup_epochs=0)).stages[0].stop == 0


def test_the_online_shift_is_refused(data):
    with pytest.raises(UserError, match=re.escape("train.gate_steps: with the online shift")):
        Experiment(create_config(data, "tsm_online"))


def test_the_classifier_may_learn_beside_the_gates(data, tmp_path):
    config = create_config(data)
    config.optimizer.classifier_rate = 0.1
    train(config, tmp_path / "sofnet")
    train(create_config(data, "tsn"), tmp_path / "tsn")
    after, tsn = read_state(tmp_path / "sofnet"), read_state(tmp_path / "tsn")
    for name, value in _select(tsn, "backbone").items():
        np.testing.assert_array_equal(after[name], value, name)
    for name, value in _select(tsn, "head").items():
        moved = np.abs(after[name] - value)
        assert 0 < moved.max() < 0.1 * 0.01 * STEPS * 1.5, name  # Adam's steps are its rate long


def test_compare_gives_the_network_of_tsn_to_the_gates(data, tmp_path):
    rows = compare(create_config(data), tmp_path, seed=0)
    assert list(rows) == ["TSN", "SoF-Net", "SoF-Net, early exit"]
    tsn, sofnet = (read_state(tmp_path / f"{name}_seed0") for name in ("tsn", "sofnet"))
    result = json.loads((tmp_path / "sofnet_seed0/result.json").read_text())
    assert result["step"] == STEPS  # none for the network
    for name, value in _select(tsn, "backbone", "head").items():
        np.testing.assert_array_equal(sofnet[name], value, name)
