import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_sofnet

from sofnet_jax.systems.sofnet.architecture import Architecture, create_architecture
from sofnet_jax.weights.load import create_shapes
from sofnet_jax.weights.torch import from_state_dict, to_state_dict, torch_name, torch_shapes

_TINY = Architecture(5, "basic", (2, 1, 1, 1), 4, 3, gates=(1, 3, 5), hidden=8)


def _create_variables(architecture=_TINY):
    """Every value another."""
    rng = np.random.default_rng(0)
    shapes = create_shapes(architecture)
    return jax.tree.map(lambda x: jnp.array(rng.normal(size=x.shape), jnp.float32), shapes)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("params backbone res1 conv1 kernel", "conv1.weight"),
        ("batch_stats backbone res1 bn1 var", "bn1.running_var"),
        ("params backbone res2 block0 conv3 kernel", "layer1.0.conv3.weight"),
        ("params backbone res4 block12 bn2 scale", "layer3.12.bn2.weight"),
        ("params backbone res5 block1 bn1 bias", "layer4.1.bn1.bias"),
        ("params backbone res3 block0 downsample_conv kernel", "layer2.0.downsample.0.weight"),
        (
            "batch_stats backbone res3 block0 downsample_bn mean",
            "layer2.0.downsample.1.running_mean",
        ),
        ("params head kernel", "fc.weight"),
        ("params head bias", "fc.bias"),
        ("params policy_res1 embed kernel", "policy.0.embed.weight"),
        ("params policy_res5 embed bias", "policy.4.embed.bias"),
        ("params policy_res2 w_ih", "policy.1.lstm.weight_ih"),
        ("params policy_res2 w_hh", "policy.1.lstm.weight_hh"),
        ("params policy_res2 b_ih", "policy.1.lstm.bias_ih"),
        ("params policy_res2 b_hh", "policy.1.lstm.bias_hh"),
        ("params policy_res3 w_q", "policy.2.gate.weight"),
        ("params policy_res3 b_q", "policy.2.gate.bias"),
        ("params inner_res4 dense kernel", "policy.3.inner.weight"),
        ("params inner_res4 dense bias", "policy.3.inner.bias"),
        ("params policy_res1 fc kernel", "policy.0.fc.weight"),
    ],
)
def test_names_by_hand(path, name):
    assert torch_name(tuple(path.split())) == name


def _strip(state_dict):
    """Without PyTorch's counters of batches."""
    return {n: v for n, v in state_dict.items() if not n.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    ("backbone", "tensors"),
    [
        # 62 parameters less the classifier's two, and two statistics for each of 20 BatchNorms.
        ("resnet18", 60 + 40),
        ("resnet34", 108 + 72),
        # 161 parameters less two, and 53 BatchNorms. The first layer widens 64 to 256 channels.
        ("resnet50", 159 + 106),
        ("resnet101", 312 + 208),
    ],
)
def test_names_and_shapes_are_those_of_a_network_in_pytorch(backbone, tensors):
    a = create_architecture(backbone, num_classes=7, gates=(1, 2, 3, 4, 5))
    shapes = torch_shapes(create_shapes(a))
    with torch.device("meta"):
        network = torch_sofnet.create_like(a)
    expected = {name: tuple(value.shape) for name, value in _strip(network.state_dict()).items()}
    assert shapes == expected
    # 10 tensors a gate, and the classifier.
    assert len(shapes) == tensors + 5 * 10 + 2


def test_a_pytorch_network_takes_them_all():
    network = torch_sofnet.create_like(_TINY)
    state_dict = to_state_dict(_create_variables())
    tensors = {name: torch.from_numpy(value.copy()) for name, value in state_dict.items()}
    network.load_state_dict(tensors, strict=True)
    assert _strip(network.state_dict()).keys() == state_dict.keys()


def test_layouts_by_hand():
    variables = _create_variables()
    tensors = to_state_dict(variables)
    params = variables["params"]
    # A kernel is (height, width, in, out) here and (out, in, height, width) there.
    kernel = np.asarray(params["backbone"]["res3"]["block0"]["conv1"]["kernel"])
    theirs = tensors["layer2.0.conv1.weight"]
    for (y, x, i, o), value in np.ndenumerate(kernel):
        assert value == theirs[o, i, y, x]
    # A matrix is (in, out) here and (out, in) there; of the LSTM, out is 4·8.
    assert tensors["policy.2.lstm.weight_ih"].shape == (32, 8)
    for ours, theirs in (
        (params["policy_res3"]["w_ih"], tensors["policy.2.lstm.weight_ih"]),
        (params["policy_res3"]["w_q"], tensors["policy.2.gate.weight"]),
        (params["head"]["kernel"], tensors["fc.weight"]),
    ):
        np.testing.assert_array_equal(np.asarray(ours).T, theirs)


@pytest.mark.parametrize("temporal", [True, False])
def test_round_trip_is_exact(temporal):
    a = create_architecture(
        "tiny", num_classes=5, width=4, gates=(2, 4), hidden=8, temporal=temporal
    )
    variables = _create_variables(a)
    zeros = jax.tree.map(jnp.zeros_like, variables)
    again = from_state_dict(to_state_dict(variables), zeros)
    assert jax.tree.structure(again) == jax.tree.structure(variables)
    for old, new in zip(jax.tree.leaves(variables), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(old, new)


def test_what_there_is_no_tensor_for_stays():
    variables = _create_variables()
    zeros = {name: np.zeros_like(t) for name, t in to_state_dict(variables).items()}
    again = from_state_dict({"conv1.weight": zeros["conv1.weight"]}, variables)
    old, new = to_state_dict(variables), to_state_dict(again)
    assert not new["conv1.weight"].any()
    assert all((old[name] == new[name]).all() for name in old if name != "conv1.weight")
