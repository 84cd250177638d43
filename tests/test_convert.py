"""Weights from one kind of file to another: exact, or refused with nothing written."""

import json
import os
import pickle
import re
import resource
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import torch_sofnet
from absl.testing import flagsaver
from command import call

from sofnet_jax import convert
from sofnet_jax.host.errors import UserError
from sofnet_jax.run.checkpoint import Checkpoints
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.weights.files import WRITABLE, read_tensors
from sofnet_jax.weights.load import create_shapes, load_weights
from sofnet_jax.weights.names import to_state_dict

CLASSES = ["run", "jump", "swim", "a é\u00a0\n", "5"]
ARCHITECTURE = Architecture(5, "basic", (2, 1, 1, 1), 4, 3, gates=(1, 3, 5), hidden=8)
SHAPES = create_shapes(ARCHITECTURE)


def create_variables(seed: int = 0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), SHAPES)


def create_tensors(seed: int = 0) -> dict[str, np.ndarray]:
    return {n: np.asarray(t, order="C") for n, t in to_state_dict(create_variables(seed)).items()}


def create_network() -> torch_sofnet.SoFNet:
    """The same in PyTorch, by other code."""
    return torch_sofnet.create_like(ARCHITECTURE)


def describe(tensors) -> dict:
    return {name: (str(t.dtype), t.shape, t.tobytes()) for name, t in tensors.items()}


def to_torch(tensors) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in tensors.items()}


def list_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def run(*arguments, **values) -> None:
    """The command, in this process."""
    with flagsaver.flagsaver(**values):
        convert.main(["convert", *map(str, arguments)])


def refuse(*arguments, **values) -> str:
    """What the command says, which must be one line."""
    with pytest.raises(UserError) as error:
        run(*arguments, **values)
    assert str(error.value).isprintable()
    return str(error.value)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A run whose second checkpoint is the last, and the first the best."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "config.json").write_text(json.dumps({"eval": {"metric": "top1"}}))
    checkpoints = Checkpoints(folder / "checkpoints", metric="top1")
    for step, top1 in ((1, 0.8), (2, 0.6)):
        state = {"step": np.array(step), **create_variables(seed=step), "opt_state": {}}
        checkpoints.save(step, state, {"identity": {"classes": CLASSES}})
        checkpoints.rate(step, {"top1": top1, "top5": 1.0, "map": 0.0})
    checkpoints.close()
    return folder


# What is written.


def test_a_run_through_every_kind_of_file_to_the_last_bit(run_folder, tmp_path, capsys):
    expected = describe(create_tensors(seed=2))
    source = run_folder
    for suffix in (".safetensors", ".npz", ".pth", ".safetensors", ".pt", ".npz"):
        target = tmp_path / f"x{len(list_files(tmp_path))}{suffix}"
        run(source, target)
        printed = capsys.readouterr().out
        assert printed.startswith(f"{source} (sofnet_jax") and f"to {target}\n" in printed
        assert describe(read_tensors(target)[0]) == expected
        source = target


def test_the_best_checkpoint_of_a_run_in_pytorch(run_folder, tmp_path):
    target = tmp_path / "new folder" / "x.pth"
    code, out, err = call("convert", run_folder, target, "--which=best")
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        f"{run_folder} (sofnet_jax run, best checkpoint, of step 1): a ResNet of 2 + 1 + 1 + 1 "
        "basic blocks and width 4 with gates (LSTMs of 8 units) after res1 res3 res5, 5 classes",
        f"wrote 102 tensors, {target.stat().st_size / 1e6:.1f} MB, to {target}",
    ]
    network = create_network()
    network.load_state_dict(torch.load(target, weights_only=True), strict=True)
    expected = create_tensors(seed=1)
    theirs = {name: t.numpy() for name, t in network.state_dict().items() if name in expected}
    assert describe(theirs) == describe(expected)


def test_names_of_classes_stay_with_a_run_s_weights(run_folder, tmp_path):
    run(run_folder, tmp_path / "x.safetensors")
    run(tmp_path / "x.safetensors", tmp_path / "y.safetensors")
    for name in ("x", "y"):
        assert load_weights(str(tmp_path / f"{name}.safetensors")).classes == tuple(CLASSES)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_of_pytorch_s(zipped, tmp_path, capsys):
    """With its counters, an optimizer, and numbers of NumPy's; trained on several devices."""
    network = create_network()
    content = {
        "epoch": 3,
        "arch": "resnet",
        "state_dict": {f"module.{name}": t for name, t in network.state_dict().items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(0.1), "params": [0]}]},
        "best_prec1": np.float64(71.5),
    }
    source, target = tmp_path / "x.pth.tar", tmp_path / "x.safetensors"
    torch.save(content, source, _use_new_zipfile_serialization=zipped)
    run(source, target)
    assert "left out" not in capsys.readouterr().out  # counters are not worth a word
    again = create_network()
    again.load_state_dict(safetensors.torch.load_file(target), strict=True)
    for (name, old), (_, new) in zip(
        network.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name.endswith("num_batches_tracked") or torch.equal(old, new)


def test_what_is_not_of_the_network_is_left_out_and_named(tmp_path, capsys):
    extra = {"policy.9.gate.weight": np.zeros((2, 8)), "ema.decay": np.array(1)}
    extra["half"] = np.zeros(3, np.float16)
    np.savez(tmp_path / "x.npz", **create_tensors(), **extra)
    run(tmp_path / "x.npz", tmp_path / "y.npz")
    assert "left out 3: policy.9.*, ema.*, half" in capsys.readouterr().out
    assert describe(read_tensors(tmp_path / "y.npz")[0]) == describe(create_tensors())


@pytest.mark.parametrize(
    ("lacking", "dropped", "without"),
    [
        (r"fc\.|policy", "-", "without fc.*"),
        (r".*\.inner\.", "-", "without policy.0.inner.*, policy.2.inner.*, policy.4.inner.*"),
        # Inner classifiers alone do not tell how many classes there are.
        (
            r"fc\.",
            r".*\.inner",
            "without fc.*, policy.0.inner.*, policy.2.inner.*, policy.4.inner.*",
        ),
    ],
)
def test_parts_that_are_not_there_are_named(lacking, dropped, without, tmp_path, capsys):
    tensors = {n: t for n, t in create_tensors().items() if not re.match(lacking, n)}
    np.savez(tmp_path / "x.npz", **tensors)
    run(tmp_path / "x.npz", tmp_path / "y.pth")
    assert without in capsys.readouterr().out.splitlines()
    expected = {n: t for n, t in tensors.items() if not re.match(dropped, n)}
    assert describe(read_tensors(tmp_path / "y.pth")[0]) == describe(expected)


def test_double_precision_is_rounded(tmp_path):
    double = {name: t.astype(np.float64) * (1 + 1e-12) for name, t in create_tensors().items()}
    np.savez(tmp_path / "x.npz", **double)
    run(tmp_path / "x.npz", tmp_path / "y.npz")
    assert describe(read_tensors(tmp_path / "y.npz")[0]) == describe(create_tensors())


# Half precision.


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_half_precision_is_refused_or_widened(kind, suffix, tmp_path):
    source, target = tmp_path / f"x{suffix}", tmp_path / "y.npz"
    half = {name: t.to(kind) for name, t in to_torch(create_tensors()).items()}
    half["conv1.weight"].view(-1)[:2] = torch.tensor([1e-7, -0.0]).to(kind)  # a subnormal float16
    save = torch.save if suffix == ".pth" else safetensors.torch.save_file
    save(half, source)
    before = list_files(tmp_path)
    assert "is in half precision" in (message := refuse(source, target))
    assert "python -m sofnet_jax.convert --widen" in message
    assert list_files(tmp_path) == before
    run(source, target, widen=True)
    expected = {name: tensor.float().numpy() for name, tensor in half.items()}
    assert describe(read_tensors(target)[0]) == describe(expected)


def test_widening_from_the_command_line(tmp_path):
    """Half of the tensors are of float32 and stay as they are."""
    tensors = create_tensors()
    some = {n: t.astype(np.float16) for n, t in tensors.items() if n.startswith("layer")}
    np.savez(tmp_path / "x.npz", **tensors | some)
    code, _, err = call("convert", "--widen", tmp_path / "x.npz", tmp_path / "y.safetensors")
    assert (code, err) == (0, "")
    expected = tensors | {name: value.astype(np.float32) for name, value in some.items()}
    assert describe(read_tensors(tmp_path / "y.safetensors")[0]) == describe(expected)


@pytest.mark.parametrize("kind", ["i2", "u2", "S2", "V2"])
def test_only_floats_are_widened(kind, tmp_path):
    """Other types of two bytes are no numbers in half precision."""
    np.savez(tmp_path / "x.npz", **create_tensors() | {"fc.bias": np.zeros(5, kind)})
    message = refuse(tmp_path / "x.npz", tmp_path / "y.npz", widen=True)
    assert "holds no floating-point numbers: fc.bias" in message
    assert list(list_files(tmp_path)) == ["x.npz"]


# What is refused.


def replace(name: str, value) -> dict:
    return create_tensors() | {name: value}


def without(prefix: str) -> dict[str, np.ndarray]:
    return {name: t for name, t in create_tensors().items() if not name.startswith(prefix)}


def rename(old: str, new: str) -> dict[str, np.ndarray]:
    return {name.replace(old, new): value for name, value in create_tensors().items()}


FIVE = np.ones(5, np.float32)
BAD_TENSORS = {
    "missing": (without("bn1.bias"), ": 1 missing: bn1.bias"),
    "missing in a gate": (without("policy.2.embed.bias"), ": 1 missing: policy.2.embed.bias"),
    "no stem": (without("conv1"), "'conv1.weight' is missing or odd"),
    "no stage": (without("layer4"), "'layer4' is missing or odd"),
    "no names": ({}, "but nothing"),
    "another model": ({"a": FIVE, "b": FIVE, "c": FIVE, "d": FIVE}, "but a, b, c, …"),
    "a gap in a stage": (
        rename("layer1.1.", "layer1.2."),
        "10 missing: layer1.1.*; 10 of another network: layer1.2.*",
    ),
    "squeeze and excite": (
        replace("layer1.0.se.fc.weight", FIVE),
        ": 1 of another network: layer1.0.se.*",
    ),
    "a fifth stage": (replace("layer5.0.conv1.weight", FIVE), ": 1 of another network: layer5.*"),
    "bottlenecks": (replace("layer1.0.conv3.weight", FIVE), "of another shape"),
    "groups": (
        replace("layer1.0.conv2.weight", np.zeros((4, 1, 3, 3), np.float32)),
        ": 1 of another shape: layer1.0.conv2.* "
        "(layer1.0.conv2.weight is (4, 1, 3, 3) there, (4, 4, 3, 3) here)",
    ),
    "an inner classifier of another size": (
        replace("policy.0.inner.bias", np.zeros(7, np.float32)),
        ": 1 of another shape: policy.0.inner.bias",
    ),
    "a number for a vector": (replace("fc.bias", np.float32(1)), ": 1 of another shape: fc.bias"),
    "a number for the classifier": (replace("fc.weight", np.float32(1)), "fc.weight of shape ()"),
    "a number for a gate": (
        replace("policy.0.gate.weight", np.float32(1)),
        "policy.0.gate.weight of shape ()",
    ),
    "a flat stem": (replace("conv1.weight", FIVE), "conv1.weight of shape (5,)"),
    "an empty stem": (
        replace("conv1.weight", np.zeros((0, 3, 10**9, 7), np.float32)),
        "conv1.weight of shape (0, 3, 1000000000, 7)",
    ),
    "no class": (
        replace("fc.weight", np.zeros((0, 32), np.float32)),
        "fc.weight of shape (0, 32)",
    ),
    "two of one name": (replace("module.fc.bias", FIVE), "holds two tensors that are fc.bias"),
    "NaN": (replace("fc.bias", FIVE * np.nan), "holds NaN or infinity in fc.bias"),
    "infinity": (replace("fc.bias", FIVE * -np.inf), "holds NaN or infinity in fc.bias"),
    "infinity to float32": (
        replace("fc.bias", np.full(5, -1e39)),
        "holds NaN or infinity in fc.bias",
    ),
    "integers": (replace("fc.bias", np.zeros(5, int)), "no floating-point numbers: fc.bias (int64"),
    "truths": (replace("fc.bias", np.zeros(5, bool)), "no floating-point numbers: fc.bias (bool)"),
    "complex": (replace("fc.bias", np.zeros(5, "c8")), "no floating-point numbers: fc.bias (comp"),
    "words": (replace("fc.bias", np.array(["a"] * 5)), "no floating-point numbers: fc.bias (<U1"),
    "records": (replace("fc.bias", np.zeros(5, "f4,f4")), "no floating-point numbers: fc.bias ("),
    "half": (replace("fc.bias", FIVE.astype(np.float16)), "--widen"),
    "a line break": (replace("layer1.\n", FIVE), r"'layer1.\n'"),
}


@pytest.mark.parametrize("kind", BAD_TENSORS)
def test_what_is_no_network_is_refused_and_nothing_written(kind, tmp_path):
    tensors, expected = BAD_TENSORS[kind]
    np.savez(tmp_path / "x.npz", **tensors)
    (tmp_path / "y.npz").write_bytes(b"old")
    before = list_files(tmp_path)
    for target in ("y.npz", "z.npz"):
        message = refuse(tmp_path / "x.npz", tmp_path / target, overwrite=True)
        assert message.startswith(str(tmp_path / "x.npz")) and expected in message
        assert list_files(tmp_path) == before


@pytest.mark.parametrize(
    "metadata",
    [
        "run",
        "5",
        "{}",
        "[1, 2, 3, 4, 5]",
        '["a", "b"]',  # of five
        "[" * 100_000,
        "[" + "1" * 5000 + "]",  # more digits than Python reads
    ],
)
def test_bad_names_of_classes(metadata, tmp_path):
    tensors = to_torch(create_tensors())
    safetensors.torch.save_file(tensors, tmp_path / "x.safetensors", {"classes": metadata})
    assert "its metadata name" in refuse(tmp_path / "x.safetensors", tmp_path / "y.npz")
    assert list(list_files(tmp_path)) == ["x.safetensors"]


class Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f"touch {self.marker}",)


def test_a_hostile_file_is_one_line_and_an_exit_code(tmp_path):
    marker = tmp_path / "marker"
    payload = Payload(marker)
    torch.save({"state_dict": to_torch(create_tensors()), "x": payload}, tmp_path / "x.pth")
    code, out, err = call("convert", tmp_path / "x.pth", tmp_path / "y.pth")
    assert (code, out) == (1, "")
    assert err == (
        f"error: {tmp_path}/x.pth holds Python objects (posix.system), not only tensors; none "
        "of it was run. Save model.state_dict() where it comes from\n"
    )
    assert list(list_files(tmp_path)) == ["x.pth"]
    pickle.loads(pickle.dumps(payload))
    assert marker.exists()  # so it would have


# Targets.


@pytest.mark.parametrize("suffix", WRITABLE)
def test_an_existing_target_is_replaced_only_if_asked(suffix, tmp_path):
    source, target = tmp_path / "x.npz", tmp_path / f"y{suffix}"
    np.savez(source, **create_tensors())
    target.write_bytes(b"old")
    before = list_files(tmp_path)
    assert refuse(source, target).endswith("exists; give another name, or --overwrite")
    assert list_files(tmp_path) == before
    run(source, target, overwrite=True)
    assert describe(read_tensors(target)[0]) == describe(create_tensors())
    assert list_files(tmp_path).keys() == before.keys()


@pytest.mark.parametrize("suffix", WRITABLE)
def test_a_file_into_itself(suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    np.savez(tmp_path / "y.npz", **create_tensors(), extra=FIVE)
    run(tmp_path / "y.npz", path)
    content = path.read_bytes()
    assert "exists;" in refuse(path, path)
    assert path.read_bytes() == content
    run(path, path, overwrite=True)
    assert describe(read_tensors(path)[0]) == describe(create_tensors())
    path.write_bytes(content[:-1])
    refuse(path, path, overwrite=True)
    assert list_files(tmp_path).keys() == {path.name, "y.npz"}
    assert path.read_bytes() == content[:-1]


def test_a_link_to_nothing_is_a_target_that_exists(tmp_path):
    np.savez(tmp_path / "x.npz", **create_tensors())
    (tmp_path / "y.npz").symlink_to(tmp_path / "none")
    assert "exists;" in refuse(tmp_path / "x.npz", tmp_path / "y.npz")
    assert (tmp_path / "y.npz").is_symlink() and not (tmp_path / "none").exists()


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_full_disk(suffix, overwrite, tmp_path):
    np.savez(tmp_path / "x.npz", **create_tensors())
    target = tmp_path / f"y{suffix}"
    if overwrite:
        target.write_bytes(b"old")
    before = list_files(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # as if there were no more room
    try:
        message = refuse(tmp_path / "x.npz", target, overwrite=overwrite)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert message.startswith(f"cannot write {target}: ")
    assert list_files(tmp_path) == before


@pytest.mark.parametrize(
    ("place", "words"), [("x.npz/y.pth", "cannot write"), ("folder.pth", "is a folder")]
)
def test_a_place_that_cannot_be_written_to(place, words, tmp_path):
    np.savez(tmp_path / "x.npz", **create_tensors())
    (tmp_path / "folder.pth").mkdir()
    before = list_files(tmp_path)
    assert words in refuse(tmp_path / "x.npz", tmp_path / place, overwrite=True)
    assert list_files(tmp_path) == before and not list_files(tmp_path / "folder.pth")


def test_a_target_of_no_known_kind_is_refused_before_anything_is_read(tmp_path):
    for name in ("y", "y.h5", "y.pth.tar", "y.onnx"):
        message = refuse(tmp_path / "none.pth", tmp_path / name)
        assert message.endswith("end in .safetensors, .npz, .pth, .pt")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    np.savez(tmp_path / "x.npz", **create_tensors())
    monkeypatch.setenv("HOME", str(tmp_path))
    run("~/x.npz", "~/y.npz")
    assert describe(read_tensors(tmp_path / "y.npz")[0]) == describe(create_tensors())


@pytest.mark.parametrize("arguments", [[], ["x.pth"], ["x.pth", "y.pth", "z.pth"]])
def test_names_are_two(arguments):
    assert "give two names" in refuse(*arguments)


@pytest.mark.parametrize("source", ["~nobody-of-this-name/x.pth", "", "x" * 300 + ".pth", "/"])
def test_sources_that_are_none(source, tmp_path):
    message = refuse(source, tmp_path / "y.pth")
    reasons = "no such file", "not the folder of a run", "File name too long"
    assert any(reason in message for reason in reasons)
    assert not list_files(tmp_path)
