import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_frameexit

from sofnet_jax.host.errors import UserError
from sofnet_jax.systems.frameexit.architecture import create_architecture
from sofnet_jax.systems.frameexit.network import FrameExit
from sofnet_jax.systems.frameexit.weights import NAMING
from sofnet_jax.weights import names

to_state_dict, from_state_dict, torch_shapes = (
    functools.partial(convert, naming=NAMING)
    for convert in (names.to_state_dict, names.from_state_dict, names.torch_shapes)
)
_ARCHITECTURE = create_architecture(
    "tiny", num_classes=5, num_frames=4, width=4, features=12, gate_features=(6, 3)
)


@pytest.fixture(scope="module")
def shapes():
    frames = jax.ShapeDtypeStruct((1, 4, 32, 32, 3), np.uint8)
    return jax.eval_shape(FrameExit(_ARCHITECTURE).init, jax.random.key(0), frames)


@pytest.fixture(scope="module")
def tensors():
    """A network in PyTorch with every value another."""
    state = torch_frameexit.create_like(_ARCHITECTURE).state_dict()
    rng = np.random.default_rng(0)
    named = {n: tuple(v.shape) for n, v in state.items() if not n.endswith("batches_tracked")}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in named.items()}


def test_names_and_shapes_are_pytorchs(shapes, tensors):
    assert torch_shapes(shapes) == {name: value.shape for name, value in tensors.items()}


def test_round_trip(shapes, tensors):
    variables = from_state_dict(tensors, shapes)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(lambda x: x.shape, shapes)
    back = to_state_dict(variables)
    assert back.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(back[name], value, err_msg=name)


def test_missing_tensors_leave_what_was_there(shapes, tensors):
    """As when the gates begin to learn on weights of the first phase."""
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    first = {name: value for name, value in tensors.items() if not name.startswith("gates.")}
    for name, value in to_state_dict(from_state_dict(first, zeros)).items():
        np.testing.assert_array_equal(value, first.get(name, 0), err_msg=name)


def test_a_position_without_weights_is_an_error(shapes, tensors):
    some = {name: value for name, value in tensors.items() if name != "gates.1.exit.bias"}
    with pytest.raises(UserError, match=r"no gates\.1\.exit\.bias"):
        from_state_dict(some, shapes)


def name_as_released(name: str) -> str:
    """Our name of a tensor as the authors' modules have it, built from their description."""
    for number, module in enumerate(
        ("conv1", "bn1", "", "", "layer1", "layer2", "layer3", "layer4")
    ):
        if module and name.startswith(f"{module}."):
            return name.replace(module, f"backbone.{number}", 1)
    kinds = {"0": "conv1", "1": "bn1", "3": "conv2", "4": "bn2"}
    first, *rest = name.split(".")
    if first == "mlp":
        return ".".join(["mlp.layers", *rest])
    if first == "gates":
        position, kind, *leaf = rest
        layer = "linear" if kind == "exit" else kinds[leaf.pop(0)]
        return f"exit_selector.{position}.{layer}.{leaf[0]}"
    return name


def test_released_weights(tensors):
    """Other names, 1×1 convolutions, and gates whose sigmoid below 0.5 means exit."""
    positive = {n: np.abs(v) if "var" in n else v for n, v in tensors.items()}
    file = {name_as_released(n): v for n, v in positive.items()}
    for name in [n for n in file if ".conv" in n and n.startswith("exit_selector")]:
        if name.endswith("weight"):
            file[name] = file[name][:, :, None, None]
    layout, ours, left_out = names.rename_tensors(file, "released.pth")
    assert layout.name == "FrameExit as released by its authors" and not left_out
    assert {n: v.shape for n, v in ours.items()} == {n: v.shape for n, v in tensors.items()}
    assert names.recognise_system(ours).name == "frameexit"
    found = names.infer_architecture(ours, "released.pth", told={"dropout": 0.0})
    assert found == _ARCHITECTURE

    images = torch.randn(6, 4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    outputs = []
    for state in (positive, ours):
        network = torch_frameexit.create_like(_ARCHITECTURE).eval()
        network.load_state_dict({n: torch.from_numpy(v) for n, v in state.items()}, strict=False)
        with torch.no_grad():
            outputs.append(network(images, gated=True))
    theirs, turned = outputs
    assert torch.equal(turned.gate_logits > 0, theirs.gate_logits.sigmoid() < 0.5)
    assert (turned.gate_logits > 0).unique().numel() == 2
    assert torch.equal(turned.step_logits, theirs.step_logits)
