"""Weights of FrameExit, which stacks tensors, and of systems that a file names."""

import json
import re

import jax
import jax.numpy as jnp
import laws
import numpy as np
import pytest
import safetensors.numpy
from absl.testing import flagsaver
from gated_network import SIZE
from run_folder import write_run
from scene_video import write_scene
from specimens import FLOAT32, create_specimen

import sofnet_jax
from sofnet_jax import convert
from sofnet_jax.host.errors import UserError
from sofnet_jax.run.config import get_config
from sofnet_jax.systems import tsn
from sofnet_jax.systems.early_exit import NEVER
from sofnet_jax.systems.frameexit.architecture import create_architecture
from sofnet_jax.systems.frameexit.system import FrameExitSystem
from sofnet_jax.training.loop import evaluate
from sofnet_jax.weights.files import read_tensors
from sofnet_jax.weights.load import create_shapes, initialise, load_weights
from sofnet_jax.weights.names import to_state_dict

CLASSES = ["a", "b", "c", "d", "e"]
VARIANTS = ("frameexit", "frameexit_online")
FIELDS = {
    "model.system": "frameexit",
    "model.backbone": "tiny",
    "model.width": 8,
    "data.size": SIZE,
    "data.num_frames": 6,
    "data.short_side": 40,
    "frameexit.features": 24,
    "frameexit.gate_features": (8, 4),
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run of each variant of FrameExit."""
    folders = {}
    for name in VARIANTS:
        specimen = create_specimen(name)
        architecture = specimen.system.architecture
        fields = FIELDS | {"frameexit.online": architecture.online}
        folder = tmp_path_factory.mktemp(name)
        folders[name] = write_run(folder, specimen.variables, CLASSES, fields, architecture)
    return folders


def change(source, target, **values):
    with flagsaver.flagsaver(**values):
        convert.main(["convert", str(source), str(target)])
    return target


def refuse(function, *arguments, **keywords) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments, **keywords)
    (line,) = str(error.value).splitlines()
    return line


def assert_decides_like(name, model) -> None:
    specimen = create_specimen(name)
    videos = specimen.draw(4)
    expected, steps = specimen.evaluate(videos, NEVER)
    logits, own = laws.read(list(laws.run_online(model.network, videos, NEVER)))
    assert own == steps
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert (
        model.network.architecture.online == specimen.system.architecture.online
        and model.num_frames == 6
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_decides_as_its_evaluation(name, runs):
    model = sofnet_jax.load(runs[name], dtype=FLOAT32)
    assert model.classes == tuple(CLASSES) and not model.notes
    assert_decides_like(name, model)
    assert "a classifier for each of 6" in refuse(sofnet_jax.load, runs[name], num_frames=5)


@pytest.mark.parametrize("name", VARIANTS)
def test_a_run_through_every_kind_of_file(name, runs, tmp_path, capsys):
    expected = load_weights(str(runs[name])).tensors
    assert expected.keys() >= {"mlp.0.weight", "classifiers.5.bias", "gates.4.exit.weight"}
    source = runs[name]
    for number, suffix in enumerate((".safetensors", ".pth", ".npz", ".safetensors")):
        source = change(source, tmp_path / f"{number}{suffix}")
        out = capsys.readouterr().out
        assert "with 24 features, a classifier for each of 6 frames" in out and "5 classes" in out
        found, _ = read_tensors(source)
        assert found.keys() == expected.keys()
        for tensor, value in expected.items():
            np.testing.assert_array_equal(found[tensor], value, err_msg=tensor)
    # Only the first file, and the run, tell the order of the frames.
    model = sofnet_jax.load(tmp_path / "0.safetensors", dtype=FLOAT32, size=SIZE)
    assert model.classes == tuple(CLASSES) and not model.notes
    assert_decides_like(name, model)
    model = sofnet_jax.load(tmp_path / "1.pth", dtype=FLOAT32, size=SIZE, variant=name)
    assert_decides_like(name, model)
    assert model.rule.threshold == 0.99


def test_a_network_takes_them_all(runs):
    specimen = create_specimen("frameexit")
    zeros = jax.tree.map(jnp.zeros_like, specimen.variables)
    weights = load_weights(str(runs["frameexit"]))
    taken, report = initialise(zeros, weights, CLASSES, specimen.system)
    assert not report.reinitialised and not report.left_out
    for old, new in zip(jax.tree.leaves(specimen.variables), jax.tree.leaves(taken), strict=True):
        np.testing.assert_array_equal(old, new)
    _, report = initialise(zeros, weights, [*CLASSES[:4], "z"], specimen.system)
    assert set(report.reinitialised.values()) == {"other classes there"}
    assert all(name.startswith("classifiers.") for name in report.reinitialised)
    assert len(report.reinitialised) == 12


def create_tiny(num_frames=6, num_classes=5, gate_features=(8, 4)):
    fields = {"width": 8, "features": 24, "gate_features": gate_features}
    return create_architecture("tiny", num_classes=num_classes, num_frames=num_frames, **fields)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"num_frames": 8}, "missing: classifiers.6.*, classifiers.7.*, gates.5.*, gates.6.*"),
        ({"num_frames": 4}, "of another network: classifiers.4.*, classifiers.5.*, gates.3.*, "),
        ({"gate_features": (9, 4)}, "of another shape: gates.0.layers."),
    ],
)
def test_another_frameexit(fields, expected, runs):
    shapes = create_shapes(create_tiny(**fields))
    weights = load_weights(str(runs["frameexit"]))
    line = refuse(initialise, shapes, weights, None, FrameExitSystem)
    assert "does not fit" in line and expected in line
    assert f"a classifier for each of {fields.get('num_frames', 6)} frames" in line


def test_the_backbone_of_another_system(runs):
    """And what is not there starts anew."""
    plain = tsn.Architecture(**tsn.choose_backbone("tiny", num_classes=5, width=8))
    shapes = create_shapes(plain)
    _, report = initialise(shapes, load_weights(str(runs["frameexit"])), CLASSES)
    assert report.reinitialised == dict.fromkeys(
        ["fc.bias", "fc.weight"], "no classifier there"
    ) and any(name.startswith("gates.") for name in report.left_out)

    variables = jax.tree.map(lambda x: np.ones(x.shape, x.dtype), shapes)
    folder = runs["frameexit"].parent / "plain"
    if not folder.exists():
        write_run(folder, variables, CLASSES, {"model.system": "tsn"}, plain)
    own = create_shapes(create_tiny())
    _, report = initialise(own, load_weights(str(folder)), CLASSES, FrameExitSystem)
    reasons = {name.partition(".")[0]: reason for name, reason in report.reinitialised.items()}
    assert reasons == {
        "mlp": "no mlp there",
        "classifiers": "no classifier there",
        "gates": "no gates there",
    }


@pytest.mark.slow
def test_init_from_a_run(tmp_path):
    scenes = [("train", "ab"[seed % 2], seed) for seed in range(8)]
    for split, label, seed in (*scenes, ("val", "a", 8), ("val", "b", 9)):
        write_scene(tmp_path / split / label / f"{seed}.mp4", seed)
    variables = jax.tree.map(np.array, create_specimen("frameexit").variables)
    heads = variables["params"]["classifiers"]
    variables["params"]["classifiers"] = {name: x[..., :2] for name, x in heads.items()}
    run = write_run(tmp_path / "run", variables, ["a", "b"], FIELDS, create_tiny(num_classes=2))

    config = get_config("frameexit")
    given = {"data.train": str(tmp_path / "train"), "data.val": str(tmp_path / "val")}
    given |= {"train.batch_size": 4, "eval.batch_size": 4, "data.num_workers": 0}
    given |= {"frameexit.held_out": 0.5, "init_from": str(run)}
    config.update_from_flattened_dict(FIELDS | given)
    result = evaluate(config, tmp_path / "own")
    report = json.loads((tmp_path / "own/init.json").read_text())
    assert not report["reinitialised"] and not report["left_out"]
    assert 0 < result["eval"]["usage"] < 1  # its gates end some videos early

    config.init_from = str(write_run(tmp_path / "other", *_create_sofnet()))
    line = refuse(evaluate, config, tmp_path / "none")
    assert "cannot be evaluated" in line
    assert "(no classifier there, no gates there, no mlp there)" in line


def _create_sofnet():
    specimen = create_specimen("sofnet")
    return specimen.variables, CLASSES, {}, specimen.system.architecture


def tell(file, tensors, **metadata):
    tensors = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    safetensors.numpy.save_file(tensors, file, metadata)
    return str(file)


SOFNET_WITH = {
    "another system": ({"system": "frameexit"}, "holds no whole ResNet: 'classifiers.0.weight'"),
    "an unknown system": ({"system": "arnet"}, "holds weights of a system 'arnet', which is not"),
    "no system": ({"system": 3}, "holds weights of a system 3, which is not registered"),
    "an odd field": ({"system": "sofnet", "shift": 5}, "shift of 5 is missing or odd"),
    "nothing": ({}, "its metadata describe no network"),
    "a list": ([1], "its metadata describe no network"),
}


@pytest.mark.parametrize("case", SOFNET_WITH)
def test_what_is_not_what_it_says_it_is(case, tmp_path):
    told, expected = SOFNET_WITH[case]
    tensors = to_state_dict(create_specimen("sofnet").variables)
    path = tell(tmp_path / "x.safetensors", tensors, network=json.dumps(told))
    for function in (sofnet_jax.load, lambda p: change(p, tmp_path / "y.pth")):
        line = refuse(function, path)
        assert line.startswith(path) and expected in line, line
    assert not (tmp_path / "y.pth").exists()


def test_a_checkpoint_of_another_system_than_the_run(tmp_path):
    specimen = create_specimen("frameexit")
    run = write_run(tmp_path, specimen.variables, CLASSES, FIELDS, specimen.system.architecture)
    config = run / "config.json"
    config.write_text(re.sub('"frameexit"(?!:)', '"sofnet"', config.read_text()))
    line = refuse(sofnet_jax.load, run)
    assert "says model.system is sofnet, but" in line and "weights of frameexit" in line


def test_a_run_of_a_system_that_is_not_registered(tmp_path):
    specimen = create_specimen("tsn")
    fields = {"model.system": "mine"}
    run = write_run(tmp_path, specimen.variables, CLASSES, fields, specimen.system.architecture)
    for function in (sofnet_jax.load, lambda p: change(p, tmp_path / "x.npz")):
        line = refuse(function, str(run))
        assert line == (
            f"{run} holds weights of a system 'mine', which is not registered; in Python, first "
            "import the file that adds it to sofnet_jax.systems.registry.SYSTEMS; for a command, "
            "list it there"
        )
