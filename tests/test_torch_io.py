import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from sofnet_jax.architecture import create_architecture
from sofnet_jax.errors import UserError
from sofnet_jax.models.resnet import ResNet
from sofnet_jax.torch_io import load_backbone, torchvision_name


def _create_trees(backbone, width=0):
    """Shapes of the parameters and of the statistics."""
    network = ResNet(create_architecture(backbone, num_classes=2, width=width, gates=()))
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    variables = jax.eval_shape(
        lambda key, x: network.init(key, x, False), jax.random.key(0), images
    )
    return variables["params"], variables["batch_stats"]


def _list_shapes(depths, width, kernels, shortcuts):
    """torchvision's names and shapes of a ResNet whose blocks have convolutions of these kernels.

    A block of one 3×3 between two 1×1 ends with four times the channels; `shortcuts` are the layers
    (1…4) whose first block has a convolution beside it.
    """
    shapes = {}

    def add(conv, norm, out, channels, kernel):
        shapes[f"{conv}.weight"] = (out, channels, kernel, kernel)
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{leaf}"] = (out,)

    expansion = 4 if kernels == (1, 3, 1) else 1
    add("conv1", "bn1", width, 3, 7)
    channels = width
    for layer, depth in enumerate(depths, 1):
        planes = width * 2 ** (layer - 1)
        for block in range(depth):
            prefix, before = f"layer{layer}.{block}", channels
            for i, kernel in enumerate(kernels, 1):
                out = planes * expansion if i == len(kernels) else planes
                add(f"{prefix}.conv{i}", f"{prefix}.bn{i}", out, before, kernel)
                before = out
            if block == 0 and layer in shortcuts:
                add(
                    f"{prefix}.downsample.0",
                    f"{prefix}.downsample.1",
                    planes * expansion,
                    channels,
                    1,
                )
            channels = planes * expansion
    return shapes


_RESNET18 = _list_shapes((2, 2, 2, 2), 4, (3, 3), shortcuts=(2, 3, 4))


def _create_tensors(shapes):
    rng = np.random.default_rng(0)
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def trees():
    """A ResNet-18 of 4 channels."""
    return _create_trees("resnet18", width=4)


@pytest.mark.parametrize(
    ("backbone", "depths", "kernels", "shortcuts", "tensors"),
    [
        # 62 parameters less the classifier's two, and two statistics for each of 20 BatchNorms.
        ("resnet18", (2, 2, 2, 2), (3, 3), (2, 3, 4), 60 + 40),
        # 161 parameters less two, and 53 BatchNorms. The first layer widens 64 to 256 channels.
        ("resnet50", (3, 4, 6, 3), (1, 3, 1), (1, 2, 3, 4), 159 + 106),
    ],
)
def test_names_and_shapes_are_torchvisions(backbone, depths, kernels, shortcuts, tensors):
    expected = _list_shapes(depths, 64, kernels, shortcuts)
    found = {}
    for tree in _create_trees(backbone):
        for path, leaf in traverse_util.flatten_dict(tree).items():
            shape = leaf.shape
            if len(shape) == 4:
                height, width, channels, out = shape
                shape = out, channels, height, width
            found[torchvision_name(path)] = shape
    assert found == expected
    assert len(found) == tensors


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("res1", "conv1", "kernel"), "conv1.weight"),
        (("res1", "bn1", "var"), "bn1.running_var"),
        (("res2", "block0", "conv3", "kernel"), "layer1.0.conv3.weight"),
        (("res4", "block12", "bn2", "scale"), "layer3.12.bn2.weight"),
        (("res5", "block1", "bn1", "bias"), "layer4.1.bn1.bias"),
        (("res3", "block0", "downsample_conv", "kernel"), "layer2.0.downsample.0.weight"),
        (("res3", "block0", "downsample_bn", "mean"), "layer2.0.downsample.1.running_mean"),
    ],
)
def test_names_by_hand(path, name):
    assert torchvision_name(path) == name


def test_tensors_come_to_their_places(tmp_path, trees):
    tensors = _create_tensors(_RESNET18)
    # As in a whole model: a classifier and counters, which are not the backbone's.
    others = {"fc.weight": np.zeros((2, 32)), "bn1.num_batches_tracked": np.array(5)}
    path = tmp_path / "weights.npz"
    np.savez(path, **tensors, **others)
    params, stats = load_backbone(str(path), *trees)

    assert jax.tree.map(jnp.shape, (params, stats)) == jax.tree.map(jnp.shape, trees)
    # A kernel is (height, width, in, out) here and (out, in, height, width) there.
    kernel = params["res3"]["block0"]["conv1"]["kernel"]
    theirs = tensors["layer2.0.conv1.weight"]
    for (y, x, i, o), value in np.ndenumerate(np.asarray(kernel)):
        assert value == theirs[o, i, y, x]
    bn, theirs = params["res5"]["block1"]["bn2"], "layer4.1.bn2"
    np.testing.assert_array_equal(bn["scale"], tensors[f"{theirs}.weight"])
    np.testing.assert_array_equal(bn["bias"], tensors[f"{theirs}.bias"])
    bn = stats["res5"]["block1"]["bn2"]
    np.testing.assert_array_equal(bn["mean"], tensors[f"{theirs}.running_mean"])
    np.testing.assert_array_equal(bn["var"], tensors[f"{theirs}.running_var"])
    # Nothing is lost and nothing comes twice: all sums together agree.
    total = sum(
        float(leaf.sum(dtype=np.float64)) for leaf in map(np.asarray, _leaves(params, stats))
    )
    assert total == pytest.approx(sum(t.sum(dtype=np.float64) for t in tensors.values()), abs=1e-6)


def _leaves(*trees):
    return jax.tree.leaves(trees)


def test_double_precision_becomes_the_parameters_type(tmp_path, trees):
    path = tmp_path / "weights.npz"
    np.savez(path, **{n: t.astype(np.float64) for n, t in _create_tensors(_RESNET18).items()})
    loaded = load_backbone(str(path), *trees)
    assert {leaf.dtype for leaf in _leaves(*loaded)} == {np.dtype(np.float32)}


def test_missing_tensor(tmp_path, trees):
    tensors = _create_tensors(_RESNET18)
    del tensors["layer3.0.downsample.1.running_mean"]
    path = tmp_path / "weights.npz"
    np.savez(path, **tensors)
    with pytest.raises(UserError) as error:
        load_backbone(str(path), *trees)
    assert str(path) in str(error.value)
    assert "no tensor layer3.0.downsample.1.running_mean" in str(error.value)


def test_wrong_shape(tmp_path, trees):
    tensors = _create_tensors(_RESNET18)
    tensors["conv1.weight"] = np.zeros((8, 3, 7, 7), np.float32)
    path = tmp_path / "weights.npz"
    np.savez(path, **tensors)
    with pytest.raises(UserError, match=r"conv1\.weight is .*, not ") as error:
        load_backbone(str(path), *trees)
    assert str(path) in str(error.value)


def test_many_wrong_tensors_are_summed_up(tmp_path, trees):
    tensors = _create_tensors(_RESNET18)
    path = tmp_path / "weights.npz"
    np.savez(path, **{n: t for n, t in tensors.items() if not n.startswith("layer1.0.bn1")})
    with pytest.raises(UserError, match="and 1 more") as error:  # four tensors a BatchNorm
        load_backbone(str(path), *trees)
    assert str(error.value).count("no tensor layer1.0.bn1.") == 3


def _write_text(path, _):
    path.write_text("weights")


def _write_half(path, tensors):
    np.savez(path, **tensors)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _write_damaged(path, tensors):
    np.savez(path, **tensors)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def _write_single_array(path, _):
    with path.open("wb") as file:
        np.save(file, np.zeros(3))


def _write_objects(path, _):
    np.savez(path, conv1=np.array({"weight": 1}))


@pytest.mark.parametrize(
    "write",
    [
        lambda path, _: None,
        lambda path, _: path.touch(),
        lambda path, _: path.mkdir(),
        _write_text,
        _write_half,
        _write_damaged,
        _write_single_array,
        _write_objects,
    ],
    ids=["no file", "empty", "folder", "text", "cut off", "damaged", "single array", "objects"],
)
def test_unreadable_file(tmp_path, trees, write):
    path = tmp_path / "weights.npz"
    write(path, _create_tensors(_RESNET18))
    with pytest.raises(UserError) as error:
        load_backbone(str(path), *trees)
    assert str(path) in str(error.value)
