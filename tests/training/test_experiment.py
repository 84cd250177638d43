"""What a configuration may not say: each mistake is a UserError that names the field."""

import os

import pytest

from sofnet_jax.host.errors import UserError
from sofnet_jax.run.config import create_default
from sofnet_jax.training.experiment import Experiment

MISTAKES = {
    "data.train": ("/nonexistent", "/nonexistent"),
    "data.val": ("", "data.val is empty"),
    "data.source": ("tfds", "data.source is 'tfds'; choose one of videos, prepared, synthetic"),
    "data.short_side": (-1, "data.short_side is -1"),
    "data.num_frames": (0, "data.num_frames is 0"),
    "data.size": (-1, "data.size is -1"),
    "data.num_workers": (-1, "data.num_workers is -1"),
    "data.scales": ((), "data.scales is ()"),
    "seed": (2**63, "seed is 9223372036854775808"),
    "model.backbone": ("resnet5", "resnet50"),
    "model.gates": ((3, 1), "ascending"),
    "model.hidden": (0, "model.hidden is 0"),
    "model.width": (-1, "model.width is -1"),
    "model.shift": ("bidirectional", "choose one of '', offline, online"),
    "model.dropout": (1.0, "model.dropout is 1.0"),
    "train.batch_size": (400, "only 4 training videos"),
    "train.accumulate": (3, "4 device(s) × 3 micro-batch(es)"),
    "train.warmup_epochs": (-1, "train.warmup_epochs is -1"),
    "train.dtype": ("float16", "float32, bfloat16"),
    "loss.alpha": (1.5, "loss.alpha is 1.5"),
    "loss.beta": (float("nan"), "loss.beta is nan"),
    "optimizer.name": ("sdg", "sgd"),
    "optimizer.learning_rate": (float("inf"), "optimizer.learning_rate is inf"),
    "optimizer.momentum": (1.5, "optimizer.momentum is 1.5"),
    "optimizer.policy_rate": (-1.0, "optimizer.policy_rate is -1.0"),
    "optimizer.weight_decay": (float("nan"), "optimizer.weight_decay is nan"),
    "optimizer.drop_epochs": ((-20,), "optimizer.drop_epochs is (-20,)"),
    "temperature.initial": (0.0, "temperature.initial is 0.0"),
    "model.forward_bias": (float("nan"), "model.forward_bias is nan"),
    "eval.metric": ("map5", "did you mean map"),
    "eval.checkpoint": ("newest", "last, best"),
    "eval.threshold": (99.9, "eval.threshold is 99.9"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_video) -> str:
    root = tmp_path_factory.mktemp("videos")
    for name in ("a/0", "a/1", "b/0", "b/1"):
        write_video(root / f"{name}.mp4", range(3))
    return str(root)


def create_config(data: str):
    config = create_default()
    config.model.backbone = "tiny"
    config.data.train = config.data.val = data
    config.train.batch_size = 4
    return config


@pytest.mark.parametrize("field", MISTAKES)
def test_mistakes_name_the_field(field, data):
    value, expected = MISTAKES[field]
    config = create_config(data)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError) as error:
        Experiment(config)
    assert expected in str(error.value)
    assert "\n" not in str(error.value)


def test_the_online_shift_and_the_released_memory_exclude_each_other(data):
    config = create_config(data)
    config.model.shift, config.model.system = "online", "sofnet_released"
    with pytest.raises(UserError, match="model.shift is 'online'.*sofnet_released"):
        Experiment(config)


def test_prepared_data_must_be_named_and_be_prepared(data, tmp_path):
    config = create_config(data)
    config.data.source = "prepared"
    with pytest.raises(UserError, match="data.prepared is empty"):
        Experiment(config)
    config.data.prepared = str(tmp_path)
    with pytest.raises(UserError, match=f"{tmp_path}: nothing prepared in it"):
        Experiment(config)


def _refuse_synthetic(**fields):
    config = create_default()
    config.data.source = "synthetic"
    config.data.synthetic.update(fields)
    with pytest.raises(UserError) as caught:
        Experiment(config)
    message = str(caught.value)
    assert "give --config.data.synthetic.root= a folder" in message and "\n" not in message
    return message


def test_embedded_videos_without_a_home_folder(monkeypatch):
    """As an unknown user of a container has none."""
    monkeypatch.setattr(os.path, "expanduser", str)
    assert "the home folder is unknown" in _refuse_synthetic()


def test_embedded_videos_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / ".cache").touch()  # nobody can create a folder in a file, not even root
    monkeypatch.setenv("HOME", str(tmp_path))
    for fields in ({}, {"root": f"{tmp_path}/.cache/mine"}):
        assert _refuse_synthetic(**fields).startswith(f"cannot write to {tmp_path}/.cache/")
