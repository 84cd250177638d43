"""Every configuration loads, is complete, builds its network and trains; new files are found."""

import importlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from command import call
from flax.traverse_util import flatten_dict, unflatten_dict

from sofnet_jax.data.annotations.benchmark import read_annotation
from sofnet_jax.data.prepared.library import Library, find_tasks
from sofnet_jax.data.prepared.preparation import create_plan, prepare
from sofnet_jax.data.prepared.record import Format
from sofnet_jax.host.errors import UserError
from sofnet_jax.run.config import (
    check_fields,
    complete,
    create_default,
    flatten_fields,
    get_config,
    read_fields,
    refuse_foreign,
    refuse_older,
    select_fields,
)
from sofnet_jax.run.fields import FIELDS, LATER
from sofnet_jax.systems.registry import SYSTEMS, create_system
from sofnet_jax.training.loop import train

ROOT = Path(__file__).parents[2]
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("[!_]*.py"))
VARIANTS = {
    "": {},
    "tsn": {"model.system": "tsn"},
    "fc": {"model.temporal": False},
    "tsm_online": {"model.shift": "online"},
    "tsn,tsm_offline": {"model.system": "tsn", "model.shift": "offline"},
    "release": {
        "model.system": "sofnet_released",
        "optimizer.clip_norm": 20.0,
        "optimizer.weight_decay": 1e-4,
        "eval.min_frames": 4,
    },
    "sync_bn": {"train.sync_batchnorm": True},
    "bfloat16": {"train.dtype": "bfloat16"},
    "160": {"data.size": 160},
    "tsn,160": {"model.system": "tsn", "data.size": 160},
}
NUM_CLASSES = {"thumos14": 101, "mini_sports1m": 487, "synthetic": 10, "videos": 10}  # or 200

TINY = {
    "data.num_frames": 2,
    "data.size": 32,
    "data.num_workers": 0,
    "data.synthetic.num_classes": 2,
    "data.synthetic.train_videos": 2,
    "data.synthetic.val_videos": 1,
    "model.backbone": "tiny",
    "model.width": 4,
    "model.hidden": 8,
    "train.batch_size": 4,  # of 4 videos, so an epoch is a step
    "train.warmup_epochs": 1,
    "train.joint_epochs": 1,
    "train.least_steps": 0,
    "train.gate_steps": 0,
    "eval.batch_size": 4,
}


def _load(name, variant=""):
    return importlib.import_module(f"configs.{name}").get_config(variant)


def _flatten(config):
    return flatten_dict(config.to_dict(), sep=".")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", NAMES)
def test_variant_changes_what_it_says_and_nothing_else(name, variant):
    assert _flatten(_load(name, variant)) == _flatten(_load(name)) | VARIANTS[variant]


@pytest.mark.parametrize("name", NAMES)
def test_unknown_variant_names_the_known(name):
    with pytest.raises(
        ValueError, match=r"'tns'.* known: .*\btsn, fc, tsm_online, tsm_offline, release, .* 192"
    ):
        _load(name, "192,tns")


@pytest.mark.parametrize("words", ["tsn,release", "release,tsn", "192,fc,224"])
def test_variants_that_contradict_each_other_are_refused(words):
    first, *_, last = words.split(",")
    with pytest.raises(
        ValueError, match=f"^variants '{first}' and '{last}' differ in (model|data)"
    ):
        get_config(words)
    get_config("tsn,160,tsn")


def test_variants_of_two_orders_are_refused():
    with pytest.raises(ValueError, match="'frameexit_online' differ in frameexit.online; leave"):
        get_config("frameexit,frameexit_online")


@pytest.mark.parametrize("words", ["tsn,fc", "fc,frameexit"])
def test_a_variant_that_the_system_does_not_read_is_refused(words):
    system = words.replace(",", "").replace("fc", "")
    message = f"^variant 'fc' changes model.temporal, which the system {system} does not read; "
    with pytest.raises(ValueError, match=message):
        get_config(words)
    get_config("release,fc")


@pytest.mark.parametrize("name", NAMES)
def test_fields_and_their_types_are_those_of_the_defaults(name):
    types = {field: type(value) for field, value in _flatten(_load(name)).items()}
    assert types == {field: type(value) for field, value in _flatten(_load("default")).items()}


def test_a_stored_run_is_compared_by_these_fields():
    config = create_default()
    groups = {
        "model": "system backbone width gates hidden temporal shift forward_bias dropout",
        "optimizer": "name policy_name",
    }
    expected = {f"{group}.{name}" for group, names in groups.items() for name in names.split()}
    assert select_fields(config, "identity").keys() == expected
    groups = {
        "data": "num_frames size scales flip",
        "loss": "alpha beta guidance floor reference_gflops",
        "optimizer": "name policy_name learning_rate policy_rate classifier_rate schedule "
        "drop_epochs momentum weight_decay clip_norm",
        "temperature": "initial decay final",
        "train": "batch_size warmup_epochs least_steps gate_steps feature_epochs feature_noise",
    }
    expected = {f"{group}.{name}" for group, names in groups.items() for name in names.split()}
    expected |= {"init_from", "seed"}
    made = {f"data.synthetic.{x}" for x in ("num_classes", "train_videos", "val_videos", "seed")}
    own = {"videos": {"data.short_side"}, "prepared": set(), "synthetic": made}
    for config.data.source, names in own.items():
        schedule = select_fields(config, "schedule")
        assert schedule.keys() == expected | names
        assert schedule["optimizer.drop_epochs"] == (30,) and schedule["data.flip"] is True
        config.model.system = "tsn"  # which has no gates, and one loss
        assert select_fields(config, "schedule").keys() == {
            name
            for name in schedule
            if not name.startswith(("loss.", "train.gate_", "train.feature_", "optimizer.class"))
        }
        config.model.system = "sofnet"


def test_a_stored_run_of_tsn_is_compared_by_the_fields_that_it_reads():
    expected = {f"model.{name}" for name in ("system", "backbone", "width", "shift", "dropout")}
    assert select_fields(get_config("tsn"), "identity").keys() == expected | {
        "optimizer.name",
        "optimizer.policy_name",
    }


@pytest.mark.parametrize("system", SYSTEMS)
def test_fields_of_another_system_are_refused(system):
    config = create_default()
    config.model.system = system
    foreign = [f for f in FIELDS if f.systems and system not in f.systems]
    refuse_foreign(config, [f.name for f in FIELDS if f not in foreign])
    for field in foreign:
        readers = " and ".join(field.systems)
        message = f"^{field.name} is a field of {readers}, but model.system is {system}$"
        with pytest.raises(UserError, match=message):
            refuse_foreign(config, ["seed", field.name])


def test_systems_that_read_a_field_are_there():
    assert all(set(field.systems) <= SYSTEMS.keys() for field in FIELDS)
    own = {field.name for field in FIELDS if field.systems == ("sofnet", "sofnet_released")}
    assert own >= {"model.gates", "model.hidden", "model.temporal", "loss.alpha"}


@pytest.mark.parametrize("given", [[":tsn"], ["", "--config.model.system=tsn"]])
def test_command_refuses_fields_of_another_system(given, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    variant, *fields = given
    given = [f"--workdir={tmp_path / 'run'}", f"--config=configs/videos.py{variant}", *fields]
    for field, value in (("model.gates", "(1,)"), ("model.hidden", 512), ("loss.beta", 0.5)):
        code, out, err = call("main", *given, f"--config.{field}={value}")
        assert (code, out) == (UserError.exit_code, "")
        readers = "sofnet and sofnet_released"
        assert err == f"error: {field} is a field of {readers}, but model.system is tsn\n"
    assert not (tmp_path / "run").exists()


def test_sofnet_without_gates_and_unknown_systems_are_refused():
    fields = flatten_fields(create_default().to_dict())
    with pytest.raises(UserError, match=r"model.gates is empty; .* model\.system=tsn"):
        create_system(fields | {"model.gates": ()}, num_classes=3)
    with pytest.raises(
        UserError, match=f"model.system is 'tns'; choose one of {', '.join(SYSTEMS)}"
    ):
        create_system(fields | {"model.system": "tns"}, num_classes=3)


def test_every_default_has_a_value_that_is_allowed():
    check_fields(json.loads(json.dumps(_flatten(create_default()))))
    with pytest.raises(UserError, match="train.remat is 1; give a value such as False"):
        check_fields({"train.remat": 1})
    with pytest.raises(UserError, match="temperature.initial is inf; it must be a number above 0"):
        check_fields({"temperature.initial": math.inf})
    for field, most in (("data.num_frames", 10_000), ("data.size", 4096)):
        check_fields({field: most})
        with pytest.raises(UserError, match=f"{field} is {most + 1}; it must be from 1 to {most}"):
            check_fields({field: most + 1})


@pytest.mark.parametrize("name", [name for name in NAMES if name != "default"])
def test_opens_with_its_command(name):
    documentation = importlib.import_module(f"configs.{name}").__doc__
    assert f"python -m sofnet_jax.main --config configs/{name}.py --workdir " in documentation


@pytest.mark.parametrize(
    "variant", ["", *(pytest.param(name, marks=pytest.mark.slow) for name in ("tsn", "fc"))]
)
@pytest.mark.parametrize("name", NAMES)
def test_network_of_full_size_builds(name, variant):
    config, n = _load(name, variant), NUM_CLASSES.get(name, 200)
    system = create_system(flatten_fields(config.to_dict()), num_classes=n)
    t, size = config.data.num_frames, config.data.size
    k = 0 if variant == "tsn" else len(config.model.gates)
    frames = jax.ShapeDtypeStruct((1, t, size, size, 3), jnp.uint8)

    def build(*arguments):
        outputs, variables = system.module.init_with_output(*arguments)
        if variant != "tsn":
            outputs = outputs.video_logits, outputs.inner_logits
        return outputs, variables, system.evaluate(variables, arguments[1])

    outputs, variables, steps = jax.eval_shape(build, jax.random.key(0), frames)
    if variant == "tsn":
        assert outputs.shape == (1, t, n)
    else:
        logits, inner_logits = outputs
        assert logits.shape == (1, n)
        assert inner_logits.shape == (1, t, k, n)
    assert steps.logits.shape == (1, t, n)
    assert steps.time.shape == steps.action.shape == (1, t)
    assert len(system.architecture.actions) == len(system.architecture.prices(size).paper) == k + 1
    assert sum(name.startswith("policy_") for name in variables["params"]) == k


@pytest.fixture(scope="module")
def data(tmp_path_factory, write_video):
    """Where the data are: a folder of files for both splits, and one to write generated ones to."""
    root = tmp_path_factory.mktemp("data")
    files = root / "files"
    for number, name in enumerate(("run/0", "run/1", "jump/0", "jump/1")):
        for split in ("train", "val"):
            write_video(files / split / f"{name}.mp4", range(number, number + 8), size=(48, 48))
    annotation = read_annotation("videos", [files])
    plan = create_plan(
        "videos",
        find_tasks(annotation, Library(files)),
        annotation.classes,
        Format(num_frames=6, short_side=48, quality=90),
        out=root,
        num_workers=1,
        time_limit=60.0,
    )
    prepare("videos", plan, root)
    return {
        "data.train": str(files / "train"),
        "data.val": str(files / "val"),
        "data.prepared": str(root / "videos"),
        "data.synthetic.root": str(root / "synthetic"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name != "default"])
def test_trains(name, data, tmp_path):
    config = _load(name).lock()
    config.update_from_flattened_dict(TINY | data)
    result = train(config, tmp_path)
    assert result["step"] == 2
    assert result == json.loads((tmp_path / "result.json").read_text())
    num_videos = 2 if name == "synthetic" else 4
    assert result["eval"]["evaluated"] == result["eval"]["total"] == num_videos


@pytest.mark.slow
def test_command_trains(data, tmp_path):
    overrides = [f"--config.{field}={value}" for field, value in (TINY | data).items()]
    command = [sys.executable, "-m", "sofnet_jax.main", "--config", "configs/videos.py:32"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "4"}
    subprocess.run(
        [*command, "--workdir", str(tmp_path), *overrides], check=True, cwd=ROOT, env=environment
    )
    assert json.loads((tmp_path / "result.json").read_text())["step"] == 2


SWITCHES = "init state gradient empty efficiency inner self_supervision groups restart crops"


@pytest.mark.parametrize(
    ("gates", "on", "system"),
    [
        ((2, 4), "", "sofnet"),
        ((2, 4), SWITCHES, "sofnet_released"),
        ((2, 4), "inner crops", None),
        ((), "", "tsn"),
        ((), SWITCHES, None),
    ],
)
def test_a_run_from_before_the_released_system(gates, on, system, tmp_path):
    content = create_default().to_dict() | {
        "released": {name: name in on.split() for name in SWITCHES.split()} | {"clip_norm": 3.0}
    }
    content["model"]["gates"] = gates
    del content["model"]["system"], content["optimizer"]["clip_norm"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    if system is None:
        with pytest.raises(UserError, match="by an older version, without optimizer.clip_norm;"):
            read_fields(tmp_path / "config.json")
    else:
        fields = read_fields(tmp_path / "config.json")
        assert fields.keys() == {field.name for field in FIELDS}
        assert (fields["model.system"], fields["optimizer.clip_norm"]) == (system, 3.0)


def test_a_run_that_lacks_fields_is_refused_by_its_name(tmp_path):
    refuse_older(tmp_path, ["seed"], {"seed": 0, "another": 1})
    message = f"{tmp_path} was written by an older version, without model.shift; train again"
    with pytest.raises(UserError, match=message):
        refuse_older(tmp_path, ["seed", "model.shift"], {"seed": 0})


def test_a_run_of_version_0_1_0_lacks_later_fields_and_did_what_their_defaults_say(tmp_path):
    fields = {f.name: f.default for f in FIELDS if f.name not in LATER}
    assert len(LATER) >= 6 and all(LATER[f.name] == f.default for f in FIELDS if f.later)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(unflatten_dict(fields, sep=".")))
    found = read_fields(path)
    assert found.keys() == {f.name for f in FIELDS}
    assert {name: found[name] for name in LATER} == LATER
    saved = {"optimizer.name": "sgd"}
    assert complete(saved, ["optimizer.name", "optimizer.policy_name"]) == saved | {
        "optimizer.policy_name": ""
    }
    assert complete({"optimizer.policy_name": "adam"}, LATER)["optimizer.policy_name"] == "adam"
