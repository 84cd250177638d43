"""Files of tensors: to the last bit through every kind, and nothing from a bad one but a line."""

import collections
import errno
import io
import json
import os
import pickle
import random
import resource
import struct
import sys
import warnings
import zipfile
from pathlib import Path
from unittest.mock import Mock

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch
import torch_sofnet

from sofnet_jax.host.errors import UserError
from sofnet_jax.systems.sofnet.architecture import Architecture
from sofnet_jax.weights import files
from sofnet_jax.weights.files import READABLE, WRITABLE, read_tensors, write_tensors
from sofnet_jax.weights.load import create_shapes
from sofnet_jax.weights.names import torch_shapes

ARCHITECTURE = Architecture(5, "basic", (2, 1, 1, 1), 4, 3, gates=(1, 3, 5), hidden=8)


def create_network() -> torch_sofnet.SoFNet:
    return torch_sofnet.create_like(ARCHITECTURE)


def create_tensors() -> dict[str, np.ndarray]:
    """Of the same network in JAX: every bit at random, so NaN and infinity are among them."""
    rng = np.random.default_rng(0)
    shapes = torch_shapes(create_shapes(ARCHITECTURE))
    return {
        name: rng.integers(0, 2**32, shape, np.uint32).view(np.float32)
        for name, shape in shapes.items()
    }


def describe(tensors) -> dict:
    """All that there is to a set of tensors."""
    return {name: (str(t.dtype), t.shape, t.tobytes()) for name, t in tensors.items()}


def to_torch(tensors) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value) for name, value in tensors.items()}


def refuse(path: Path) -> str:
    """What a reader of the file is told, which must be one line."""
    with pytest.raises(UserError) as error:
        read_tensors(path)
    assert str(error.value).isprintable()
    assert path.name in str(error.value)
    return str(error.value)


# What is written is what is read.


def test_through_every_kind_of_file_to_the_last_bit(tmp_path):
    expected = describe(tensors := create_tensors())
    for suffix in (".pth", ".safetensors", ".npz", ".pt", ".npz", ".pth"):
        path = tmp_path / f"x{suffix}"
        path.unlink(missing_ok=True)
        write_tensors(path, tensors, {})
        tensors, _ = read_tensors(path)
        assert describe(tensors) == expected


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize(
    "value",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3).T,  # its memory is not in its order
        np.arange(12, dtype=np.float32)[::-2],
        np.broadcast_to(np.float32(3), (2, 2)),
        np.asarray(jnp.arange(3.0)),  # not to be written to
        np.array(7, np.float32),
        np.zeros((0, 3), np.float32),
        np.array([-0.0, 1e-45, 3e-310]),
        np.array([[1, -1]], np.int64),
        np.array([True, False]),
        np.array([1.5, -65504], np.float16),
    ],
)
def test_arrays_however_they_lie_in_memory(value, suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    write_tensors(path, {"x": value}, {})
    tensors, _ = read_tensors(path)
    assert describe(tensors) == describe({"x": value})


def test_what_we_write_is_a_state_dict_to_pytorch(tmp_path):
    tensors = create_tensors()
    write_tensors(tmp_path / "x.pth", tensors, {"classes": "none of it"})
    state_dict = torch.load(tmp_path / "x.pth", weights_only=True)
    assert {type(value) for value in state_dict.values()} == {torch.Tensor}
    network = create_network()
    network.load_state_dict(state_dict, strict=True)
    theirs = {name: t.numpy() for name, t in network.state_dict().items() if name in tensors}
    assert describe(theirs) == describe(tensors)


def test_what_we_write_is_read_by_other_libraries(tmp_path):
    tensors = create_tensors()
    for suffix in (".safetensors", ".npz"):
        write_tensors(tmp_path / f"x{suffix}", tensors, {"classes": '["a", "é"]'})
    theirs = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert describe({n: t.numpy() for n, t in theirs.items()}) == describe(tensors)
    with safetensors.safe_open(tmp_path / "x.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "classes": '["a", "é"]'}
    with np.load(tmp_path / "x.npz") as archive:
        assert describe(archive) == describe(tensors)


def test_metadata_come_back_from_safetensors(tmp_path):
    write_tensors(tmp_path / "x.safetensors", {"x": np.zeros(1)}, {"classes": "[]"})
    assert read_tensors(tmp_path / "x.safetensors")[1]["classes"] == "[]"


# What others write is read.


@pytest.mark.parametrize("suffix", [s for s in READABLE if s not in (".safetensors", ".npz")])
@pytest.mark.parametrize("zipped", [True, False])
def test_what_pytorch_writes(suffix, zipped, tmp_path):
    path = tmp_path / f"x{suffix}"
    expected = create_network().state_dict()
    torch.save(expected, path, _use_new_zipfile_serialization=zipped)
    tensors, metadata = read_tensors(path)
    assert describe(tensors) == describe({name: t.numpy() for name, t in expected.items()})
    assert metadata == {}


STATE_DICT = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "bn1.bias": torch.tensor([0.5])}
EXPECTED = {name: tensor.numpy() for name, tensor in STATE_DICT.items()}
TRAINING = {
    "epoch": 3,
    "arch": "resnet50",
    "best_prec1": np.float64(71.5),
    "optimizer": {
        "state": {0: {"momentum_buffer": torch.zeros(3), "step": np.int64(7)}},
        "param_groups": [{"lr": np.float64(1e-3), "nesterov": np.bool_(True), "params": [0]}],
    },
    "scale": [np.float32(1), np.float16(1), np.int32(1), np.uint8(1), np.complex64(1)],
}


@pytest.mark.parametrize(
    "content",
    {
        "plain": STATE_DICT,
        "ordered": collections.OrderedDict(STATE_DICT),
        "the authors'": TRAINING | {"state_dict": STATE_DICT},
        "under another key": TRAINING | {"model_state_dict": STATE_DICT},
        "under a third": {"model": STATE_DICT, "args": ["--lr", 0.1]},
        "wrapped twice": {"model": {"state_dict": STATE_DICT}},
        "beside what is no tensor": STATE_DICT | {"n": 1, "none": None, "s": "abc", "l": [1]},
        "beside other keys": STATE_DICT | {1: torch.zeros(1), (2, 3): torch.zeros(1)},
        "parameters": {name: torch.nn.Parameter(tensor) for name, tensor in STATE_DICT.items()},
        "trained": {name: tensor.clone().requires_grad_() for name, tensor in STATE_DICT.items()},
        "views": {name: torch.stack([t, t], -1)[..., 1] for name, t in STATE_DICT.items()},
    }.items(),
    ids=lambda item: item[0],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_checkpoints_of_pytorch(content, zipped, tmp_path):
    torch.save(content[1], tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert describe(read_tensors(tmp_path / "x.pth")[0]) == describe(EXPECTED)


def test_numbers_under_the_name_that_numpy_had_for_them_before_version_2(tmp_path):
    path = tmp_path / "x.pth"
    content = {"state_dict": STATE_DICT, "best_prec1": np.float64(1)}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    old = path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != path.read_bytes()
    path.write_bytes(old)
    assert describe(read_tensors(path)[0]) == describe(EXPECTED)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_half_precision_is_read_as_it_is(kind, suffix, tmp_path):
    path = tmp_path / f"x{suffix}"
    half = torch.tensor([[1.5, -0.0, 3e38, 1e-7], [float("inf"), 2.0, 3.14159, -7.0]]).to(kind)
    half = half.T.contiguous().T if suffix == ".pth" else half
    save = torch.save if suffix == ".pth" else safetensors.torch.save_file
    save({"x": half}, path)
    x = read_tensors(path)[0]["x"]
    assert f"torch.{x.dtype}" == str(kind)
    np.testing.assert_array_equal(x.astype(np.float32), half.float().numpy())


def test_only_pytorch_s_files_need_pytorch(tmp_path, monkeypatch):
    for suffix in WRITABLE:
        write_tensors(tmp_path / f"x{suffix}", EXPECTED, {})
    monkeypatch.setitem(sys.modules, "torch", None)
    for suffix in (".safetensors", ".npz"):
        assert describe(read_tensors(tmp_path / f"x{suffix}")[0]) == describe(EXPECTED)
    with pytest.raises(UserError, match=r"\.pth files need PyTorch \(pip install '\.\[torch\]'"):
        read_tensors(tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"\.pth files need PyTorch"):
        write_tensors(tmp_path / "y.pth", EXPECTED, {})
    assert not (tmp_path / "y.pth").exists()


# Nothing of a file is run.


class Payload:
    """Runs its call when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def create_payloads(marker: Path) -> dict[str, tuple[Payload, str]]:
    """What makes a file if it is run, with the name by which it is refused."""
    return {
        "a command": (Payload(os.system, f"touch {marker}"), "posix.system"),
        "an expression": (Payload(eval, f"open({str(marker)!r}, 'w').close()"), "eval"),
        "a statement": (Payload(exec, f"open({str(marker)!r}, 'w').close()"), "exec"),
        "a method": (Payload(Path.touch, marker), "getattr"),
        "a function of NumPy's": (Payload(np.savetxt, str(marker), [1.0]), "numpy.savetxt"),
    }


@pytest.mark.parametrize("kind", create_payloads(Path("x")))
@pytest.mark.parametrize("place", ["alone", "beside", "in the optimizer", "a key"])
@pytest.mark.parametrize("zipped", [True, False])
def test_payloads_are_not_run(kind, place, zipped, tmp_path):
    marker = tmp_path / "marker"
    payload, name = create_payloads(marker)[kind]
    content = {
        "alone": payload,
        "beside": STATE_DICT | {"x": payload},
        "in the optimizer": {"state_dict": STATE_DICT, "optimizer": [payload]},
        "a key": STATE_DICT | {payload: 1},
    }[place]
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    message = refuse(tmp_path / "x.pth")
    assert f"({name})" in message and "none of it was run" in message
    assert not marker.exists()
    pickle.loads(pickle.dumps(payload))
    assert marker.exists()  # so it is one


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("suffix", READABLE)
def test_plain_pickles_are_not_run(protocol, suffix, tmp_path):
    marker = tmp_path / "marker"
    path = tmp_path / f"x{suffix}"
    path.write_bytes(pickle.dumps(Payload(os.system, f"touch {marker}"), protocol))
    refuse(path)
    assert not marker.exists()


def test_pickles_in_arrays_of_objects_are_not_run(tmp_path):
    marker = tmp_path / "marker"
    np.savez(tmp_path / "x.npz", x=np.array([Payload(os.system, f"touch {marker}")], object))
    assert "Object arrays" in refuse(tmp_path / "x.npz")
    assert not marker.exists()


def test_a_pickled_attribute_is_not_taken_for_a_method(tmp_path):
    parameter = torch.nn.Parameter(torch.ones(2))
    parameter.detach, parameter.numpy = torch.Tensor, bytearray
    torch.save({"x": parameter}, tmp_path / "x.pth")
    assert describe(read_tensors(tmp_path / "x.pth")[0]) == describe({"x": np.ones(2, np.float32)})


# Bad files.


def wrap_in_itself() -> dict:
    content: dict = {}
    content["state_dict"] = {"model": content}
    return content


def shadow_a_method() -> dict:
    content = collections.OrderedDict(STATE_DICT)
    content.__dict__["get"] = 3
    return content


def quantise() -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)


BAD_CONTENTS = {
    "a list": ([STATE_DICT], "no state dict, but something of type list"),
    "a tensor": (torch.zeros(3), "no state dict, but something of type Tensor"),
    "a number": (3, "no state dict, but something of type int"),
    "nothing": (None, "no state dict, but something of type NoneType"),
    "an empty dict": ({}, "a dict without names"),
    "numbers for names": ({1: torch.zeros(3)}, "a dict without names"),
    "a number of many digits": ({1 << 600: 1}, "a dict without names"),
    "tensors for names": ({torch.zeros(3, 3): 1}, "a dict without names"),
    "a long line": ({"x\n" * 1000: 1}, r"a dict of 'x\nx\n"),
    "only an optimizer": ({"optimizer": {}, "epoch": 1}, "a dict of 'optimizer', 'epoch'"),
    "itself": (wrap_in_itself(), "a dict of 'state_dict'"),
    "no method": (shadow_a_method(), "not callable"),
    "a module": (torch.nn.Linear(2, 2), "(torch.nn.modules.linear.Linear)"),
    "an array": ({"x": np.zeros(3)}, "(numpy._core.multiarray._reconstruct)"),
    "sparse": (STATE_DICT | {"odd": torch.eye(3).to_sparse()}, "odd is no ordinary tensor"),
    "quantised": (STATE_DICT | {"odd": quantise()}, "odd is no ordinary tensor"),
    "meta": (STATE_DICT | {"odd": torch.zeros(3, device="meta")}, "odd is no ordinary tensor"),
    "conjugate": (
        STATE_DICT | {"odd": torch.zeros(3, dtype=torch.complex64).conj()},
        "odd is no ordinary tensor",
    ),
    "a line break": ({"layer1.\n": torch.zeros(3)}, r"'layer1.\n'"),
    "colours": ({"layer1.\x1b[31m": torch.zeros(3)}, r"'layer1.\x1b[31m'"),
    "no character": ({"layer1.\udc80": torch.zeros(3)}, r"'layer1.\udc80'"),
    "a long name": ({"a." * 50_000: torch.zeros(3)}, "'a.a."),
    "10¹² elements": (STATE_DICT | {"x": torch.zeros(1).expand(10**6, 10**6)}, "claim"),
    "10¹² elements of nothing": ({"x": torch.zeros(1).expand(10**12)}, "claim"),
    "a tensor a hundred times": (dict.fromkeys(map(str, range(100)), torch.zeros(10**4)), "claim"),
}


@pytest.mark.parametrize("kind", BAD_CONTENTS)
@pytest.mark.parametrize("zipped", [True, False])
def test_bad_contents_of_pytorch_s_files(kind, zipped, tmp_path):
    content, expected = BAD_CONTENTS[kind]
    torch.save(content, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    assert expected in refuse(tmp_path / "x.pth")


def test_numbers_of_8_bits(tmp_path):
    torch.save(STATE_DICT | {"odd": torch.zeros(3).to(torch.float8_e5m2)}, tmp_path / "x.pth")
    assert "odd is no ordinary tensor" in refuse(tmp_path / "x.pth")


def test_many_wrappers(tmp_path):
    opened = b"\x80\x02" + b"}X\x0a\0\0\0state_dict" * 10_000
    pickled = opened + b"}" + b"s" * 10_000 + b"."
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        archive.writestr("x/version", "3\n")
    assert "a dict of 'state_dict'" in refuse(tmp_path / "x.pth")


def test_torchscript(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on its way out
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "x.pth"))
    assert "TorchScript" in refuse(tmp_path / "x.pth")


def test_memory_that_a_file_asks_for(tmp_path):
    """A pickle of 40 bytes may ask for any number of bytes."""
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        asked = b"\x8a\x07\xff\xff\xff\xff\xff\xff\x7f"  # 2⁵⁵
        archive.writestr("x/data.pkl", b"\x80\x02cbuiltins\nbytearray\n" + asked + b"\x85R.")
        archive.writestr("x/version", "3\n")
    assert "more memory" in refuse(tmp_path / "x.pth")


def create_npy(header: str, version: int = 1, data: bytes = bytes(8)) -> bytes:
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header.encode("latin1") + data


def create_header(shape: str = "(2,)", descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


BAD_ARRAYS = {
    "no array": b"hello",
    "larger than it is": create_npy(create_header("(1000,)")),
    "larger than any memory": create_npy(create_header("(10000000000000,)")),
    "larger than any number": create_npy(create_header(f"({10**30},)")),
    "of a size that wraps around": create_npy(create_header(f"({2**62}, 4)")),
    "smaller than nothing": create_npy(create_header("(-1, -1)")),
    "of objects": create_npy(create_header(descr="'|O'"), data=pickle.dumps([1, 2])),
    "of objects in a record": create_npy(create_header(descr="[('a', '|O')]")),
    "of no type": create_npy(create_header(descr="()")),
    "of half a type": create_npy(create_header(descr="('<f4',)")),
    "an open bracket": create_npy("{"),
    "many brackets": create_npy("(" * 9000),
    "many signs": create_npy("-" * 9000 + "1"),
    "an open string": create_npy("'''"),
    "odd indents": create_npy("  x\n y\n\tz"),
    "of a later version": create_npy(create_header(), version=9),
}


@pytest.mark.parametrize("kind", BAD_ARRAYS)
def test_bad_arrays(kind, tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", BAD_ARRAYS[kind])
    message = refuse(tmp_path / "x.npz")
    assert "not a .npz file, or damaged" in message or "more memory than there is" in message


def create_safetensors(header, size: int = 8) -> bytes:
    content = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(content)) + content + bytes(size)


def create_entry(shape, start: int, end: int, kind: str = "F32") -> dict:
    return {"dtype": kind, "shape": shape, "data_offsets": [start, end]}


BAD_SAFETENSORS = {
    "overlap": create_safetensors({"x": create_entry([1], 0, 4), "y": create_entry([1], 2, 6)}),
    "same": create_safetensors({"x": create_entry([2], 0, 8), "y": create_entry([2], 0, 8)}),
    "gap": create_safetensors({"x": create_entry([1], 4, 8)}),
    "beyond": create_safetensors({"x": create_entry([200], 0, 800)}),
    "backwards": create_safetensors({"x": create_entry([2], 8, 0)}),
    "shape beyond": create_safetensors({"x": create_entry([200], 0, 8)}),
    "shape that wraps around": create_safetensors({"x": create_entry([2**63, 2], 0, 8)}),
    "negative shape": create_safetensors({"x": create_entry([-2], 0, 8)}),
    "left over": create_safetensors({"x": create_entry([1], 0, 4)}),
    "8 bits": create_safetensors({"x": create_entry([8], 0, 8, "F8_E4M3")}),
    "4 bits": create_safetensors({"x": create_entry([16], 0, 8, "F4")}),
    "no type": create_safetensors({"x": create_entry([2], 0, 8, "F99")}),
    "no JSON": create_safetensors(b'{"x":'),
    "deep JSON": create_safetensors(b'{"x":' + b"[" * 100_000),
    "header of 2⁶³ bytes": struct.pack("<Q", 2**63) + b"{}",
    "header of 100 MB": struct.pack("<Q", 10**8) + b"{}",
    "a line break": create_safetensors({"layer1.\n": create_entry([2], 0, 8)}),
}


@pytest.mark.parametrize("kind", BAD_SAFETENSORS)
def test_bad_safetensors(kind, tmp_path):
    (tmp_path / "x.safetensors").write_bytes(BAD_SAFETENSORS[kind])
    refuse(tmp_path / "x.safetensors")


def create_zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("conv1.weight", "hello")
    return file.getvalue()


@pytest.mark.parametrize("suffix", READABLE)
@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is empty"),
        (b"weights: 0.5\n", "or damaged"),
        (bytes(1000), "or damaged"),
        (random.Random(0).randbytes(1000), "or damaged"),
        (create_zip(), "or damaged"),
        (b"PK\3\4", "or damaged"),
        (create_npy(create_header()), "or damaged"),
    ],
)
def test_files_of_another_kind(content, expected, suffix, tmp_path):
    (tmp_path / f"x{suffix}").write_bytes(content)
    assert expected in refuse(tmp_path / f"x{suffix}")


def test_no_files(tmp_path):
    assert "no such file" in refuse(tmp_path / "x.pth")
    assert "File name too long" in refuse(tmp_path / ("x" * 300 + ".pth"))
    (tmp_path / "folder.pth").mkdir()
    assert "no such file" in refuse(tmp_path / "folder.pth")
    (tmp_path / "x.h5").write_bytes(b"x")
    assert "end in .safetensors, .npz, .pth" in refuse(tmp_path / "x.h5")
    assert "no such file" in refuse(tmp_path / "x.h5" / "x.pth")


# Damaged files.


def write_small(folder: Path, kind: str) -> Path:
    """A file of less than 3 kB."""
    tensors = {
        "conv1.weight": np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3),
        "bn1.bias": np.ones(2, np.float32),
        "fc.weight": np.zeros((3, 2), np.float32),
    }
    path = folder / f"x{kind.removeprefix('compressed').removeprefix('legacy')}"
    checkpoint = {"state_dict": to_torch(tensors), "best_prec1": np.float64(71.5)}
    if kind.endswith(".pth"):
        torch.save(checkpoint, path, _use_new_zipfile_serialization=kind == ".pth")
    elif kind == "compressed.npz":
        np.savez_compressed(path, **tensors)
    else:
        write_tensors(path, tensors, {"classes": '["a", "b", "c"]'})
    return path


KINDS = (".pth", "legacy.pth", ".safetensors", ".npz", "compressed.npz")


@pytest.mark.parametrize("kind", KINDS)
def test_no_file_is_read_that_lacks_its_end(kind, tmp_path):
    path = write_small(tmp_path, kind)
    content = path.read_bytes()
    rng = random.Random(0)
    sizes = {*range(12), *rng.sample(range(len(content)), 100), len(content) - 1}
    for size in sizes:
        path.write_bytes(content[:size])
        refuse(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [1, 8])
def test_wrong_bytes_are_read_or_refused(kind, width, tmp_path):
    path = write_small(tmp_path, kind)
    content, expected = path.read_bytes(), describe(read_tensors(path)[0])
    rng = random.Random(width)
    refused = 0
    for _ in range(200):
        damaged = bytearray(content)
        start = rng.randrange(len(content) - width)
        damaged[start : start + width] = rng.randbytes(width)
        path.write_bytes(damaged)
        try:
            tensors, _ = read_tensors(path)
        except UserError as error:
            assert str(error).isprintable()
            refused += 1
            continue
        if kind.endswith("npz"):  # which alone has checksums that are looked at
            assert {name: expected.get(name) for name in tensors} == describe(tensors)
    assert 0 < refused < 200


def test_bad_files_take_little_memory(tmp_path):
    """ru_maxrss is in kB, and the most there ever was."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for kind in ("10¹² elements", "10¹² elements of nothing", "a long name"):
        torch.save(BAD_CONTENTS[kind][0], tmp_path / "x.pth")
        refuse(tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", create_npy(create_header("(400000000,)")))
    refuse(tmp_path / "x.npz")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


# Writing that fails.


def list_names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("suffix", WRITABLE)
@pytest.mark.parametrize("existing", [True, False])
def test_a_full_disk_leaves_everything_as_it_was(suffix, existing, tmp_path):
    path = tmp_path / f"x{suffix}"
    if existing:
        path.write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # as if there were no more room
    try:
        with pytest.raises(UserError, match=f"^cannot write .*x{suffix}: .*File too large$"):
            write_tensors(path, create_tensors(), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list_names(tmp_path) == ([path.name] if existing else [])
    assert not existing or path.read_bytes() == b"old"


@pytest.mark.parametrize("suffix", WRITABLE)
def test_places_that_cannot_be_written_to(suffix, tmp_path):
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / f"folder{suffix}").mkdir()
    names = list_names(tmp_path)
    for place in ("file/x", "file/x/y", "folder", "x" * 300):
        with pytest.raises(UserError, match="cannot write") as error:
            write_tensors(tmp_path / f"{place}{suffix}", EXPECTED, {})
        assert str(error.value).isprintable()
    assert list_names(tmp_path) == names
    assert (tmp_path / "file").read_bytes() == b"old"


@pytest.mark.parametrize("name", ["x", "x.h5", "x.tar", "x.npy", "x.PTH"])
def test_kinds_that_are_not_written(name, tmp_path):
    with pytest.raises(UserError, match=r"end in \.safetensors, \.npz, \.pth, \.pt$"):
        write_tensors(tmp_path / name, EXPECTED, {})
    assert list_names(tmp_path) == []


@pytest.mark.parametrize("suffix", WRITABLE)
def test_what_is_written_may_be_read_by_whom_other_files_may(suffix, tmp_path):
    (tmp_path / "other").write_bytes(b"")
    write_tensors(tmp_path / "new" / f"x{suffix}", EXPECTED, {})
    mode = (tmp_path / "new" / f"x{suffix}").stat().st_mode
    assert mode == (tmp_path / "other").stat().st_mode
    assert list_names(tmp_path / "new") == [f"x{suffix}"]


def test_file_that_cannot_be_read_is_not_called_damaged(tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    np.savez(path, x=np.zeros(3))
    error = OSError(errno.EIO, os.strerror(errno.EIO))
    monkeypatch.setattr(files, "read_arrays", Mock(side_effect=error))
    with pytest.raises(UserError, match=f"^cannot read {path}: Input/output error$"):
        read_tensors(path)


def test_a_closed_folder_is_not_called_a_missing_file(tmp_path, close_folder):
    (tmp_path / "closed").mkdir()
    close_folder(tmp_path / "closed")
    with pytest.raises(UserError, match=f"^{tmp_path}/closed: cannot be read .Permission denied"):
        read_tensors(tmp_path / "closed/a.npz")


def test_a_file_that_cannot_be_written_is_called_by_its_own_name(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        files.write_tensors(tmp_path / "file/a.npz", {}, {})
    assert str(caught.value) == f"cannot write {tmp_path}/file/a.npz: Not a directory"
