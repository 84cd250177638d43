"""Files of others are built here as their code names things, and must come out as ours."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch_sofnet

from sofnet_jax.host.errors import UserError
from sofnet_jax.systems import tsn
from sofnet_jax.systems.sofnet.architecture import Architecture, create_architecture
from sofnet_jax.systems.sofnet.weights import NAMING
from sofnet_jax.weights.load import create_shapes
from sofnet_jax.weights.names import (
    describe,
    fold,
    fold_gates,
    from_state_dict,
    infer_architecture,
    rename_tensors,
    to_state_dict,
    torch_shapes,
)

COUNTER = "num_batches_tracked"
STAGES = ["base", "conv_2", "conv_3", "conv_4", "conv_5"]


def create_state_dict(block: str = "bottleneck", gates: tuple[int, ...] = ()):
    """A network in PyTorch, with torchvision's names and every value another."""
    network = torch_sofnet.SoFNet(
        num_classes=3, block=block, depths=(2, 1, 3, 1), width=2, gates=gates, hidden=5
    )
    rng = np.random.default_rng(0)
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    return {name: rng.normal(size=shape) for name, shape in shapes.items()}


def strip(names):
    """Without PyTorch's counters of batches."""
    return [name for name in names if not name.endswith(COUNTER)]


def counters(names) -> list[str]:
    return [name for name in names if name.endswith(COUNTER)]


def name_as_tsn(name: str) -> str:
    return name.replace("fc.", "new_fc.") if name.startswith("fc.") else f"base_model.{name}"


def name_as_tsm(name: str) -> str:
    """The shift stands before the first convolution of a block, around it in the code."""
    return re.sub(r"(layer\d\.\d+\.conv1)\.", r"\1.net.", name_as_tsn(name))


def name_as_transformers(name: str) -> str:
    if name.startswith("fc."):
        return name.replace("fc.", "classifier.1.")
    return f"resnet.{name_as_transformers_backbone(name)}"


def name_as_transformers_backbone(name: str) -> str:
    kinds = {"conv": "convolution", "bn": "normalization"}
    *layer, module, leaf = name.replace("downsample.", "downsample").split(".")
    if not layer:
        return f"embedder.embedder.{kinds[module[:-1]]}.{leaf}"
    stage, block = int(layer[0].removeprefix("layer")) - 1, layer[1]
    if module.startswith("downsample"):
        part = f"shortcut.{['convolution', 'normalization'][int(module[-1])]}"
    else:
        part = f"layer.{int(module[-1]) - 1}.{kinds[module[:-1]]}"
    return f"encoder.stages.{stage}.layers.{block}.{part}.{leaf}"


def name_as_released(name: str) -> str:
    if name.startswith("fc."):
        return f"new_{name}"
    if name.startswith("policy."):
        _, number, module, *leaf = name.split(".")
        modules = {
            "embed": "block_fc_dict.{}.2",
            "lstm": "block_rnn_dict.{}",
            "gate": "action_fc_dict.{}",
            "inner": "block_pred_rnn_fc_dict.{}",
        }
        return ".".join([modules[module].format(STAGES[int(number)]), *leaf])
    module, _, rest = name.partition(".")
    if module.startswith("layer"):
        return f"block_cnn_dict.{STAGES[int(module[-1])]}.{rest}"
    return f"block_cnn_dict.base.{['conv1', 'bn1'].index(module)}.{rest}"


LAYOUTS = {
    "torchvision or timm": (lambda name: name, ()),
    "TSN": (name_as_tsn, ()),
    "TSM": (name_as_tsm, ()),
    "transformers": (name_as_transformers, ()),
    "sofnet_jax": (lambda name: name, (1, 2, 3, 4, 5)),
    "SoF-Net as released by its authors": (name_as_released, (1, 2, 3, 4, 5)),
}


def assert_renamed(tensors, expected, layout: str, left_out) -> None:
    """Every tensor is where it belongs, by its values, or among those left out."""
    found_layout, renamed, found_left_out = rename_tensors(tensors, "file")
    assert found_layout.name.startswith(layout)
    assert renamed.keys() == set(strip(expected))
    for name, value in renamed.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert sorted(found_left_out) == sorted(left_out)
    assert len(renamed) + len(found_left_out) == len(tensors)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_tensor_comes_to_its_place(layout, block, prefix):
    name_as, gates = LAYOUTS[layout]
    state_dict = create_state_dict(block, gates)
    tensors = {prefix + name_as(name): value for name, value in state_dict.items()}
    assert_renamed(tensors, state_dict, layout, counters(tensors))


@pytest.mark.parametrize(
    ("layout", "theirs", "ours"),
    [
        ("TSN", "module.base_model.layer4.0.bn2.running_var", "layer4.0.bn2.running_var"),
        ("TSN", "module.new_fc.bias", "fc.bias"),
        ("TSM", "module.base_model.conv1.weight", "conv1.weight"),
        ("TSM", "module.base_model.layer1.0.conv1.net.weight", "layer1.0.conv1.weight"),
        ("TSM", "module.base_model.layer1.0.conv2.weight", "layer1.0.conv2.weight"),
        ("transformers", "resnet.embedder.embedder.convolution.weight", "conv1.weight"),
        (
            "transformers",
            "resnet.encoder.stages.2.layers.1.layer.2.normalization.running_mean",
            "layer3.1.bn3.running_mean",
        ),
        (
            "transformers",
            "resnet.encoder.stages.0.layers.0.shortcut.convolution.weight",
            "layer1.0.downsample.0.weight",
        ),
        ("transformers", "classifier.1.weight", "fc.weight"),
        ("SoF-Net as released by its authors", "block_cnn_dict.base.1.bias", "bn1.bias"),
        (
            "SoF-Net as released by its authors",
            "block_cnn_dict.conv_2.1.conv3.weight",
            "layer1.1.conv3.weight",
        ),
        (
            "SoF-Net as released by its authors",
            "block_rnn_dict.conv_5.weight_hh",
            "policy.4.lstm.weight_hh",
        ),
        (
            "SoF-Net as released by its authors",
            "block_fc_dict.base.2.weight",
            "policy.0.embed.weight",
        ),
    ],
)
def test_names_by_hand(layout, theirs, ours):
    """The files that this module builds are named so, too."""
    name_as, _ = LAYOUTS[layout]
    assert name_as(ours) == theirs.removeprefix("module.")
    state_dict = create_state_dict(gates=(1, 2, 3, 4, 5))
    if layout != "SoF-Net as released by its authors":
        state_dict = {n: v for n, v in state_dict.items() if not n.startswith("policy.")}
    tensors = {name_as(name): value for name, value in state_dict.items() if name != ours}
    marked = np.array(7.0)
    _, renamed, _ = rename_tensors(tensors | {theirs: marked}, "file")
    assert renamed[ours] is marked


@pytest.mark.parametrize("name_as", [name_as_tsn, name_as_tsm])
def test_tsn_without_dropout_has_the_classifier_in_the_backbone(name_as):
    state_dict = create_state_dict()
    tensors = {
        "module." + name_as(name).replace("new_fc.", "base_model.fc."): value
        for name, value in state_dict.items()
    }
    assert "module.base_model.fc.weight" in tensors
    assert_renamed(tensors, state_dict, "TS", counters(tensors))


@pytest.mark.parametrize("name_as", [name_as_tsn, name_as_tsm])
@pytest.mark.parametrize("first", ["new_fc", "base_model.fc"])
def test_the_new_classifier_of_tsn_is_the_one(name_as, first):
    state_dict = create_state_dict()
    tensors = {"module." + name_as(name): value for name, value in state_dict.items()}
    old = {f"module.base_model.fc.{leaf}": np.zeros(1000) for leaf in ("weight", "bias")}
    tensors = tensors | old if first == "new_fc" else old | tensors
    assert_renamed(tensors, state_dict, "TS", [*counters(tensors), *old])


def test_backbone_of_transformers_alone():
    state_dict = {n: v for n, v in create_state_dict().items() if not n.startswith("fc.")}
    tensors = {name_as_transformers_backbone(name): v for name, v in state_dict.items()}
    assert "embedder.embedder.convolution.weight" in tensors
    assert_renamed(tensors, state_dict, "transformers", counters(tensors))


@pytest.mark.parametrize("gates", [(1,), (2, 4), (1, 2, 3, 4, 5)])
def test_released_file_holds_its_backbone_twice(gates):
    """And ImageNet's classifier, which is not the one."""
    state_dict = create_state_dict(gates=gates)
    again = {
        f"module.base_model.{name}": np.zeros_like(value)
        for name, value in state_dict.items()
        if not name.startswith(("policy.", "fc."))
    }
    again |= {
        "module.base_model.fc.weight": np.zeros((1000, 64)),
        "module.base_model.fc.bias": np.zeros(1000),
    }
    own = {"module." + name_as_released(name): value for name, value in state_dict.items()}
    layout = "SoF-Net as released by its authors"
    for tensors in (again | own, own | again):
        assert_renamed(tensors, state_dict, layout, [*again, *counters(own)])


def test_what_belongs_to_no_resnet_is_left_out():
    state_dict = create_state_dict()
    for name_as in (name_as_tsn, name_as_transformers):
        tensors = {name_as(name): value for name, value in state_dict.items()}
        more = {"module.head.weight": np.zeros(1), "epoch": np.zeros(())}
        assert_renamed(tensors | more, state_dict, "", [*counters(tensors), *more])


def read_error(call) -> str:
    with pytest.raises(UserError) as raised:
        call()
    (line,) = str(raised.value).splitlines()
    return line


def test_unknown_names():
    tensors = {name: np.zeros(1) for name in ("a.weight", "b.weight", "c.weight", "d.weight")}
    line = read_error(lambda: rename_tensors(tensors, "some.pth"))
    assert line.startswith("some.pth holds no ResNet")
    assert line.endswith("but a.weight, b.weight, c.weight, …")
    two = read_error(lambda: rename_tensors(dict(list(tensors.items())[:2]), "some.pth"))
    assert two.endswith("but a.weight, b.weight")
    assert read_error(lambda: rename_tensors({}, "some.pth")).endswith("but nothing")


def test_two_tensors_of_one_name():
    tensors = create_state_dict()
    line = read_error(
        lambda: rename_tensors(tensors | {"module.bn1.bias": tensors["bn1.bias"]}, "some.pth")
    )
    assert line == "some.pth holds two tensors that are bn1.bias; one is module.bn1.bias"


RESNETS = {
    "resnet18": ("basic", (2, 2, 2, 2)),
    "resnet34": ("basic", (3, 4, 6, 3)),
    "resnet50": ("bottleneck", (3, 4, 6, 3)),
    "resnet101": ("bottleneck", (3, 4, 23, 3)),
}


def create_meta_shapes(block: str, depths: tuple[int, ...], **fields):
    with torch.device("meta"):
        network = torch_sofnet.SoFNet(num_classes=7, block=block, depths=depths, **fields)
    return network.state_dict()


@pytest.mark.parametrize("gates", [(), (1,), (2, 5), (1, 2, 3, 4, 5)])
@pytest.mark.parametrize("backbone", RESNETS)
def test_architecture_of_shapes(backbone, gates):
    block, depths = RESNETS[backbone]
    shapes = create_meta_shapes(block, depths, gates=gates, hidden=256)
    found = infer_architecture(shapes, "file")
    plain = tsn.Architecture(7, block, depths, 64, 7)
    own = Architecture(**vars(plain), gates=gates, hidden=256)
    assert found == (own if gates else plain) and type(found) is type(own if gates else plain)
    stages = " ".join(f"res{n}" for n in gates)
    words = f" with gates (LSTMs of 256 units) after {stages}" if gates else ""
    assert describe(found) == backbone + words


def test_architecture_of_other_networks():
    shapes = create_meta_shapes("basic", (1, 2, 1, 3), width=8, stem_kernel=5, gates=(3,), hidden=6)
    found = infer_architecture(shapes, "file")
    assert found == Architecture(7, "basic", (1, 2, 1, 3), 8, 5, gates=(3,), hidden=6)
    text = (
        "a ResNet of 1 + 2 + 1 + 3 basic blocks and width 8 with gates ({} of 6 units) after res3"
    )
    assert describe(found) == text.format("LSTMs")
    connected = {name.replace(".lstm.", ".fc."): value for name, value in shapes.items()}
    found = infer_architecture(connected, "file")
    assert not found.temporal and describe(found) == text.format("layers")
    backbone = {name: value for name, value in shapes.items() if not name.startswith("fc.")}
    assert infer_architecture(backbone, "file").num_classes == 2


@pytest.mark.parametrize(
    ("pattern", "word"),
    [(r"conv1\.", "conv1.weight"), (r"layer4\.", "layer4"), (r"layer1\.", "layer1")],
)
def test_no_architecture_without(pattern, word):
    shapes = create_meta_shapes(*RESNETS["resnet18"])
    rest = {name: value for name, value in shapes.items() if not re.match(pattern, name)}
    line = read_error(lambda: infer_architecture(rest, "some.pth"))
    assert line.startswith("some.pth holds no whole ResNet: ") and word in line


@pytest.mark.parametrize("name", ["conv1.weight", "fc.weight", "policy.0.gate.weight"])
def test_no_architecture_of_odd_shapes(name):
    shapes = create_meta_shapes(*RESNETS["resnet18"])
    line = read_error(lambda: infer_architecture(shapes | {name: np.zeros(())}, "some.pth"))
    assert line.startswith("some.pth holds no whole ResNet: ")


def expand(short: list[str], universe: list[str]) -> list[str]:
    """What a reader takes them for."""
    return [
        name
        for pattern in short
        for name in universe
        if (name.startswith(pattern[:-1]) if pattern.endswith(".*") else name == pattern)
    ]


@pytest.mark.parametrize("seed", range(50))
def test_short_names_mean_exactly_the_names(seed):
    rng = np.random.default_rng(seed)
    universe = sorted(
        {".".join(rng.choice(list("ab1"), size=rng.integers(1, 5))) for _ in range(40)}
    )
    # Whole branches, and a few names besides.
    branches = tuple(f"{name}." for name in rng.choice(universe, size=rng.integers(4)))
    names = [n for n in universe if n.startswith(branches) or rng.random() < 0.2]
    short = fold(names, universe)
    assert sorted(expand(short, universe)) == names  # each once
    for pattern in short:  # and no shorter prefix would do
        above = pattern.removesuffix(".*").rpartition(".")[0]
        assert not above or not set(expand([f"{above}.*"], universe)) <= set(names)
    assert fold(names, []) == fold(names, names)


def test_short_names_by_hand():
    names = ["layer1.0.conv1.weight", "layer1.0.bn1.bias", "fc.weight", "fc.bias"]
    more = ["layer1.1.conv1.weight", "conv1.weight"]
    assert fold(names, names + more) == ["layer1.0.*", "fc.*"]
    assert fold(names[1:], names + more) == ["layer1.0.bn1.*", "fc.*"]
    assert fold(["conv1.weight"], names + more) == ["conv1.*"]
    assert fold([], names) == []


@pytest.mark.parametrize("prefix", ["model.", "backbone.", "_orig_mod.", "model._orig_mod."])
def test_a_module_that_holds_all_is_no_part_of_the_names(prefix):
    # As Lightning, torch.compile and others save a model that is inside another.
    tensors = {"conv1.weight": np.zeros(1), "layer1.0.bn1.bias": np.ones(2)}
    inside = {prefix + name: value for name, value in tensors.items()}
    _, renamed, left_out = rename_tensors(inside, "file")
    assert renamed.keys() == tensors.keys() and not left_out
    assert all(renamed[name] is value for name, value in tensors.items())


def test_of_the_released_layout_it_is_told_how_to_use_it():
    layout, *_ = rename_tensors({"module.block_cnn_dict.base.0.weight": np.zeros(1)}, "file")
    assert ":release" in layout.note


def test_what_is_of_every_gate_is_named_once():
    universe = [f"policy.{n}.{part}.bias" for n in (0, 2) for part in ("inner", "gate")]
    every = ["fc.*", "policy.0.inner.*", "policy.2.inner.*"]
    assert fold_gates(every, universe) == ["fc.*", "policy.*.inner.*"]
    one = ["policy.2.gate.*", "conv1.*"]
    assert fold_gates(one, universe) == one
    assert fold_gates(["policy.2.*"], ["policy.2.gate.bias"]) == ["policy.2.*"]


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
def test_torch_names_by_hand(path, name):
    assert NAMING.name(tuple(path.split()), ()) == name


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
    theirs = network.state_dict()
    expected = {name: tuple(theirs[name].shape) for name in strip(theirs)}
    assert shapes == expected
    # 10 tensors a gate, and the classifier.
    assert len(shapes) == tensors + 5 * 10 + 2


def test_a_pytorch_network_takes_them_all():
    network = torch_sofnet.create_like(_TINY)
    state_dict = to_state_dict(_create_variables())
    tensors = {name: torch.from_numpy(value.copy()) for name, value in state_dict.items()}
    network.load_state_dict(tensors, strict=True)
    assert set(strip(network.state_dict())) == state_dict.keys()


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
