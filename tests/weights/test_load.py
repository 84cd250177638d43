"""Weights into networks: what is taken, what starts anew, what is left out, and what is refused."""

import fnmatch
import functools
import json
import re
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from sofnet_jax.host.errors import UserError
from sofnet_jax.run.checkpoint import Checkpoints
from sofnet_jax.systems import tsn
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.systems.sofnet.network import SoFNet
from sofnet_jax.weights.load import Report, Weights, create_shapes, initialise, load_weights
from sofnet_jax.weights.names import to_state_dict, torch_shapes

CLASSES = ["run", "jump", "swim"]
find_shapes = functools.cache(create_shapes)


def create_architecture(num_classes=3, depths=(1, 1, 2, 1), gates=(2, 4), hidden=8, **fields):
    fields = {"block": "basic", "width": 4, "stem_kernel": 3} | fields
    if not gates:
        return tsn.Architecture(num_classes, depths=depths, **fields)
    return Architecture(num_classes, depths=depths, gates=gates, hidden=hidden, **fields)


def create_variables(seed: int = 0, **fields):
    """Every value another, all positive as variances are."""
    rng = np.random.default_rng(seed)
    shapes = find_shapes(create_architecture(**fields))
    return jax.tree.map(lambda x: jnp.array(rng.uniform(0.1, 1, x.shape), jnp.float32), shapes)


def create_tensors(seed: int = 1, **fields) -> dict[str, np.ndarray]:
    """As PyTorch's state_dict() has them, with its counters of batches."""
    tensors = to_state_dict(create_variables(seed, **fields))
    counters = {
        name.replace("running_mean", "num_batches_tracked"): np.array(5)
        for name in tensors
        if name.endswith("running_mean")
    }
    return tensors | counters


def select(names, pattern: str) -> list[str]:
    return [name for name in names if re.match(pattern, name)]


def without(tensors: dict[str, np.ndarray], pattern: str) -> dict[str, np.ndarray]:
    return {name: value for name, value in tensors.items() if not re.match(pattern, name)}


def write(path: Path, tensors: dict[str, np.ndarray], classes: list[str] | None = None) -> str:
    metadata = {"classes": json.dumps(classes)} if classes else None
    tensors = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    safetensors.numpy.save_file(tensors, path, metadata)
    return str(path)


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "some.safetensors"


INNER = r"policy\.\d\.inner"
CLASSIFIERS = rf"fc\.|{INNER}"
NONE = "-"


class Case(NamedTuple):
    """A source and a network, by what is not as `create_architecture` has it.

    Attributes:
        there, here: fields of the source's architecture and of the network's.
        lacking: names that the source has not.
        classes_there, classes_here: their names, or None.
        anew: names of the network that start anew.
        reasons: why they do.
    """

    there: dict = {}
    here: dict = {}
    lacking: str = NONE
    classes_there: list[str] | None = None
    classes_here: list[str] | None = CLASSES
    anew: str = NONE
    reasons: list[str] = []


CASES = {
    "SoF-Net": Case(),
    "with names of classes": Case(classes_there=CLASSES),
    "with names of classes into a network without": Case(classes_there=CLASSES, classes_here=None),
    "without the LSTM": Case(there={"temporal": False}, here={"temporal": False}),
    "of bottlenecks": Case(there={"block": "bottleneck"}, here={"block": "bottleneck"}),
    "TSN from SoF-Net": Case(here={"gates": ()}, classes_there=CLASSES),
    "more gates there": Case(there={"gates": (1, 2, 4, 5)}),
    "SoF-Net from TSN": Case(there={"gates": ()}, anew="policy", reasons=["no gates there"]),
    "SoF-Net from a backbone": Case(
        lacking=r"fc\.|policy",
        anew=r"fc\.|policy",
        reasons=["no classifier there", "no gates there"],
    ),
    "TSN from a backbone": Case(
        here={"gates": ()}, lacking=r"fc\.|policy", anew=r"fc\.", reasons=["no classifier there"]
    ),
    "no inner classifiers": Case(lacking=INNER, anew=INNER, reasons=["no inner classifiers there"]),
    "more classes": Case(
        there={"num_classes": 5}, anew=CLASSIFIERS, reasons=["5 classes there, 3 here"]
    ),
    "more classes into TSN": Case(
        there={"num_classes": 5},
        here={"gates": ()},
        anew=r"fc\.",
        reasons=["5 classes there, 3 here"],
    ),
    "other classes": Case(
        classes_there=["run", "jump", "dive"], anew=CLASSIFIERS, reasons=["other classes there"]
    ),
    "the same classes in another order": Case(
        classes_there=CLASSES[::-1], anew=CLASSIFIERS, reasons=["other classes there"]
    ),
}


def assert_partition(parts: list[list[str]], whole) -> None:
    """Every name is in exactly one part."""
    assert sorted(name for part in parts for name in part) == sorted(whole)


def assert_equal(found, expected, names) -> None:
    for name in names:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("case", CASES)
def test_every_tensor_is_accounted_for(case, file):
    c = CASES[case]
    source = without(create_tensors(**c.there), c.lacking)
    before = create_variables(seed=0, **c.here)
    weights = load_weights(write(file, source, c.classes_there))
    after, report = initialise(before, weights, c.classes_here)

    old, new = to_state_dict(before), to_state_dict(after)
    assert list(report.reinitialised) == select(old, c.anew)
    assert sorted(set(report.reinitialised.values())) == c.reasons
    assert_partition([report.loaded, list(report.reinitialised)], old)
    assert_partition([report.loaded, report.left_out], source)
    assert_equal(new, source, report.loaded)
    assert_equal(new, old, report.reinitialised)
    assert jax.tree.structure(after) == jax.tree.structure(before)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(after))
    assert_tells(report)


def assert_tells(report: Report) -> None:
    """The text names every tensor of the lists, once, however shortly."""
    everything = [*report.loaded, *report.reinitialised, *report.left_out]
    told: dict[str, list[str]] = {"loaded": [], "re-initialised": [], "left out": []}
    lines = str(report).splitlines()[1:]
    assert [line for line in lines if line.startswith("  note: ")] == [
        f"  note: {note}" for note in report.notes
    ]
    for line in lines[: len(lines) - len(report.notes)]:
        kind = next(kind for kind in told if line.startswith(f"  {kind} "))
        if counters := re.search(r"(\d+) counters of batches \(\*(\S+)\)$", line):
            names = [name for name in report.left_out if name.endswith(counters[2])]
            count = counters[1]
        else:
            count, patterns = re.search(r" (\d+)[^:]*: (.*)$", line).groups()
            names = [
                name
                for name in dict.fromkeys(everything)
                for pattern in patterns.split(", ")
                if fnmatch.fnmatchcase(name, pattern)
            ]
        assert len(names) == int(count), line
        told[kind] += names
    assert sorted(told["loaded"]) == sorted(report.loaded)
    assert sorted(told["re-initialised"]) == sorted(report.reinitialised)
    assert sorted(told["left out"]) == sorted(report.left_out)


def test_report_by_hand(file):
    """The file of a TSN with 5 classes, saved from several GPUs, into a SoF-Net with 3."""
    source = {
        f"module.{'new_' if name.startswith('fc.') else 'base_model.'}{name}": value
        for name, value in create_tensors(num_classes=5, gates=()).items()
    }
    source["module.base_model.fc.weight"] = np.zeros((1000, 32), np.float32)
    path = write(file, source)
    _, report = initialise(create_variables(), load_weights(path), CLASSES)
    # 1 + 4 of the stem; 2 convolutions and 2 BatchNorms, 10 tensors, in each of 5 blocks, and 5
    # more in each of 3 downsamples. Of 14 BatchNorms each has a counter. 8 tensors a gate.
    assert str(report) == (
        f"init from {path} (TSN)\n"
        "  loaded 70 tensors: bn1.*, conv1.*, layer1.*, layer2.*, layer3.*, layer4.*\n"
        "  re-initialised 6 (5 classes there, 3 here): fc.*, policy.*.inner.*\n"
        "  re-initialised 16 (no gates there): policy.*.lstm.*, policy.*.gate.*, policy.*.embed.*\n"
        "  left out 3: fc.*, module.base_model.fc.*\n"
        "  left out 14 counters of batches (*.num_batches_tracked)"
    )


def compute_outputs(variables, **fields):
    frames = jax.random.randint(jax.random.key(2), (2, 3, 32, 32, 3), 0, 256, jnp.uint8)
    return jax.jit(SoFNet(create_architecture(**fields)).apply)(variables, frames)


def test_loaded_weights_give_the_same_outputs_to_the_last_bit(file):
    theirs = create_variables(seed=1)
    path = write(file, to_state_dict(theirs))
    ours, report = initialise(create_variables(seed=0), load_weights(path))
    assert not report.reinitialised and not report.left_out
    expected, found = compute_outputs(theirs), compute_outputs(ours)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(found), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(expected.frame_logits).all() and np.ptp(expected.frame_logits) > 0


def test_float64_is_rounded(file):
    source = {n: v.astype(np.float64) + 1e-9 for n, v in create_tensors(gates=()).items()}
    after, report = initialise(create_variables(gates=()), load_weights(write(file, source)))
    new = to_state_dict(after)
    for name in report.loaded:
        assert new[name].dtype == np.float32
        np.testing.assert_array_equal(new[name], source[name].astype(np.float32))


def fill(shape, value, dtype=np.float32) -> np.ndarray:
    return np.full(shape, value, dtype)


GATES = "width 4 with gates (LSTMs of 8 units) after res2 res4"

# Changes of a file that fits, and what the error says of them.
FAULTS = {
    "one missing": (
        lambda t: without(t, r"layer2\.0\.bn1\.bias"),
        f"(a ResNet of 1 + 1 + 2 + 1 basic blocks and {GATES}) does not fit a ResNet of "
        f"1 + 1 + 2 + 1 basic blocks and {GATES}: 1 missing: layer2.0.bn1.bias",
    ),
    "several missing": (
        lambda t: without(t, r"layer2\.0\.(bn1|conv2)\.|bn1\.|fc\.bias"),
        ": 10 missing: bn1.*, layer2.0.bn1.*, layer2.0.conv2.*, fc.bias",
    ),
    "a gate missing": (
        lambda t: without(t, r"policy\.3\."),
        ": 10 missing: policy.3.*",
    ),
    "a part of a gate missing": (
        lambda t: without(t, r"policy\.1\.lstm\.bias"),
        ": 2 missing: policy.1.lstm.bias_hh, policy.1.lstm.bias_ih",
    ),
    "wrong shape": (
        lambda t: t | {"layer1.0.conv2.weight": fill((4, 4, 1, 1), 1.0)},
        ": 1 of another shape: layer1.0.conv2.* (layer1.0.conv2.weight is (4, 4, 1, 1) there, "
        "(4, 4, 3, 3) here)",
    ),
    "wrong shape of a gate": (
        lambda t: t | {"policy.1.gate.bias": fill((3,), 1.0)},
        ": 1 of another shape: policy.1.gate.bias (policy.1.gate.bias is (3,) there, (2,) here)",
    ),
    "odd classifier": (lambda t: t | {"fc.weight": fill((), 1.0)}, "holds no whole ResNet"),
    "fewer blocks": (
        lambda t: without(t, r"layer3\.1\."),
        f"1 + 1 + 1 + 1 basic blocks and {GATES}) does not fit a ResNet of "
        f"1 + 1 + 2 + 1 basic blocks and {GATES}: 10 missing: layer3.1.*",
    ),
    "no fourth layer": (
        lambda t: without(t, r"layer4\."),
        "holds no whole ResNet: 'layer4' is missing",
    ),
    "more blocks": (
        lambda t: t | {n.replace(".1.", ".2."): t[n] for n in select(t, r"layer3\.1\.")},
        f"1 + 1 + 3 + 1 basic blocks and {GATES}) does not fit a ResNet of "
        f"1 + 1 + 2 + 1 basic blocks and {GATES}: 10 of another network: layer3.2.*",
    ),
    "squeeze and excitation": (
        lambda t: t | {"layer1.0.se.fc1.weight": fill((1, 4, 1, 1), 1.0)},
        ": 1 of another network: layer1.0.se.*",
    ),
    "all at once": (
        lambda t: (
            without(t, r"bn1\.bias")
            | {"conv1.weight": fill((4, 3, 7, 7), 1.0), "layer1.0.bn3.bias": fill((4,), 1.0)}
        ),
        ": 1 missing: bn1.bias; 1 of another network: layer1.0.bn3.*; 1 of another shape: conv1.* "
        "(conv1.weight is (4, 3, 7, 7) there, (4, 3, 3, 3) here)",
    ),
    "half precision": (
        lambda t: t | {n: t[n].astype(np.float16) for n in select(t, r"layer1\.|bn1\.bias")},
        "is in half precision: bn1.bias, layer1.* (float16)",
    ),
    "whole numbers": (
        lambda t: t | {"bn1.bias": fill((4,), 1, np.int32)},
        "holds no floating-point numbers: bn1.bias (int32)",
    ),
    "NaN": (
        lambda t: t | {"policy.1.gate.bias": np.array([0, np.nan], np.float32)},
        "holds NaN or infinity in policy.1.gate.bias",
    ),
    "infinity": (
        lambda t: t | {"fc.bias": fill((3,), -np.inf), "bn1.bias": fill((4,), np.inf)},
        "holds NaN or infinity in bn1.bias, fc.bias",
    ),
    "too large for float32": (
        lambda t: t | {"bn1.bias": fill((4,), -1e39, np.float64)},
        "holds NaN or infinity in bn1.bias",
    ),
}


def read_error(call) -> str:
    with pytest.raises(UserError) as raised:
        call()
    (line,) = str(raised.value).splitlines()
    return line


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_refused_in_one_line(fault, file):
    change, expected = FAULTS[fault]
    tensors = create_tensors()
    path = write(file, change(without(tensors, ".*num_batches_tracked")))
    weights = load_weights(path)
    line = read_error(lambda: initialise(create_variables(), weights, CLASSES))
    assert line.startswith(path) and expected in line, line


@pytest.mark.parametrize(
    ("theirs", "ours", "expected"),
    [
        ({"block": "bottleneck"}, {}, "of another network: layer1.0.bn3.*, layer1.0.conv3.*"),
        ({}, {"block": "bottleneck"}, "missing: "),
        ({"width": 8}, {}, "of another shape: bn1.*, conv1.*, "),
        ({"hidden": 4}, {}, "of another shape: "),
        ({"temporal": False}, {}, "missing: policy.1.lstm.*, policy.3.lstm.*"),
        ({"gates": (2,)}, {}, "missing: policy.3.*"),
        ({"gates": (1, 3)}, {}, "missing: policy.1.*, policy.3.*"),
    ],
)
def test_networks_of_another_kind(theirs, ours, expected, file):
    weights = load_weights(write(file, create_tensors(**theirs)))
    line = read_error(lambda: initialise(create_variables(**ours), weights))
    assert "does not fit" in line and expected in line, line


@pytest.mark.parametrize("text", ["[", '"run"', "[1, 2, 3]", '["run", "jump"]'])
def test_metadata_that_name_no_classes(text, file):
    tensors = {name: np.asarray(v, order="C") for name, v in create_tensors().items()}
    safetensors.numpy.save_file(tensors, file, {"classes": text})
    line = read_error(lambda: load_weights(str(file)))
    assert line.startswith(f"{file}: its metadata name") and "damaged" in line


def test_names_of_classes_come_with_the_file(file):
    assert load_weights(write(file, create_tensors(), CLASSES)).classes == tuple(CLASSES)
    assert load_weights(write(file, create_tensors())).classes is None


def write_run(folder: Path, identity: dict) -> Path:
    """A run whose first checkpoint is the best by the metric that it was asked to go by."""
    config = {"eval": {"metric": "top1"}}
    (folder / "config.json").write_text(json.dumps(config))
    checkpoints = Checkpoints(folder / "checkpoints", metric="top1")
    for step, top1 in ((1, 0.8), (2, 0.6)):
        state = {"step": np.array(step), **create_variables(seed=step), "opt_state": {}}
        record = {"identity": {"classes": CLASSES} | identity}
        checkpoints.save(step, jax.tree.map(np.asarray, state), record)
        checkpoints.rate(step, {"top1": top1, "top5": 1.0, "map": 1 - top1})
    checkpoints.close()
    return folder


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), {})


@pytest.mark.parametrize(("which", "seed"), [("best", 1), ("last", 2)])
def test_from_a_run(which, seed, run_folder):
    weights = load_weights(str(run_folder), which)
    assert weights.classes == tuple(CLASSES)
    after, report = initialise(create_variables(seed=0), weights, CLASSES)
    assert not report.reinitialised and not report.left_out
    expected = to_state_dict(create_variables(seed=seed))
    assert_equal(to_state_dict(after), expected, expected)
    assert not report.notes  # the names of its classes are known
    assert str(report).startswith(
        f"init from {run_folder} (sofnet_jax run, {which} checkpoint, of step {seed})\n"
        "  loaded 92 tensors: "
    )


def test_a_run_with_other_classes(run_folder):
    weights = load_weights(str(run_folder))
    _, report = initialise(create_variables(), weights, ["run", "jump", "dive"])
    assert list(report.reinitialised) == select(weights.tensors, CLASSIFIERS)
    assert_partition([report.loaded, report.left_out], weights.tensors)
    assert_tells(report)


def test_a_checkpoint_that_is_being_written_is_none_yet(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    (folder / "checkpoints" / "3.orbax-checkpoint-tmp" / "state").mkdir(parents=True)
    weights = load_weights(str(folder), "last")
    expected = to_state_dict(create_variables(seed=2))
    assert_equal(weights.tensors, expected, expected)
    for step in "12":
        shutil.rmtree(folder / "checkpoints" / step)
    line = read_error(lambda: load_weights(str(folder)))
    assert line == f"{folder} holds no checkpoint; train first"


@pytest.mark.parametrize(
    "missing", ["2/state", "2/record", "2/*", "2/state/_METADATA", "2/record/metadata"]
)
def test_a_checkpoint_that_was_copied_in_part(missing, run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    for path in (folder / "checkpoints").glob(missing):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    line = read_error(lambda: load_weights(str(folder), "last"))
    assert line.startswith(f"the checkpoint {folder}/checkpoints/2 is damaged or not whole (")
    assert load_weights(str(folder), "best").classes == tuple(CLASSES)


@pytest.mark.parametrize("missing", ["config.json", "checkpoints"])
def test_a_folder_that_is_no_run(missing, run_folder, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run_folder, folder, ignore=shutil.ignore_patterns(missing))
    line = read_error(lambda: load_weights(str(folder)))
    assert line.startswith(f"{folder} ") and line.endswith("train first")
    assert ("it has no config.json" in line) == (missing == "config.json")


def test_a_folder_of_runs_names_them(tmp_path):
    for name in ("tsn_seed0", "sofnet_seed0"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    line = read_error(lambda: load_weights(str(tmp_path)))
    runs = f"{tmp_path / 'sofnet_seed0'}, {tmp_path / 'tsn_seed0'}"
    assert line.endswith(f"give one of the runs in it, such as {runs}")


def test_an_empty_folder_and_none(tmp_path):
    line = read_error(lambda: load_weights(str(tmp_path)))
    assert line == f"{tmp_path} is not the folder of a run (it has no config.json); train first"
    line = read_error(lambda: load_weights(str(tmp_path / "none")))
    assert line.startswith(f"{tmp_path / 'none'}: no such file; give a run's folder")


def test_classes_of_unknown_names_are_told(file):
    # A PyTorch file has no names of classes: as many are taken to be the same ones.
    weights = load_weights(write(file, create_tensors()))
    _, report = initialise(create_variables(), weights, CLASSES)
    (note,) = report.notes
    assert "names of its 3 classes are unknown" in note and f"  note: {note}" in str(report)


def test_what_a_run_followed_is_told(tmp_path):
    fields = {"model.system": "sofnet_released", "model.shift": "offline"}
    folder = write_run(tmp_path, fields)
    weights = load_weights(str(folder))
    followed = "model.shift=offline, model.system=sofnet_released"
    assert weights.notes == (f"trained with {followed}; use the same",)


@pytest.mark.parametrize("source", ["https://example.org/a.pth", "file:///a.safetensors"])
def test_an_address_is_no_path(source):
    line = read_error(lambda: load_weights(source))
    assert line == f"{source} is an address; download it and give the path"


def test_a_name_of_the_hub_without_its_prefix():
    line = read_error(lambda: load_weights("timm/resnet50.tv_in1k"))
    assert line.endswith("from the hub: hub:timm/resnet50.tv_in1k")
    assert "from the hub" not in read_error(lambda: load_weights("runs/resnet50.pth"))


@pytest.mark.parametrize(
    ("there", "here", "advice"),
    [("resnet18", "resnet34", True), ("resnet18", "resnet18", False)],
)
def test_the_backbone_that_would_fit_is_named(there, here, advice):
    of_there, of_here = (
        tsn.Architecture(**tsn.choose_backbone(name, num_classes=2)) for name in (there, here)
    )
    shapes = torch_shapes(create_shapes(of_there))
    tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
    del tensors["bn1.bias"]
    weights = Weights("file", "", tensors, [], None)
    variables = create_shapes(of_here)
    line = read_error(lambda: initialise(variables, weights))
    assert (f"--config.model.backbone={there}" in line) == advice
